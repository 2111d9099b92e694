//! The body of a response, and HTTP/2 streams whose client does not read it.
//!
//! A client that does not read an HTTP/1.1 response blocks the socket, which `socket` notices. A
//! client that does not read an HTTP/2 stream leaves the socket open for others, and stops only the
//! body from being read here.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::{
    body::{Body as _, Frame, SizeHint},
    rt::Executor,
};
use spillway::http::Body;
use tracing::debug;

use super::{
    connections::Work,
    wait::{Pace, Wait},
};

/// Maximum size of a part of a response. What a client has not read is held back here, where it
/// counts as work, and not in the buffers of the connection.
const MAX_PART_BYTES: usize = 64 * 1024;

tokio::task_local! {
    /// The wait for the client of the HTTP/2 stream that this task serves.
    static STREAM: Arc<Mutex<Wait>>;
}

fn with<T>(wait: &Mutex<Wait>, change: impl FnOnce(&mut Wait) -> T) -> T {
    change(&mut wait.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Spawns the HTTP/2 streams of a connection. Resets a stream whose client does not read.
#[derive(Debug, Clone, Copy)]
pub struct StreamExecutor(pub Pace);

impl<S> Executor<S> for StreamExecutor
where
    S: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: S) {
        let wait = Arc::new(Mutex::new(Wait::new(self.0)));
        tokio::spawn(STREAM.scope(Arc::clone(&wait), async move {
            let mut stream = pin!(stream);
            poll_fn(|context| {
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                ready!(with(&wait, |wait| wait.poll_too_long(context)));
                debug!("reset a stream that its client does not read");
                Poll::Ready(())
            })
            .await;
        }));
    }
}

/// The body of a response that is being sent.
pub struct SentBody {
    body: Body,
    rest: Bytes,
    /// Size of the part that was handed over last.
    part_bytes: usize,
    wait: Option<Arc<Mutex<Wait>>>,
    _work: Work,
}

impl SentBody {
    /// Creates the body in the task that sends it.
    pub fn new(body: Body, work: Work) -> Self {
        let wait = STREAM.try_with(Arc::clone).ok();
        Self { body, rest: Bytes::new(), part_bytes: 0, wait, _work: work }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(trailers)),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(MAX_PART_BYTES));
        Poll::Ready(Some(Frame::data(part)))
    }
}

impl hyper::body::Body for SentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let body = self.get_mut();
        if let Some(wait) = &body.wait {
            with(wait, |wait| wait.end(body.part_bytes));
            body.part_bytes = 0;
        }
        let part = ready!(body.poll_part(context));
        if let (Some(wait), Some(part)) = (&body.wait, &part) {
            body.part_bytes = part.data_ref().map_or(0, Bytes::len);
            with(wait, Wait::begin);
        }
        Poll::Ready(part.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}
