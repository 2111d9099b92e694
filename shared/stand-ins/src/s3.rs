//! A stand-in for Amazon S3 on the wire: objects are files, by the crate `s3s-fs`. Signatures are not verified, nothing
//! expires, and `GET /_sim/stats` tells how often each operation was asked for.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::Service;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections;
use crate::counts::{self, Counts};

/// Serves S3 on `listener` until `shutdown`. Objects are below `data`, or in a temporary directory when absent.
///
/// # Errors
/// The directory cannot be used.
pub async fn serve(listener: TcpListener, data: Option<PathBuf>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (root, _temporary) = root(data)?;
    let files = FileSystem::new(&root).map_err(|error| anyhow!("cannot use {}: {error:?}", root.display()))?;
    let (service, counts) = (S3ServiceBuilder::new(files).build(), Counts::default());
    let answer = move |request| answer(service.clone(), counts.clone(), request);
    connections::serve(listener, shutdown, answer).await;
    Ok(())
}

/// An error closes the connection without an answer.
async fn answer(
    service: S3Service,
    counts: Counts,
    mut request: Request<Incoming>,
) -> Result<Response<s3s::Body>, String> {
    if request.uri().path() == counts::PATH {
        let told = Bytes::from(counts.answer(request.method()).to_string());
        return Ok(Response::new(s3s::Body::from(told)));
    }
    counts.count(operation(request.method(), request.uri()));
    // Without it, nothing is verified.
    request.headers_mut().remove(AUTHORIZATION);
    Service::call(&service, request).await.map_err(|error| format!("{error:?}"))
}

/// The operation of a request in path style where it is one of objects; else its method.
fn operation<'a>(method: &'a Method, uri: &Uri) -> &'a str {
    let names_object = uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    match (method.as_str(), names_object, uri.query().is_some_and(|query| query.contains("uploadId"))) {
        ("PUT", false, _) => "CreateBucket",
        ("PUT", true, false) => "PutObject",
        ("GET", true, false) => "GetObject",
        ("DELETE", true, false) => "DeleteObject",
        (other, ..) => other,
    }
}

/// Where the objects are; a temporary directory goes when its guard does.
fn root(data: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    match data {
        None => {
            let temporary = tempfile::tempdir().context("no temporary directory for objects")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
        Some(data) => {
            let root = data.join("s3");
            std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
            Ok((root, None))
        }
    }
}
