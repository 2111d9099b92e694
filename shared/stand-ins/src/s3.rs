//! A stand-in for Amazon S3 on the wire: objects are files, by the crate `s3s-fs`. Signatures are not verified. The controls
//! of [`faults`](crate::faults) count the requests and make some of them fail.

mod expiry;

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use http::{Method, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::Service};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    connections,
    faults::{Effect, Faults, control},
    private_directory,
};

/// More than a fault needs.
const MAX_CONTROL_BYTES: usize = 64 * 1024;

/// What the stand-in is to be like.
#[derive(Clone, Default)]
pub struct Options {
    /// Decides when a delayed answer is due. What has expired, the machine's clock decides, as it dates the files.
    pub clock: Clock,
    /// The directory of a bucket that survives a restart; a temporary one when absent.
    pub data: Option<PathBuf>,
    pub faults: Faults,
}

/// Serves S3 on `listener` until `shutdown`.
///
/// # Errors
/// The directory cannot be used.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Options { clock, data, faults } = options;
    let (root, _temporary) = root(data)?;
    let files = FileSystem::new(&root).map_err(|error| anyhow!("cannot use {}: {error:?}", root.display()))?;
    let service = S3ServiceBuilder::new(files).build();
    let expiry = tokio::spawn(expiry::sweep_forever(root));
    let bucket = Bucket { service, clock, faults, shutdown: shutdown.clone() };
    connections::serve(listener, shutdown, move |request| bucket.clone().answer(request)).await;
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
    /// An error closes the connection without an answer.
    async fn answer(self, request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        if request.uri().path().starts_with(control::PATHS) {
            return self.control(request).await;
        }
        let effect = self.faults.arrive(operation(request.method(), request.uri()));
        match effect {
            Some(Effect::Throttle) => return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
            Some(Effect::Error500) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
            Some(Effect::DelayMs(delay_ms)) => {
                self.clock.sleep_until(self.clock.now_ms().saturating_add(delay_ms)).await;
            }
            _ => {}
        }
        let response = self.carry_out(request).await?;
        match effect {
            Some(Effect::TimeoutAfter) => {
                self.shutdown.cancelled().await;
                bail!("an answer was withheld")
            }
            Some(Effect::CutAfter) => bail!("an answer was cut"),
            _ => Ok(response),
        }
    }

    async fn carry_out(&self, mut request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        // Without it, nothing is verified.
        request.headers_mut().remove(AUTHORIZATION);
        Service::call(&self.service, request).await.map_err(|error| anyhow!("{error:?}"))
    }

    async fn control(&self, request: Request<Incoming>) -> anyhow::Result<Response<s3s::Body>> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_CONTROL_BYTES).collect().await else {
            return Ok(control::text(StatusCode::PAYLOAD_TOO_LARGE, "this is no fault").map(s3s::Body::from));
        };
        Ok(self.faults.control(&head.method, head.uri.path(), &body.to_bytes()).map(s3s::Body::from))
    }
}

/// An error as S3 words it (Amazon S3 API Reference, "Error responses").
fn refusal(status: StatusCode, code: &str) -> Response<s3s::Body> {
    let told = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>Try again.</Message></Error>"
    );
    control::respond(status, "application/xml", told).map(s3s::Body::from)
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

/// Where the objects are; a temporary directory goes when its guard does. Either is this user's only: prompts are in it.
fn root(data: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    match data {
        None => {
            let temporary = tempfile::tempdir().context("no temporary directory for objects")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
        Some(data) => {
            let root = data.join("s3");
            private_directory(&root).with_context(|| format!("cannot make {}", root.display()))?;
            Ok((root, None))
        }
    }
}
