//! The events of a background response: those that were, from any on, and those that come.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::Response;
use http_body::Frame;

use super::{context, failed};
use crate::{
    app::App,
    dialect::{AnswerContext, Api, Encoder, ResponseState, ResponseStream, ResumedStream},
    http::{Body, Call, reply},
    job::{Job, JobStatus},
    overflow::{Follower, JobProgress},
    problem::{Kind, Problem},
    stored_headers::StoredHeaders,
    units::UnixMs,
};

/// How long one connection follows a response that does not end, in milliseconds: then its caller asks for the rest.
const LONGEST_MS: u64 = 60 * 60 * 1_000;

/// A number up to which the events of all attempts are the same: created, queued, in progress.
const LAST_COMMON_EVENT: u64 = 2;

/// One who follows a response.
struct Reading {
    app: App,
    follower: Follower,
    resumed: ResumedStream,
    context: AnswerContext,
    /// The number of the last event that the caller has.
    last: Option<u64>,
    /// What of the start has not been sent.
    start: Option<Bytes>,
    /// Whether the events that were skipped are known to be those that the caller has.
    is_sure: bool,
    until_ms: u64,
    silent_since_ms: u64,
}

/// The events of `job` after the one with number `after`, live to its end.
pub async fn follow(app: &App, call: &Call, job: Job, after: Option<u64>) -> Result<Response<Body>, Problem> {
    let context = context(app, &job).await?;
    let now_ms = app.clock.now_ms();
    let mut reading = Reading {
        app: app.clone(),
        follower: Follower::new(app, job),
        resumed: ResumedStream::after(after),
        start: None,
        context,
        last: after,
        is_sure: after.is_none_or(|after| after <= LAST_COMMON_EVENT),
        until_ms: call.head.deadline_ms.unwrap_or(u64::MAX).min(now_ms + LONGEST_MS),
        silent_since_ms: now_ms,
    };
    let start = ResponseStream::new(reading.context.clone()).announce();
    reading.follower.pass(&start);
    reading.start = Some(reading.resumed.push(&start));
    let chunks = stream::unfold(Some(reading), |open| async {
        let mut reading = open?;
        let (bytes, is_over) = reading.next().await;
        Some((Ok(Frame::data(bytes)), (!is_over).then_some(reading)))
    });
    let headers = Api::Responses.stream_headers(&call.head.request_id, &StoredHeaders::default());
    Ok(reply::streamed(&call.head, headers, chunks))
}

impl Reading {
    /// The next bytes to send, and whether they are the last.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(start) = self.start.take().filter(|start| !start.is_empty()) {
            self.last = self.resumed.last();
            return (start, false);
        }
        loop {
            let (bytes, is_over) = match self.look().await {
                Ok(seen) => seen,
                Err(problem) => (self.stream().interrupt(&problem), true),
            };
            let now_ms = self.app.clock.now_ms();
            if is_over || !bytes.is_empty() {
                self.silent_since_ms = now_ms;
                return (bytes, is_over);
            }
            if now_ms >= self.until_ms {
                return (self.stream().interrupt(&still_under_way(self.last)), true);
            }
            if now_ms.saturating_sub(self.silent_since_ms) >= reply::KEEP_ALIVE_MS {
                self.silent_since_ms = now_ms;
                return (Encoder::Response(self.stream()).keep_alive(), false);
            }
            self.follower.pause(UnixMs::from_ms(self.until_ms)).await;
        }
    }

    async fn look(&mut self) -> Result<(Bytes, bool), Problem> {
        let (bytes, is_over) = match self.follower.look().await? {
            JobProgress::Nothing => return Ok((Bytes::new(), false)),
            JobProgress::Bytes(bytes) => (self.resumed.push(&bytes), false),
            JobProgress::Answered { rest, .. } => (self.resumed.push(&rest), true),
            JobProgress::Ended { job, result } => {
                let standing = match job.status {
                    JobStatus::Cancelled => ResponseState::Cancelled,
                    _ => failed(&job, result.map(|result| result.status)),
                };
                // Whatever the caller has: this is what comes after it.
                return Ok((self.stream().end_as(&standing), true));
            }
        };
        if !self.is_sure && (is_over || !bytes.is_empty()) {
            self.make_sure().await?;
        }
        self.last = self.resumed.last();
        Ok((bytes, is_over))
    }

    /// The attempts before this one must not have given the caller other events than those that were skipped.
    async fn make_sure(&mut self) -> Result<(), Problem> {
        let jobs = &self.app.jobs;
        let id = &self.follower.job().id;
        let streams = jobs.streams(id).await?;
        let own = self.follower.job().result_fence.unwrap_or(self.follower.job().fence);
        for fence in streams.fences.into_iter().filter(|fence| *fence != own) {
            let (mut earlier, mut part) = (BytesMut::new(), 0);
            while let Some(bytes) = jobs.chunk(id, fence, part).await? {
                earlier.extend_from_slice(&bytes);
                part += 1;
            }
            if self.resumed.is_contradicted_by(&earlier) {
                return Err(another_attempt());
            }
        }
        self.is_sure = true;
        Ok(())
    }

    /// A stream that goes on after what the caller has.
    fn stream(&self) -> ResponseStream {
        let mut stream = ResponseStream::new(self.context.clone());
        stream.skip(self.last.map_or(0, |last| last.saturating_add(1)));
        stream
    }
}

fn still_under_way(last: Option<u64>) -> Problem {
    let last = last.unwrap_or_default();
    let told = format!("The response is still under way. Go on with stream=true and starting_after={last}.");
    Problem::new(Kind::Timeout, told)
}

/// The sequence numbers of two attempts do not mean the same events.
fn another_attempt() -> Problem {
    let told = "The response was begun again after an attempt that broke off, so its events may not follow those that you \
                have. Retrieve it, or stream it from its start.";
    Problem::new(Kind::Conflict, told)
}
