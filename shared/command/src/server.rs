//! The loopback and container front: HTTP/1.1 and HTTP/2 on one port, in the clear or over TLS.

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

/// How long a client may take for the handshake of TLS, and to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where connections come in.
pub struct Listener {
    /// The port.
    pub tcp: TcpListener,
    /// How to encrypt; in the clear without.
    pub tls: Option<TlsAcceptor>,
}

/// Answers requests from all `listeners` until `shutdown`, then finishes those in flight.
pub async fn serve<F, A>(listeners: Vec<Listener>, answer: A, shutdown: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let each = |listener| serve_one(listener, answer.clone(), shutdown.clone());
    join_all(listeners.into_iter().map(each)).await;
}

async fn serve_one<F, A>(listener: Listener, answer: A, shutdown: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
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
                // Out of file descriptors, most likely: some will be free again.
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let (builder, tls, watcher, shutdown) =
            (builder.clone(), listener.tls.clone(), graceful.watcher(), shutdown.clone());
        tokio::spawn(async move {
            let Some(stream) = opened(stream, tls, shutdown).await else { return };
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    graceful.shutdown().await;
}

/// The connection, once it is encrypted if it must be; `None` if it does not come to that.
async fn opened(
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
                debug!(%error, "a handshake failed");
                None
            }
            Err(_) => None,
        },
    }
}

/// Tells the access key id of a signed request as its caller. The signature is not verified: whoever can reach the port
/// can be any caller.
pub fn trust_access_key_id<B>(request: &mut Request<B>) {
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some(id) = authorization.and_then(access_key_id) {
        let caller = Caller(id.to_owned());
        request.extensions_mut().insert(caller);
    }
}

/// The access key id in the `Authorization` of AWS Signature Version 4 or 4A.
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
    fn the_access_key_id_is_read_from_a_signed_request_only() {
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
