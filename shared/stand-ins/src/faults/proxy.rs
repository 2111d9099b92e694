//! Loopback proxy that forwards requests to a stand-in and applies the injected faults.

use std::{net::SocketAddr, sync::Arc};

use anyhow::bail;
use aws_smithy_types::{DateTime, date_time::Format};
use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, StatusCode, Uri, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Effect, Faults, control, units};
use crate::{clock::Clock, connections};

/// Maximum size of a DynamoDB request: 16 MiB.
const MAX_BODY_BYTES: usize = 16 << 20;

const THROTTLING_BODY: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"Throughput exceeds the current capacity of your table or index."}"#;
const INTERNAL_ERROR_BODY: &str = r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"The request processing has failed."}"#;

/// Forwards HTTP requests from `listener` to `upstream` until `shutdown`, then lets the requests in
/// flight finish.
///
/// A request that was read completely is always executed, even if its client disconnects.
///
/// # Errors
/// Returns an error if `upstream` is not a valid address.
pub async fn serve(
    listener: TcpListener,
    upstream: SocketAddr,
    faults: Faults,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let proxy = Arc::new(Proxy::new(upstream, faults, clock, shutdown.clone())?);
    connections::serve(listener, shutdown, move |request| Arc::clone(&proxy).respond(request)).await;
    Ok(())
}

struct Proxy {
    upstream: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
    faults: Faults,
    clock: Clock,
    shutdown: CancellationToken,
}

impl Proxy {
    fn new(upstream: SocketAddr, faults: Faults, clock: Clock, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { upstream: upstream.to_string().parse()?, client, faults, clock, shutdown })
    }

    /// Handles one request. An error closes the connection without a response.
    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
        let clock = self.clock.clone();
        let mut response = self.respond_without_date(request).await?;
        let now = DateTime::from_millis(i64::try_from(clock.now_ms())?).fmt(Format::HttpDate)?;
        response.headers_mut().insert(header::DATE, now.parse()?);
        Ok(response)
    }

    async fn respond_without_date(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than 16 MiB or incomplete."));
        };
        let body = body.to_bytes();
        if parts.uri.path().starts_with("/_sim/") {
            return Ok(self.faults.control(&parts.method, parts.uri.path(), &body).map(Full::from));
        }
        let effect = self.faults.record(operation(&parts));
        match effect {
            Some(Effect::Throttle) => return Ok(dynamodb_error(StatusCode::BAD_REQUEST, THROTTLING_BODY)),
            Some(Effect::Error500) => {
                return Ok(dynamodb_error(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR_BODY));
            }
            _ => {}
        }
        let shutdown = self.shutdown.clone();
        // A separate task: if the client disconnects, this future is dropped, but the request must
        // be executed.
        let response = tokio::spawn(async move { self.forward_with_delay(parts, body, effect).await }).await?;
        match effect {
            Some(Effect::TimeoutAfter) => {
                shutdown.cancelled().await;
                bail!("withholding the response on purpose")
            }
            Some(Effect::CutAfter) => bail!("closing the connection on purpose"),
            _ => Ok(response),
        }
    }

    async fn forward_with_delay(&self, parts: Parts, body: Bytes, effect: Option<Effect>) -> Response<Full<Bytes>> {
        if let Some(Effect::DelayMs(delay_ms)) = effect {
            self.clock.sleep_until(self.clock.now_ms().saturating_add(delay_ms)).await;
        }
        match self.forward(parts, body).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%error, "the stand-in behind the proxy is unavailable");
                text(StatusCode::BAD_GATEWAY, "The stand-in is unavailable.")
            }
        }
    }

    async fn forward(&self, parts: Parts, body: Bytes) -> anyhow::Result<Response<Full<Bytes>>> {
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.upstream.clone()).path_and_query(path).build()?;
        let operation = operation(&parts).to_owned();
        let asking = units::ask(&body);
        let mut request = Request::builder().method(parts.method).uri(uri).body(Full::new(asking))?;
        *request.headers_mut() = end_to_end(parts.headers);
        let (parts, reply) = self.client.request(request).await?.into_parts();
        let reply = reply.collect().await?.to_bytes();
        if parts.status == StatusCode::BAD_REQUEST && is_failed_condition(&reply) {
            self.faults.count_failed_condition(&body);
        }
        self.faults.count_units(&operation, &reply);
        let mut response = Response::builder().status(parts.status).body(Full::new(reply))?;
        *response.headers_mut() = end_to_end(parts.headers);
        Ok(response)
    }
}

fn operation(parts: &Parts) -> &str {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    target.and_then(|target| target.rsplit('.').next()).unwrap_or_else(|| parts.uri.path())
}

/// Removes the headers that concern only one connection.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::UPGRADE, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}

fn is_failed_condition(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "__type")]
        kind: String,
    }
    serde_json::from_slice::<Error>(body).is_ok_and(|error| error.kind.ends_with("#ConditionalCheckFailedException"))
}

fn dynamodb_error(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    control::respond(status, "application/x-amz-json-1.0", body.to_owned()).map(Full::from)
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    control::text(status, body).map(Full::from)
}
