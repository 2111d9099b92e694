//! A stream that waits for its job: kept alive, then told as it comes.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response};
use http_body::Frame;

use super::{Held, Looked};
use crate::{
    dialect::{Api, Dialect, Encoder},
    http::{
        Body, Call,
        reply::{self, StreamFailure},
    },
    job::{Job, StoredResult},
    problem::Problem,
    stored_headers::StoredHeaders,
};

/// How long the status is held back, in milliseconds: what is known by then is told as without the wait.
const HEAD_MS: u64 = 10_000;

/// A stream under way.
struct Told {
    held: Held,
    encoder: Encoder,
    cut: StreamFailure,
    /// What is to be sent first.
    first: Option<Bytes>,
    /// How many server-sent events were sent.
    events: u64,
    silent_since_ms: u64,
}

/// Waits for the start of the stream, at most for [`HEAD_MS`], and then answers with it.
///
/// # Errors
/// The wait was in vain.
pub async fn streamed(call: &Call, api: Api, mut held: Held, encoder: Encoder) -> Result<Response<Body>, Problem> {
    let head_until_ms = held.app.clock.now_ms() + HEAD_MS;
    let mut first = None;
    while first.is_none() && held.app.clock.now_ms() < head_until_ms {
        match held.look().await? {
            Some(Looked::Bytes(bytes)) => first = Some(bytes),
            Some(Looked::Answered { answer, .. } | Looked::Failed { result: answer, .. }) => {
                return Ok(reply::stored(&call.head, answer, held.limit_headers(call).await));
            }
            None => held.pause(head_until_ms).await,
        }
    }
    let headers = headers(call, api, &held, first.is_some()).await?;
    let (cut, silent_since_ms) = (StreamFailure::default(), held.app.clock.now_ms());
    let told = Told { held, encoder, cut: cut.clone(), first, events: 0, silent_since_ms };
    let chunks = stream::unfold(Some(told), |open| async {
        let mut told = open?;
        let (bytes, is_over) = told.next().await;
        Some((Ok(Frame::data(bytes)), (!is_over).then_some(told)))
    });
    let mut response = reply::streamed(&call.head, headers, chunks);
    response.extensions_mut().insert(cut);
    Ok(response)
}

/// The headers: those of the attempt that has begun, or what is known without one.
async fn headers(
    call: &Call,
    api: Api,
    held: &Held,
    has_begun: bool,
) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let mut headers = held.limit_headers(call).await;
    if has_begun {
        let streams = held.app.jobs.streams(&held.follower.job().id).await;
        let streams = streams?;
        headers.extend(streams.headers.parse());
    } else {
        headers.extend(api.stream_headers(&call.head.request_id, &StoredHeaders::default()));
    }
    Ok(headers)
}

impl Told {
    /// The next bytes to send, and whether they are the last.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(first) = self.first.take() {
            return (self.sent(first), false);
        }
        loop {
            match self.held.look().await {
                Ok(Some(Looked::Bytes(bytes))) => return (self.sent(bytes), false),
                Ok(Some(Looked::Answered { rest, .. })) => return (self.sent(rest), true),
                Ok(Some(Looked::Failed { job, result })) => return (self.problem(&failure(&job, &result)), true),
                Ok(None) => {}
                Err(problem) => return (self.problem(&problem), true),
            }
            let now_ms = self.held.app.clock.now_ms();
            if now_ms.saturating_sub(self.silent_since_ms) >= reply::KEEP_ALIVE.as_ms() {
                self.silent_since_ms = now_ms;
                return (self.encoder.keep_alive(), false);
            }
            self.held.pause(self.silent_since_ms + reply::KEEP_ALIVE.as_ms()).await;
        }
    }

    fn sent(&mut self, bytes: Bytes) -> Bytes {
        self.silent_since_ms = self.held.app.clock.now_ms();
        self.events += bytes.windows(2).filter(|pair| pair == b"\n\n").count() as u64;
        bytes
    }

    fn problem(&mut self, problem: &Problem) -> Bytes {
        self.encoder.skip(self.events);
        self.cut.end(&mut self.encoder, problem)
    }
}

/// Why the job failed, for a caller that has been told that its stream has begun.
fn failure(job: &Job, result: &StoredResult) -> Problem {
    let kind = Dialect::kind_for_status(result.status);
    let message = job.error.clone().unwrap_or_else(|| "The answer broke off.".to_owned());
    Problem::new(kind, message)
}
