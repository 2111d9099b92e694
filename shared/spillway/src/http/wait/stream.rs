//! Streams to waiting callers: kept alive until the job starts, then passed on as they arrive.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};

use super::{LookOutcome, WaitingCall};
use crate::{
    dialect::{Api, Dialect, Encoder},
    http::{
        Body, Call, reply,
        streaming::{self, StreamFailure},
    },
    job::{Job, StoredResult},
    problem::Problem,
    stored_headers::StoredHeaders,
    units::{Millis, UnixMs},
};

/// Maximum time for which the status and the headers are held back. A failure within this time has
/// the same status as without the wait.
pub const MAX_HEAD_DELAY: Millis = Millis::from_s(10);

/// The body of a stream that has begun.
struct WaitingStream {
    waiting: WaitingCall,
    encoder: Encoder,
    failure: StreamFailure,
    /// The first bytes, if they arrived before the head was sent.
    first: Option<Bytes>,
    /// Number of server-sent events that were sent.
    events: u64,
    /// Time when bytes were last sent.
    silent_since: UnixMs,
}

/// Answers with a stream when its job has begun to answer, but after [`MAX_HEAD_DELAY`] at the
/// latest. A job that fails before is answered with the response that it would have received
/// without the wait.
///
/// # Errors
/// Returns an error if the wait is over before the stream has begun.
pub async fn streamed(
    call: &Call,
    api: Api,
    mut waiting: WaitingCall,
    encoder: Encoder,
) -> Result<Response<Body>, Problem> {
    let head_due = waiting.app.clock.now() + MAX_HEAD_DELAY;
    let mut first = None;
    while first.is_none() && waiting.app.clock.now() < head_due {
        match waiting.look().await? {
            Some(LookOutcome::Bytes(bytes)) => first = Some(bytes),
            Some(LookOutcome::Answered { answer, .. } | LookOutcome::Failed { result: answer, .. }) => {
                return Ok(reply::stored(&call.head, answer, waiting.limit_headers(call).await));
            }
            None => waiting.pause(head_due).await,
        }
    }
    let headers = headers(call, api, &waiting, first.is_some()).await?;
    let (failure, silent_since) = (StreamFailure::default(), waiting.app.clock.now());
    let stream = WaitingStream { waiting, encoder, failure: failure.clone(), first, events: 0, silent_since };
    let mut response = streaming::from_source(&call.head, headers, stream, WaitingStream::next);
    response.extensions_mut().insert(failure);
    Ok(response)
}

/// Returns the headers: of the attempt that has begun, or the headers that every stream has.
async fn headers(
    call: &Call,
    api: Api,
    waiting: &WaitingCall,
    has_begun: bool,
) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let mut headers = waiting.limit_headers(call).await;
    if has_begun {
        let streams = waiting.app.jobs.streams(&waiting.follower.job().id).await?;
        headers.extend(streams.headers.parse());
    } else {
        headers.extend(api.stream_headers(&call.head.request_id, &StoredHeaders::default()));
    }
    Ok(headers)
}

impl WaitingStream {
    /// Returns the next bytes to send, and the stream unless they are the last.
    async fn next(mut self) -> (Bytes, Option<Self>) {
        if let Some(first) = self.first.take() {
            return (self.sent(first), Some(self));
        }
        loop {
            match self.waiting.look().await {
                Ok(Some(LookOutcome::Bytes(bytes))) => return (self.sent(bytes), Some(self)),
                Ok(Some(LookOutcome::Answered { rest, .. })) => return (self.sent(rest), None),
                Ok(Some(LookOutcome::Failed { job, result })) => return (self.problem(&failure(&job, &result)), None),
                Ok(None) => {}
                Err(problem) => return (self.problem(&problem), None),
            }
            let now = self.waiting.app.clock.now();
            let keep_alive_due = self.silent_since + streaming::KEEP_ALIVE;
            if now >= keep_alive_due {
                self.silent_since = now;
                return (self.encoder.keep_alive(), Some(self));
            }
            self.waiting.pause(keep_alive_due).await;
        }
    }

    /// Notes that `bytes` are sent, and returns them.
    fn sent(&mut self, bytes: Bytes) -> Bytes {
        self.silent_since = self.waiting.app.clock.now();
        self.events += bytes.windows(2).filter(|pair| pair == b"\n\n").count() as u64;
        bytes
    }

    /// Returns the bytes that end the stream with an error.
    fn problem(&mut self, problem: &Problem) -> Bytes {
        self.encoder.skip(self.events);
        self.failure.end(&mut self.encoder, problem)
    }
}

/// The problem of a job that failed, for a caller that has already received the status 200.
fn failure(job: &Job, result: &StoredResult) -> Problem {
    let kind = Dialect::kind_for_status(result.status);
    let message = job.error.clone().unwrap_or_else(|| "The answer was interrupted.".to_owned());
    Problem::new(kind, message)
}
