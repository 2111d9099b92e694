//! Accepts connections for all stand-ins: HTTP/1.1 and h2c on the same port.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::browser;

/// Time for requests in flight to finish after a shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Serves requests until `shutdown`, then waits up to five seconds for requests in flight. An `Err`
/// from the handler closes the connection without a response. Requests of web pages are refused.
pub(crate) async fn serve<A, F, B, E>(listener: TcpListener, shutdown: CancellationToken, handler: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    let server = Builder::new(TokioExecutor::new());
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The usual cause is too many open files. Wait until some are closed.
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Without this option, small frames wait for the delayed acknowledgement of the client.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| answer(handler.clone(), request));
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // Clients disconnect and faults close connections. Neither is an error of the stand-in.
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("connections still open after the grace period");
    }
}

/// Passes `request` to `handler`, unless a web page may have sent it.
async fn answer<A, F, B, E>(handler: A, request: Request<Incoming>) -> Result<Response<Either<B, Full<Bytes>>>, E>
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>>,
{
    match browser::refusal(&request) {
        Some(refusal) => Ok(refusal.map(|body| Either::Right(Full::new(body)))),
        None => Ok(handler(request).await?.map(Either::Left)),
    }
}
