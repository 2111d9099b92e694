//! A caller that waits for room without having said that it can: its request becomes a job, and its connection is kept alive
//! until the answer is there.

mod patience;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};

use super::{
    Body, Call,
    follow::{Follower, Seen},
    jobs, prefer, reply,
};
use crate::{
    app::App,
    broker,
    chat::{Kind, Problem},
    dialect::{Api, Encoder},
    drain,
    job::{Job, NewJob, Priority, Reader, Status, StoredResult},
    retry,
    store::jobs::Cancel,
    tenant::Tenant,
};

/// A request that found no room.
pub struct Waiting {
    pub api: Api,
    pub tenant: Arc<Tenant>,
    pub body: Bytes,
    /// How the stream is told that it asks for, if it does.
    pub stream: Option<Encoder>,
    /// Why it found none, and when it will.
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
    let Waiting { api, tenant, stream, .. } = &waiting;
    let (api, tenant, is_stream) = (*api, Arc::clone(tenant), stream.is_some());
    let until_ms = until_ms(app, call, &waiting);
    let Waiting { body, stream, refused, .. } = waiting;
    let job = submit(app, call, &tenant, body, is_stream, &refused, until_ms).await?;
    let follower = Follower::new(app, job);
    let deadline_ms = call.deadline_ms;
    let held = Held { app: app.clone(), follower, refused, until_ms, deadline_ms, is_over: false };
    match stream {
        Some(encoder) => stream::streamed(call, api, &tenant, held, encoder).await,
        None => whole(call, &tenant, held).await,
    }
}

/// When it is too late to begin. A stream can be kept alive, so that its caller waits as long as a job may.
fn until_ms(app: &App, call: &Call, waiting: &Waiting) -> u64 {
    let headers = &call.parts.headers;
    let patience_ms = match waiting.stream {
        Some(_) => prefer::prefer(headers).wait_ms,
        None => Some(patience::patience_ms(prefer::prefer(headers).wait_ms, retry::patience_ms(headers))),
    };
    let lasts_until_ms = app.clock.now_ms().saturating_add(waiting.tenant.job_ttl_s.saturating_mul(1_000));
    let patient_until_ms = patience_ms.map_or(u64::MAX, |patience_ms| waiting.started_ms.saturating_add(patience_ms));
    lasts_until_ms.min(patient_until_ms).min(call.deadline_ms.unwrap_or(u64::MAX))
}

async fn submit(
    app: &App,
    call: &Call,
    tenant: &Tenant,
    body: Bytes,
    is_stream: bool,
    refused: &Problem,
    until_ms: u64,
) -> Result<Job, Problem> {
    let now_ms = app.clock.now_ms();
    let ready_ms = refused.retry_after_ms.map(|wait_ms| now_ms.saturating_add(wait_ms));
    let (Some(queue), Some(ready_ms)) = (&app.queue, ready_ms.filter(|ready_ms| *ready_ms < until_ms)) else {
        return Err(refused.clone());
    };
    let new = NewJob {
        // The answer's own id, as without the wait.
        id: Some(call.request_id.clone()),
        tenant: tenant.name.clone(),
        call: jobs::stored_call(call, is_stream),
        body,
        created_ms: now_ms,
        ready_ms,
        expires_ms: until_ms,
        priority: Priority::High,
        class: tenant.class,
        member: None,
    };
    let job = app.jobs.submit_for(Reader::Waiting, &new).await;
    let job = job.map_err(|error| jobs::not_stored(&error, refused))?;
    jobs::send(queue, &job, drain::delay_ms(refused, ready_ms.saturating_sub(now_ms))).await;
    Ok(job)
}

async fn whole(call: &Call, tenant: &Tenant, mut held: Held) -> Result<Response<Body>, Problem> {
    loop {
        if let Some(answer) = held.look().await? {
            match answer {
                Looked::Bytes(_) => {}
                Looked::Answered { answer, .. } | Looked::Failed { result: answer, .. } => {
                    let limits = held.limit_headers(call, tenant).await;
                    return Ok(reply::stored(call, answer, limits));
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
            Seen::Bytes(bytes) => return Ok(Some(Looked::Bytes(bytes))),
            Seen::Nothing => return self.check_time().await.map(|()| None),
            Seen::Answered { answer, rest } => Looked::Answered { answer, rest },
            Seen::Ended { job, result: Some(result) } => Looked::Failed { job, result },
            Seen::Ended { .. } => {
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
        if now_ms >= self.until_ms && job.status == Status::Queued {
            let cancelled = self.app.jobs.cancel(&job.id, &job.tenant, now_ms).await;
            if let Cancel::TooLate(_) = cancelled.map_err(|error| broker::unreachable("job store", &error))? {
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
        let wait_ms = self.follower.job().ready_ms.saturating_sub(self.app.clock.now_ms()).max(SHORTEST_WAIT_MS);
        Problem { retry_after_ms: Some(wait_ms), ..self.refused.clone() }
    }

    async fn pause(&mut self, until_ms: u64) {
        let now_ms = self.app.clock.now_ms();
        let in_time_ms = if self.until_ms > now_ms { self.until_ms } else { u64::MAX };
        self.follower.pause(in_time_ms.min(self.deadline_ms.unwrap_or(u64::MAX)).min(until_ms)).await;
    }

    /// Where the tenant's limits stand now; nothing if they cannot be read.
    async fn limit_headers(&self, call: &Call, tenant: &Tenant) -> Vec<(HeaderName, HeaderValue)> {
        let account = broker::account_of(tenant);
        let Ok(images) = self.app.ledger.images(&account).await else { return Vec::new() };
        let now_ms = self.app.clock.now_ms();
        call.dialect.limit_headers(&account.states(&images, now_ms), now_ms)
    }
}

/// The shortest wait that is told when the job's own time has come and no drain has, in milliseconds.
const SHORTEST_WAIT_MS: u64 = 1_000;

impl Drop for Held {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.is_over, tokio::runtime::Handle::try_current()) else { return };
        let (app, job) = (self.app.clone(), self.follower.job().clone());
        runtime.spawn(async move {
            if let Err(error) = app.jobs.cancel(&job.id, &job.tenant, app.clock.now_ms()).await {
                tracing::warn!(job_id = job.id, %error, "the job of a caller that has gone was not cancelled");
            }
        });
    }
}
