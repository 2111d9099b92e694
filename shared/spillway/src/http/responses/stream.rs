//! Streams the events of a background response, from any event to the end. Any process can do so,
//! at any time and repeatedly, because the events are in the store.

use bytes::{Bytes, BytesMut};
use http::Response;

use super::{context, failed};
use crate::{
    app::App,
    dialect::{AnswerContext, Api, Encoder, ResponseState, ResponseStream, ResumedStream},
    http::{Body, Call, streaming},
    job::{Job, JobStatus},
    overflow::{Follower, JobProgress},
    problem::{Kind, Problem},
    stored_headers::StoredHeaders,
    units::{Millis, UnixMs},
};

/// Maximum time for which one connection follows a response. After it, the caller must request the
/// rest.
const MAX_FOLLOW: Millis = Millis::from_s(60 * 60);

/// Number of the last event that is the same in all attempts: created, queued, in progress.
const LAST_COMMON_EVENT: u64 = 2;

/// Reads the events of a response for one caller.
struct BackgroundReader {
    app: App,
    follower: Follower,
    resumed: ResumedStream,
    context: AnswerContext,
    /// Number of the last event that the caller has.
    last: Option<u64>,
    /// The first events, which do not depend on the job's progress, until they are sent.
    start: Option<Bytes>,
    /// Whether the skipped events are known to be the events that the caller has.
    is_prefix_checked: bool,
    /// Time when the connection ends.
    ends_at: UnixMs,
    /// Time when bytes were last sent.
    silent_since: UnixMs,
}

/// Answers with the events of the response of `job` up to its end: all of them, or the events after
/// the event with the number `after`.
///
/// # Errors
/// Returns an error if the request of the response is no longer kept, or if the store is
/// unavailable.
pub async fn follow(app: &App, call: &Call, job: Job, after: Option<u64>) -> Result<Response<Body>, Problem> {
    let context = context(app, &job).await?;
    let start = ResponseStream::new(context.clone()).announce();
    let (mut follower, mut resumed) = (Follower::new(app, job), ResumedStream::after(after));
    follower.pass(&start);
    let now = app.clock.now();
    let deadline = call.head.deadline.unwrap_or(UnixMs::MAX);
    let reader = BackgroundReader {
        app: app.clone(),
        follower,
        start: Some(resumed.push(&start)),
        resumed,
        context,
        last: after,
        is_prefix_checked: after.is_none_or(|after| after <= LAST_COMMON_EVENT),
        ends_at: deadline.min(now + MAX_FOLLOW),
        silent_since: now,
    };
    let headers = Api::Responses.stream_headers(&call.head.request_id, &StoredHeaders::default());
    Ok(streaming::from_source(&call.head, headers, reader, BackgroundReader::next))
}

impl BackgroundReader {
    /// Returns the next bytes to send, and the reader unless they are the last.
    async fn next(mut self) -> (Bytes, Option<Self>) {
        if let Some(start) = self.start.take().filter(|start| !start.is_empty()) {
            self.last = self.resumed.last();
            return (start, Some(self));
        }
        loop {
            let (bytes, is_last) = match self.look().await {
                Ok(found) => found,
                Err(problem) => (self.rest().interrupt(&problem), true),
            };
            let now = self.app.clock.now();
            if is_last || !bytes.is_empty() {
                self.silent_since = now;
                return (bytes, (!is_last).then_some(self));
            }
            if now >= self.ends_at {
                return (self.rest().interrupt(&still_in_progress(self.last)), None);
            }
            if now - self.silent_since >= streaming::KEEP_ALIVE {
                self.silent_since = now;
                return (Encoder::Response(self.rest()).keep_alive(), Some(self));
            }
            self.follower.pause(self.ends_at).await;
        }
    }

    /// Returns the events that have arrived since the last look, and whether they are the last.
    async fn look(&mut self) -> Result<(Bytes, bool), Problem> {
        let (bytes, is_last) = match self.follower.look().await? {
            JobProgress::Nothing => return Ok((Bytes::new(), false)),
            JobProgress::Bytes(bytes) => (self.resumed.push(&bytes), false),
            JobProgress::Answered { rest, .. } => (self.resumed.push(&rest), true),
            JobProgress::Ended { job, result } => {
                let state = match job.status {
                    JobStatus::Cancelled => ResponseState::Cancelled,
                    _ => failed(&job, result.map(|result| result.status)),
                };
                // This event ends the stream, whichever events the caller has.
                return Ok((self.rest().end_as(&state), true));
            }
        };
        if !self.is_prefix_checked && (is_last || !bytes.is_empty()) {
            self.check_skipped_events().await?;
        }
        self.last = self.resumed.last();
        Ok((bytes, is_last))
    }

    /// Checks that no earlier attempt can have sent the caller events that differ from the skipped
    /// events.
    ///
    /// # Errors
    /// Returns an error if the skipped events differ from an earlier attempt's, or if the store is
    /// unavailable.
    async fn check_skipped_events(&mut self) -> Result<(), Problem> {
        let (jobs, job) = (&self.app.jobs, self.follower.job());
        let fences = jobs.streams(&job.id).await?.fences;
        let current_fence = job.result_fence.unwrap_or(job.fence);
        for fence in fences.into_iter().filter(|fence| *fence != current_fence) {
            let (mut earlier, mut chunk) = (BytesMut::new(), 0);
            while let Some(bytes) = jobs.chunk(&job.id, fence, chunk).await? {
                earlier.extend_from_slice(&bytes);
                chunk += 1;
            }
            if self.resumed.is_contradicted_by(&earlier) {
                return Err(attempts_differ());
            }
        }
        self.is_prefix_checked = true;
        Ok(())
    }

    /// A stream that continues after the events that the caller has.
    fn rest(&self) -> ResponseStream {
        let mut stream = ResponseStream::new(self.context.clone());
        stream.skip(self.last.map_or(0, |last| last.saturating_add(1)));
        stream
    }
}

fn still_in_progress(last: Option<u64>) -> Problem {
    let last = last.unwrap_or_default();
    let message = format!("The response is still in progress. Continue with stream=true and starting_after={last}.");
    Problem::new(Kind::Timeout, message)
}

/// The event numbers of two attempts do not stand for the same events.
fn attempts_differ() -> Problem {
    let message = "The response was started again after an interruption, so its events may not continue the events \
                   that you have. Retrieve the response, or stream it from the start.";
    Problem::new(Kind::Conflict, message)
}
