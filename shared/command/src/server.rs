//! HTTP server for loopback and containers: HTTP/1.1 and HTTP/2 on the same port, with or without
//! TLS.

use std::{convert::Infallible, time::Duration};

use futures_util::future::join_all;
use http::{Request, Response, header::AUTHORIZATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use spillway::http::{Body, Caller};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};
use tracing::{debug, warn};

/// Time limit for the TLS handshake, and for receiving the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening socket.
pub struct Listener {
    /// TCP socket.
    pub tcp: TcpListener,
    /// TLS acceptor; `None` for plain HTTP.
    pub tls: Option<TlsAcceptor>,
}

/// Passes requests from all `listeners` to `handler` until `shutdown`, then finishes requests in
/// flight.
pub async fn serve<F, H>(listeners: Vec<Listener>, handler: H, shutdown: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let serve = |listener| serve_listener(listener, handler.clone(), shutdown.clone());
    join_all(listeners.into_iter().map(serve)).await;
}

async fn serve_listener<F, H>(listener: Listener, handler: H, shutdown: CancellationToken)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.tcp.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The likely cause is a lack of file descriptors, which is temporary.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let response = handler(request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let (builder, tls, watcher, shutdown) =
            (builder.clone(), listener.tls.clone(), graceful.watcher(), shutdown.clone());
        tokio::spawn(async move {
            let Some(stream) = handshake(stream, tls, shutdown).await else { return };
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!(%error, "connection ended early");
            }
        });
    }
    graceful.shutdown().await;
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
        accepted = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)) => match accepted {
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
mod tests {
    use super::*;

    #[test]
    fn the_access_key_id_is_read_only_from_a_signed_request() {
        let scope = "20261123/us-east-1/bedrock/aws4_request";
        for (authorization, id) in [
            (format!("AWS4-HMAC-SHA256 Credential=AKID/{scope}, SignedHeaders=host, Signature=0"), Some("AKID")),
            (format!("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=local-a/{scope},Signature=0"), Some("local-a")),
            (format!("AWS4-ECDSA-P256-SHA256 Credential=AKID/{scope}, Signature=0"), Some("AKID")),
            (format!("Bearer Credential=AKID/{scope}"), None),
            (format!("AWS4-HMAC-SHA256 Credential=/{scope}"), None),
            ("AWS4-HMAC-SHA256 Credential=AKID".to_owned(), None),
            ("AWS4-HMAC-SHA256".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(access_key_id(&authorization), id, "{authorization}");
        }
    }
}
