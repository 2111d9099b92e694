//! Stand-in for Amazon S3 on the wire. The crate `s3s-fs` stores objects as files. Signatures are
//! verified in presigned URLs only. The controls of [`faults`](crate::faults) count requests and
//! inject faults.

mod expiry;
mod presigned;

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::Service};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    connections, create_private_directory,
    faults::{Effect, Faults, control},
};

/// Maximum size of a control request; a fault in JSON is smaller.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// Settings of the S3 stand-in.
#[derive(Clone, Default)]
pub struct Options {
    /// Clock for delayed responses. Objects expire by the machine's clock, which dates the files.
    pub clock: Clock,
    /// Directory of a bucket that survives a restart; a temporary directory if absent.
    pub data: Option<PathBuf>,
    /// Request counters and injected faults.
    pub faults: Faults,
}

/// Serves S3 on `listener` until `shutdown`.
///
/// # Errors
/// Returns an error if the directory cannot be used.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Options { clock, data, faults } = options;
    let (root, _temporary) = open_root(data)?;
    let files = FileSystem::new(&root).map_err(|error| anyhow!("cannot use {}: {error:?}", root.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(presigned::Secrets);
    builder.set_access(presigned::Everyone);
    let service = builder.build();
    let expiry = tokio::spawn(expiry::sweep_forever(root));
    let bucket = Bucket { service, clock, faults, shutdown: shutdown.clone() };
    connections::serve(listener, shutdown, move |request| bucket.clone().respond(request)).await;
    expiry.abort();
    Ok(())
}

#[derive(Clone)]
struct Bucket {
    service: S3Service,
    clock: Clock,
    faults: Faults,
    shutdown: CancellationToken,
}

impl Bucket {
    /// Handles one request. An error closes the connection without a response.
    async fn respond(self, request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        if request.uri().path().starts_with(control::PATH_PREFIX) {
            return self.control(request).await;
        }
        let effect = self.faults.record(operation(&request));
        match effect {
            Some(Effect::Throttle) => return Ok(error_response(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Some(Effect::Error500) => return Ok(error_response(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Some(Effect::DelayMs(delay_ms)) => {
                self.clock.sleep_until(self.clock.now_ms().saturating_add(delay_ms)).await;
            }
            _ => {}
        }
        let response = self.forward(request).await?;
        match effect {
            Some(Effect::TimeoutAfter) => {
                self.shutdown.cancelled().await;
                bail!("withholding the response on purpose")
            }
            Some(Effect::CutAfter) => bail!("closing the connection on purpose"),
            _ => Ok(response),
        }
    }

    async fn forward(&self, mut request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        // `s3s` verifies a signature only if it is in this header or in the query.
        request.headers_mut().remove(AUTHORIZATION);
        Service::call(&self.service, request).await.map_err(|error| anyhow!("{error:?}"))
    }

    async fn control(&self, request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_CONTROL_BYTES).collect().await else {
            return Ok(
                control::text(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large for a fault.").map(s3s::Body::from)
            );
        };
        Ok(self.faults.control(&head.method, head.uri.path(), &body.to_bytes()).map(s3s::Body::from))
    }
}

/// Returns an error response in the format of S3 (Amazon S3 API Reference, "Error responses").
fn error_response(status: StatusCode, code: &str) -> Response<s3s::Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>Try again.</Message></Error>"
    );
    control::respond(status, "application/xml", body).map(s3s::Body::from)
}

/// Returns the operation of a path-style request, or its method if the operation is not known.
fn operation(request: &Request<Incoming>) -> &str {
    let (method, uri) = (request.method(), request.uri());
    let is_copy = request.headers().contains_key("x-amz-copy-source");
    let has_key = uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    match (method.as_str(), has_key, uri.query().is_some_and(|query| query.contains("uploadId"))) {
        ("PUT", false, _) => "CreateBucket",
        ("PUT", true, false) if is_copy => "CopyObject",
        ("PUT", true, false) => "PutObject",
        ("GET", false, _) => "ListObjectsV2",
        ("GET", true, false) => "GetObject",
        ("HEAD", true, false) => "HeadObject",
        ("DELETE", true, false) => "DeleteObject",
        (method_name, ..) => method_name,
    }
}

/// Opens the directory of the objects. A temporary directory is deleted with its guard. Only this
/// user can read the directory, because it holds prompts.
fn open_root(data: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    match data {
        None => {
            let temporary = tempfile::tempdir().context("cannot create a temporary directory for objects")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
        Some(data) => {
            let root = data.join("s3");
            create_private_directory(&root).with_context(|| format!("cannot create {}", root.display()))?;
            Ok((root, None))
        }
    }
}
