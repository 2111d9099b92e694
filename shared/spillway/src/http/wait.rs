//! A caller that waits for room without having said that it can: its request becomes a job, and its connection is kept alive
//! until the answer is there.

mod stream;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};

use super::{Body, Call, reply};
use crate::{
    app::App,
    broker,
    dialect::{Api, Encoder},
    job::{Job, JobReader, JobStatus, Priority, StoredCall, StoredResult},
    overflow::{self, Follower, JobProgress, Submission},
    problem::{Kind, Problem},
    store::jobs::CancelOutcome,
    units::{Millis, UnixMs},
};

/// A request that found no room.
pub struct Waiting {
    pub api: Api,
    /// The request without its body.
    pub request: StoredCall,
    pub body: Bytes,
    /// Encoder, if the caller asked for a stream.
    pub stream: Option<Encoder>,
    /// Why there is no room, and when there will be.
    pub refused: Problem,
    /// When it came in, in milliseconds since 1970.
    pub started_ms: u64,
}

/// The job of a request that waits. If its caller goes away while it is queued nobody can read its answer, so it is cancelled;
/// one that runs is paid for and goes on. A caller that can come back for its answer never goes away from here: `once` stays
/// in its place.
struct Held {
    app: App,
    follower: Follower,
    refused: Problem,
    /// When it is too late to begin, in milliseconds since 1970.
    until_ms: u64,
    /// When this process must be done.
    deadline_ms: Option<u64>,
    is_over: bool,
}

/// Holds the caller until its answer is there. A whole answer is as it would have been without the wait; so is a stream that
/// begins soon. Another is told that it has begun, and kept alive.
///
/// # Errors
/// There is no room in the time that the caller waits: what refused it, with the time when there is.
pub async fn wait(app: &App, call: &Call, waiting: Waiting) -> Result<Response<Body>, Problem> {
    let until_ms = until_ms(app, call, &waiting);
    let Waiting { api, request, body, stream, refused, .. } = waiting;
    let submission = Submission {
        // The answer's own id, as without the wait.
        id: Some(call.head.request_id.clone()),
        call: request,
        body,
        reader: JobReader::Waiting,
        priority: Priority::High,
        class: call.tenant.class,
        expires_at: UnixMs::from_ms(until_ms),
    };
    let job = overflow::submit(app, &call.tenant, submission, Some(&refused)).await?;
    let follower = Follower::new(app, job);
    let deadline_ms = call.head.deadline_ms;
    let held = Held { app: app.clone(), follower, refused, until_ms, deadline_ms, is_over: false };
    match stream {
        Some(encoder) => stream::streamed(call, api, held, encoder).await,
        None => whole(call, held).await,
    }
}

/// When it is too late to begin. A stream can be kept alive, so that its caller waits as long as a job may.
fn until_ms(app: &App, call: &Call, waiting: &Waiting) -> u64 {
    let patience_ms = match waiting.stream {
        Some(_) => call.preferences.wait_ms,
        None => Some(call.preferences.patience_ms()),
    };
    let lasts_until_ms = app.clock.now_ms().saturating_add(call.tenant.job_ttl_s.saturating_mul(1_000));
    let patient_until_ms = patience_ms.map_or(u64::MAX, |patience_ms| waiting.started_ms.saturating_add(patience_ms));
    lasts_until_ms.min(patient_until_ms).min(call.head.deadline_ms.unwrap_or(u64::MAX))
}

async fn whole(call: &Call, mut held: Held) -> Result<Response<Body>, Problem> {
    loop {
        if let Some(answer) = held.look().await? {
            match answer {
                Looked::Bytes(_) => {}
                Looked::Answered { answer, .. } | Looked::Failed { result: answer, .. } => {
                    let limits = held.limit_headers(call).await;
                    return Ok(reply::stored(&call.head, answer, limits));
                }
            }
        }
        held.pause(u64::MAX).await;
    }
}

/// What has come of a job that is waited for.
enum Looked {
    Bytes(Bytes),
    Answered { answer: StoredResult, rest: Bytes },
    Failed { job: Box<Job>, result: StoredResult },
}

impl Held {
    /// Looks at the job once; gives what has come of it, if anything has.
    ///
    /// # Errors
    /// The wait was in vain.
    async fn look(&mut self) -> Result<Option<Looked>, Problem> {
        let seen = self.follower.look().await.inspect_err(|_| self.is_over = true)?;
        let looked = match seen {
            JobProgress::Bytes(bytes) => return Ok(Some(Looked::Bytes(bytes))),
            JobProgress::Nothing => return self.check_time().await.map(|()| None),
            JobProgress::Answered { answer, rest } => Looked::Answered { answer, rest },
            JobProgress::Ended { job, result: Some(result) } => Looked::Failed { job, result },
            JobProgress::Ended { .. } => {
                self.is_over = true;
                return Err(self.refused());
            }
        };
        self.is_over = true;
        Ok(Some(looked))
    }

    /// Gives up a job that is not under way when its time is over.
    async fn check_time(&mut self) -> Result<(), Problem> {
        let now_ms = self.app.clock.now_ms();
        let job = self.follower.job();
        if now_ms >= self.until_ms && job.status == JobStatus::Queued {
            let cancelled = self.app.jobs.cancel(&job.id, &job.tenant, UnixMs::from_ms(now_ms)).await;
            if let CancelOutcome::TooLate(_) = cancelled? {
                return Ok(());
            }
            self.is_over = true;
            return Err(self.refused());
        }
        if self.deadline_ms.is_some_and(|deadline_ms| now_ms >= deadline_ms) {
            self.is_over = true;
            return Err(Problem::new(Kind::Timeout, "The answer did not come in the time that this call may take."));
        }
        Ok(())
    }

    /// The refusal that the caller would have been told without the wait, with the time as it is now.
    fn refused(&self) -> Problem {
        let retry_after = (self.follower.job().ready_at - self.app.clock.now()).max(MIN_RETRY_AFTER);
        Problem { retry_after: Some(retry_after), ..self.refused.clone() }
    }

    async fn pause(&mut self, until_ms: u64) {
        let now_ms = self.app.clock.now_ms();
        let in_time_ms = if self.until_ms > now_ms { self.until_ms } else { u64::MAX };
        let until_ms = in_time_ms.min(self.deadline_ms.unwrap_or(u64::MAX)).min(until_ms);
        self.follower.pause(UnixMs::from_ms(until_ms)).await;
    }

    /// Where the tenant's limits stand now; nothing if they cannot be read.
    async fn limit_headers(&self, call: &Call) -> Vec<(HeaderName, HeaderValue)> {
        let account = broker::account_for(&call.tenant);
        let Ok(images) = self.app.ledger.images(&account).await else { return Vec::new() };
        let now = self.app.clock.now();
        call.head.dialect.limit_headers(&account.states(&images, now), now)
    }
}

/// Minimum `Retry-After` for a job that is ready but has not been claimed.
const MIN_RETRY_AFTER: Millis = Millis::from_s(1);

impl Drop for Held {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.is_over, tokio::runtime::Handle::try_current()) else { return };
        let (app, job) = (self.app.clone(), self.follower.job().clone());
        runtime.spawn(async move {
            if let Err(error) = app.jobs.cancel(&job.id, &job.tenant, app.clock.now()).await {
                tracing::warn!(job_id = job.id, %error, "the job of a caller that has gone was not cancelled");
            }
        });
    }
}
