//! HTTP server for loopback and containers: HTTP/1.1 and HTTP/2 on the same port, with or without
//! TLS.

use std::{convert::Infallible, sync::Arc, time::Duration};

use clap::builder::RangedU64ValueParser;
use futures_util::future::join_all;
use http::{Request, Response, header::AUTHORIZATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use spillway::http::{Body, Caller};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};
use tower_http::timeout::TimeoutBody;
use tracing::{debug, warn};

/// Time limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval of HTTP/2 pings. A connection whose peer does not answer them is closed.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The body of a request, which fails if its next part does not arrive in time.
pub type TimedBody = TimeoutBody<Incoming>;

/// Default of the timeouts of a connection, in seconds.
const DEFAULT_TIMEOUT_S: u64 = 30;

/// Default of the number of connections.
const DEFAULT_CONNECTIONS: usize = 10_000;

/// Limits on connections, so that silent clients do not exhaust the process.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ConnectionLimits {
    /// Seconds after which a connection is closed that sends no whole request head. Behind a load
    /// balancer, set it above the balancer's own idle timeout
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TIMEOUT_S, value_parser = timeout_s())]
    pub idle_timeout_s: u64,
    /// Seconds that each part of a request body may take to arrive
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TIMEOUT_S, value_parser = timeout_s())]
    pub body_timeout_s: u64,
    /// Number of connections that are served at the same time. Further connections wait
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CONNECTIONS, value_parser = max_connections)]
    pub max_connections: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            idle_timeout_s: DEFAULT_TIMEOUT_S,
            body_timeout_s: DEFAULT_TIMEOUT_S,
            max_connections: DEFAULT_CONNECTIONS,
        }
    }
}

/// Returns a parser of seconds, from one to the number of a day.
fn timeout_s() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=86_400)
}

fn max_connections(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000000".to_owned())
}

/// A listening socket.
pub struct Listener {
    /// TCP socket.
    pub tcp: TcpListener,
    /// TLS acceptor; `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

/// Passes requests from all `listeners` to `handler` until `shutdown`. Then refuses connections and
/// finishes requests in flight.
pub async fn serve<F, H>(listeners: Vec<Listener>, handler: H, limits: ConnectionLimits, shutdown: CancellationToken)
where
    H: Fn(Request<TimedBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let vacancies = Arc::new(Semaphore::new(limits.max_connections));
    let serve = |listener| serve_listener(listener, handler.clone(), limits, vacancies.clone(), shutdown.clone());
    join_all(listeners.into_iter().map(serve)).await;
}

async fn serve_listener<F, H>(
    listener: Listener,
    handler: H,
    limits: ConnectionLimits,
    vacancies: Arc<Semaphore>,
    shutdown: CancellationToken,
) where
    H: Fn(Request<TimedBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let idle_timeout = Duration::from_secs(limits.idle_timeout_s);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL);
    let graceful = GracefulShutdown::new();
    while let Some((stream, vacancy)) = accept(&listener.tcp, &vacancies, &shutdown).await {
        let _ = stream.set_nodelay(true);
        let has_request = CancellationToken::new();
        let service = service(handler.clone(), limits, has_request.clone());
        let (builder, tls, watcher, shutdown) =
            (builder.clone(), listener.tls.clone(), graceful.watcher(), shutdown.clone());
        tokio::spawn(async move {
            let Some(stream) = handshake(stream, tls, shutdown).await else { return };
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        debug!(%error, "connection ended early");
                    }
                }
                () = no_request(has_request, idle_timeout) => debug!("closed a connection without a request"),
            }
            drop(vacancy);
        });
    }
    // From now on, connections are refused.
    drop(listener);
    graceful.shutdown().await;
}

/// Returns the next connection, when there is a vacancy for it. Returns `None` at the shutdown.
async fn accept(
    listener: &TcpListener,
    vacancies: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let vacancy = Arc::clone(vacancies).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, vacancy)),
                Err(error) => {
                    // The likely cause is a lack of file descriptors, which is temporary.
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(next).await.flatten()
}

/// Returns the service of a connection. It cancels `has_request` at the first request.
fn service<F, H>(
    handler: H,
    limits: ConnectionLimits,
    has_request: CancellationToken,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
>
where
    H: Fn(Request<TimedBody>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let body_timeout = Duration::from_secs(limits.body_timeout_s);
    service_fn(move |request: Request<Incoming>| {
        has_request.cancel();
        let response = handler(request.map(|body| TimeoutBody::new(body_timeout, body)));
        async move { Ok::<_, Infallible>(response.await) }
    })
}

/// Returns when `timeout` has passed without a request. Covers what hyper's timeout of a head does
/// not cover: the bytes that decide between HTTP/1.1 and HTTP/2.
async fn no_request(has_request: CancellationToken, timeout: Duration) {
    if tokio::time::timeout(timeout, has_request.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}

/// Completes the TLS handshake if the listener uses TLS. Returns `None` if the handshake fails.
async fn handshake(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
) -> Option<Either<TcpStream, TlsStream<TcpStream>>> {
    let Some(tls) = tls else { return Some(Either::Left(stream)) };
    tokio::select! {
        () = shutdown.cancelled() => None,
        accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => match accepted {
            Ok(Ok(stream)) => Some(Either::Right(stream)),
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed");
                None
            }
            Err(_) => None,
        },
    }
}

/// Sets the caller of a signed request to its access key ID. The signature is not verified: any
/// client that reaches the port can pose as any caller.
pub fn trust_access_key_id<B>(request: &mut Request<B>) {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(id) = authorization.and_then(access_key_id) {
        let caller = Caller(id.to_owned());
        request.extensions_mut().insert(caller);
    }
}

/// Access key ID in the `Authorization` of AWS Signature Version 4 or 4A.
fn access_key_id(authorization: &str) -> Option<&str> {
    let (algorithm, fields) = authorization.split_once(' ')?;
    if !algorithm.starts_with("AWS4-") {
        return None;
    }
    let credential = fields.split(',').find_map(|field| field.trim().strip_prefix("Credential="))?;
    credential.split_once('/').map(|(id, _)| id).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
