//! Waiting calls: a request that found no room becomes a job, and its caller stays connected until
//! the answer is there. The caller did not ask for a job and notices only the delay.

mod stream;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};
use tracing::warn;

use super::{Body, Call, reply};
use crate::{
    app::App,
    broker,
    connections::Patience,
    dialect::{Api, Encoder},
    job::{Job, JobReader, JobStatus, Priority, StoredCall, StoredResult},
    overflow::{self, Follower, JobProgress, Submission},
    problem::{Kind, Problem},
    store::jobs::CancelOutcome,
    units::{Millis, UnixMs},
};

/// Minimum `Retry-After` for a job that is ready but has not been claimed.
const MIN_RETRY_AFTER: Millis = Millis::from_s(1);

/// A request that found no room and whose caller waits.
pub struct RefusedCall {
    /// API of the request.
    pub api: Api,
    /// The request without its body.
    pub request: StoredCall,
    /// The body, byte for byte.
    pub body: Bytes,
    /// Encoder, if the caller asked for a stream.
    pub encoder: Option<Encoder>,
    /// The refusal, with the time until there is room.
    pub refusal: Problem,
    /// Time when the request arrived.
    pub started: UnixMs,
}

/// A connected caller and its job.
///
/// A caller that disconnects drops this value. Its answer could not be delivered any more, so the
/// job is cancelled if it is still queued. A running job has been paid for and continues. A caller
/// that can fetch its answer in another attempt is not affected: `http::idempotency` keeps this
/// value until the end.
struct WaitingCall {
    app: App,
    follower: Follower,
    /// The refusal that the caller would have received without the wait.
    refusal: Problem,
    /// Time when the call gives up unless its job has started.
    expires_at: UnixMs,
    /// Time by which the answer must have ended; [`UnixMs::MAX`] if there is none.
    deadline: UnixMs,
    /// Whether the job needs no cancellation.
    is_over: bool,
}

/// Accepts a refused request as a job and waits for its answer. A whole answer is the same as
/// without the wait. So is a stream that begins within [`stream::MAX_HEAD_DELAY`]. A stream that
/// begins later gets its status and headers then, and is kept alive until its first event.
///
/// # Errors
/// Returns the refusal, with the current time until there is room, if the job has not started in
/// the time for which the caller waits. Returns an error if this process ends before the answer is
/// there, or if the job cannot be stored or read.
pub async fn wait(app: &App, call: &Call, refused: RefusedCall) -> Result<Response<Body>, Problem> {
    let deadline = call.head.answer_deadline(refused.encoder.is_some()).unwrap_or(UnixMs::MAX);
    let expires_at = expires_at(app, call, &refused).min(deadline);
    let RefusedCall { api, request, body, encoder, refusal, .. } = refused;
    let submission = Submission {
        // The id of the answer, as without the wait.
        id: Some(call.head.request_id.clone()),
        call: request,
        body,
        reader: JobReader::Waiting,
        priority: Priority::High,
        class: call.tenant.class,
        expires_at,
    };
    let job = overflow::submit(app, &call.tenant, submission, Some(&refusal)).await?;
    let follower = Follower::new(app, job.clone());
    let waiting = WaitingCall { app: app.clone(), follower, refusal, expires_at, deadline, is_over: false };
    let response = match encoder {
        Some(encoder) => stream::streamed(call, api, waiting, encoder).await?,
        None => whole(call, waiting).await?,
    };
    Ok(reply::with_job_id(response, &job))
}

/// Returns the time until which the caller waits for its job to start, but not longer than any job
/// may wait.
fn expires_at(app: &App, call: &Call, refused: &RefusedCall) -> UnixMs {
    let patience = match refused.encoder {
        Some(_) => call.preferences.stream_patience(),
        None => call.preferences.patience(),
    };
    let job_expires = app.clock.now() + Millis::from_s(call.tenant.job_ttl_s);
    job_expires.min(refused.started + patience)
}

async fn whole(call: &Call, mut waiting: WaitingCall) -> Result<Response<Body>, Problem> {
    loop {
        let outcome = waiting.look().await;
        let now = waiting.app.clock.now();
        match outcome.map_err(|problem| call.head.explained(problem, now, false))? {
            Some(LookOutcome::Answered { answer, .. } | LookOutcome::Failed { result: answer, .. }) => {
                return Ok(reply::stored(&call.head, answer, waiting.limit_headers(call).await));
            }
            Some(LookOutcome::Bytes(_)) | None => waiting.pause(UnixMs::MAX).await,
        }
    }
}

/// What a look at a waiting call's job found.
enum LookOutcome {
    /// The next bytes of the stream.
    Bytes(Bytes),
    /// The answer. Of a stream, `rest` is new.
    Answered { answer: StoredResult, rest: Bytes },
    /// The job failed. `result` is what a call without the wait would have received.
    Failed { job: Box<Job>, result: StoredResult },
}

impl WaitingCall {
    /// Looks at the job. Returns `None` if nothing is new.
    ///
    /// # Errors
    /// Returns an error if the wait is over without an answer.
    async fn look(&mut self) -> Result<Option<LookOutcome>, Problem> {
        // The caller has agreed to wait, so each look has a new patience.
        let look = Patience::default().scope(self.follower.look());
        let progress = look.await.inspect_err(|_| self.is_over = true)?;
        let outcome = match progress {
            JobProgress::Bytes(bytes) => return Ok(Some(LookOutcome::Bytes(bytes))),
            JobProgress::Nothing => return self.check_time().await.map(|()| None),
            JobProgress::Answered { answer, rest } => LookOutcome::Answered { answer, rest },
            JobProgress::Ended { job, result: Some(result) } => LookOutcome::Failed { job, result },
            JobProgress::Ended { result: None, .. } => {
                self.is_over = true;
                return Err(self.current_refusal());
            }
        };
        self.is_over = true;
        Ok(Some(outcome))
    }

    /// Gives up if the time of the call is over. Until `expires_at` the job must have started, and
    /// until `deadline` the answer must be there.
    ///
    /// # Errors
    /// Returns an error if the call gives up.
    async fn check_time(&mut self) -> Result<(), Problem> {
        let now = self.app.clock.now();
        let job = self.follower.job();
        if now >= self.expires_at && job.status == JobStatus::Queued {
            return match self.app.jobs.cancel(&job.id, &job.tenant, now).await? {
                CancelOutcome::TooLate(_) => Ok(()),
                CancelOutcome::Cancelled | CancelOutcome::Missing => {
                    self.is_over = true;
                    Err(self.current_refusal())
                }
            };
        }
        if now >= self.deadline {
            self.is_over = true;
            return Err(Problem::new(Kind::Timeout, "The answer was not ready in the time that this call may take."));
        }
        Ok(())
    }

    /// The refusal, with the time from now until there is room.
    fn current_refusal(&self) -> Problem {
        let retry_after = (self.follower.job().ready_at - self.app.clock.now()).max(MIN_RETRY_AFTER);
        Problem { retry_after: Some(retry_after), ..self.refusal.clone() }
    }

    /// Waits until the job may have changed or the time of the call is over, but not beyond
    /// `until`.
    async fn pause(&mut self, until: UnixMs) {
        let has_expired = self.expires_at <= self.app.clock.now();
        let expires_at = if has_expired { UnixMs::MAX } else { self.expires_at };
        self.follower.pause(until.min(expires_at).min(self.deadline)).await;
    }

    /// Returns headers with the current state of the tenant's limits; none if the ledger is
    /// unavailable.
    async fn limit_headers(&self, call: &Call) -> Vec<(HeaderName, HeaderValue)> {
        let account = broker::account_for(&call.tenant);
        let Ok(images) = self.app.ledger.images(&account).await else { return Vec::new() };
        let now = self.app.clock.now();
        call.head.dialect.limit_headers(&account.states(&images, now), now)
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.is_over, tokio::runtime::Handle::try_current()) else { return };
        let (app, job) = (self.app.clone(), self.follower.job().clone());
        runtime.spawn(async move {
            if let Err(error) = app.jobs.cancel(&job.id, &job.tenant, app.clock.now()).await {
                warn!(job_id = job.id, %error, "failed to cancel the job of a caller that disconnected");
            }
        });
    }
}
