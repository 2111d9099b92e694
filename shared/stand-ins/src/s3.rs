//! A stand-in for Amazon S3 on the wire: objects are files, by the crate `s3s-fs`. Signatures are not verified.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use hyper::service::Service;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connections;

/// Serves S3 on `listener` until `shutdown`. Objects are below `data`, or in a temporary directory when absent.
///
/// # Errors
/// The directory cannot be used.
pub async fn serve(listener: TcpListener, data: Option<PathBuf>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (root, _temporary) = root(data)?;
    let files = FileSystem::new(&root).map_err(|error| anyhow!("cannot use {}: {error:?}", root.display()))?;
    let service = S3ServiceBuilder::new(files).build();
    let answer = move |mut request: http::Request<hyper::body::Incoming>| {
        let service = service.clone();
        // Without it, nothing is verified.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        async move { Service::call(&service, request).await.map_err(|error| format!("{error:?}")) }
    };
    connections::serve(listener, shutdown, answer).await;
    Ok(())
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
