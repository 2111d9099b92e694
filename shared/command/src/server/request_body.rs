//! The body of a request, which ends with an error if its client is too slow.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;

use super::wait::{Pace, Wait};

/// Time that an incomplete body has after the server was asked to stop.
const STOPPED_BODY_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request. It fails if the client keeps the server waiting for too long.
pub struct TimedBody {
    body: Incoming,
    wait: Wait,
    shutdown: CancellationToken,
    stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl TimedBody {
    pub(super) fn new(body: Incoming, pace: Pace, shutdown: CancellationToken) -> Self {
        Self { body, wait: Wait::new(pace), shutdown, stopped: None }
    }

    /// Is ready some time after the server was asked to stop.
    fn poll_stopped(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let shutdown = &self.shutdown;
        let stopped = self.stopped.get_or_insert_with(|| {
            let shutdown = shutdown.clone();
            Box::pin(async move {
                shutdown.cancelled().await;
                tokio::time::sleep(STOPPED_BODY_TIMEOUT).await;
            })
        });
        stopped.as_mut().poll(context)
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut body.body).poll_frame(context) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            body.wait.end(data.map_or(0, Bytes::len));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        body.wait.begin();
        if body.wait.poll_too_long(context).is_pending() {
            ready!(body.poll_stopped(context));
        }
        Poll::Ready(Some(Err("the client sends the body too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
