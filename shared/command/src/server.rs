//! HTTP server for loopback and containers: HTTP/1.1 and HTTP/2 on the same port, with or without
//! TLS.
//!
//! Every wait for a client ends. `limits` says when, `connections` knows which connections are
//! quiet, and `wait` counts the time that a client takes to send (`request_body`) and to read
//! (`socket`, `response_body`).

mod addresses;
mod connections;
mod descriptors;
mod limits;
mod request_body;
mod response_body;
mod socket;
mod wait;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{Request, Response, header::AUTHORIZATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use spillway::http::{Body, Caller};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use addresses::{Addresses, Admitted};
use connections::{Connections, Place};
use response_body::{SentBody, StreamExecutor};
use socket::TimedSocket;

pub use limits::{ConnectionLimits, seconds};
pub use request_body::TimedBody;

/// Interval of HTTP/2 pings. A connection whose peer does not answer them is closed.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum size of a request head.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Maximum number of concurrent requests of an HTTP/2 connection.
const MAX_STREAMS: u32 = 100;

/// Maximum size of what an HTTP/2 connection holds of each response that its client has not read.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// Time that a client has to answer the end of its connection.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// A listening socket.
pub struct Listener {
    /// TCP socket.
    pub tcp: TcpListener,
    /// TLS acceptor; `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

/// Maximum number of connections that wait until they are accepted. The system may lower it. With
/// the usual 128, clients of a burst wait for seconds or are reset.
const MAX_WAITING_CONNECTIONS: u32 = 4_096;

/// Listens on `address`.
///
/// # Errors
/// Returns an error if the address cannot be used, such as a port that is taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(MAX_WAITING_CONNECTIONS)
}

/// Passes requests from all `listeners` to `handler` until `shutdown`. Then refuses connections and
/// finishes requests in flight.
pub async fn serve<F, H>(listeners: Vec<Listener>, handler: H, limits: ConnectionLimits, shutdown: CancellationToken)
where
    H: Fn(Request<TimedBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let door = Door {
        connections: Connections::new(descriptors::max_connections(limits.max_connections)),
        addresses: Addresses::new(limits.max_connections_per_address.unwrap_or(usize::MAX)),
    };
    let serve = |listener| {
        let server = Server { handler: handler.clone(), limits, shutdown: shutdown.clone() };
        server.serve_listener(listener, &door)
    };
    join_all(listeners.into_iter().map(serve)).await;
}

/// What bounds the number of connections of all listeners.
struct Door {
    connections: Arc<Connections>,
    addresses: Arc<Addresses>,
}

impl Door {
    /// Returns the next connection, when there is a place for it.
    async fn accept(&self, listener: &TcpListener) -> (TcpStream, Arc<Place>, Admitted) {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => match self.addresses.admit(client.ip()) {
                    Some(admitted) => return (stream, self.connections.place().await, admitted),
                    None => debug!(%client, "closed a connection of an address that has too many"),
                },
                Err(error) => {
                    // The likely cause is a lack of file descriptors, which is temporary.
                    warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// What all connections of a listener share.
#[derive(Clone)]
struct Server<H> {
    handler: H,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
}

impl<F, H> Server<H>
where
    H: Fn(Request<TimedBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn serve_listener(self, listener: Listener, door: &Door) {
        let tasks = TaskTracker::new();
        while let Some((stream, place, admitted)) = self.shutdown.run_until_cancelled(door.accept(&listener.tcp)).await
        {
            let _ = stream.set_nodelay(true);
            let served = self.clone().serve_connection(stream, listener.tls.clone(), place);
            tasks.spawn(async move {
                served.await;
                drop(admitted);
            });
        }
        // From now on, connections are refused.
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    /// Serves a connection until it ends, or until it must make room for another.
    async fn serve_connection<S>(self, stream: S, tls: Option<TlsAcceptor>, place: Arc<Place>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let opened = Instant::now();
        let stream = TimedSocket::new(stream, Arc::clone(&place), self.limits.write_pace());
        let served = async {
            let handshake = timeout_at(opened + self.limits.head_timeout, handshake(stream, tls));
            if let Some(Ok(Some(stream))) = self.shutdown.run_until_cancelled(handshake).await {
                self.serve_requests(stream, &place, opened).await;
            }
        };
        tokio::select! {
            () = served => {}
            () = place.closed() => debug!("closed a quiet connection to make room for another"),
        }
    }

    async fn serve_requests<S>(&self, stream: S, place: &Arc<Place>, opened: Instant)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let builder = builder(&self.limits);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), self.service(place)));
        let is_quiet = place.quiet_until(|has_served| self.limits.quiet_until(opened, Instant::now(), has_served));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = is_quiet => debug!("closed a connection without a request"),
            () = self.shutdown.cancelled() => {}
        }
        // HTTP/2 now waits for the client. HTTP/1.1 waits for the rest of a head.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_end(ended),
            () = place.quiet_until(|_| Instant::now() + CLOSE_GRACE) => {}
        }
    }

    /// Returns the service of a connection.
    fn service(
        &self,
        place: &Arc<Place>,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<SentBody>,
        Error = Infallible,
        Future: Future<Output = Result<Response<SentBody>, Infallible>> + Send + 'static,
    > + use<F, H> {
        let (place, pace) = (Arc::clone(place), self.limits.body_pace());
        let (handler, shutdown) = (self.handler.clone(), self.shutdown.clone());
        service_fn(move |request: Request<Incoming>| {
            let work = place.request();
            let response = handler(request.map(|body| TimedBody::new(body, pace, shutdown.clone())));
            async move { Ok::<_, Infallible>(response.await.map(|body| SentBody::new(body, work))) }
        })
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<StreamExecutor> {
    let mut builder = Builder::new(StreamExecutor(limits.write_pace()));
    builder.http1().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES as usize);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL);
    http2.max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEAD_BYTES).max_send_buf_size(MAX_UNSENT_BYTES);
    builder
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}

/// Completes the TLS handshake if the listener uses TLS. Returns `None` if the handshake fails.
async fn handshake<S>(stream: S, tls: Option<TlsAcceptor>) -> Option<Either<S, TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(tls) = tls else { return Some(Either::Left(stream)) };
    match tls.accept(stream).await {
        Ok(stream) => Some(Either::Right(stream)),
        Err(error) => {
            debug!(%error, "TLS handshake failed");
            None
        }
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
