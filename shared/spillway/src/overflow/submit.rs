//! Accepts requests as jobs. No other module builds jobs.

use bytes::Bytes;
use tracing::warn;

use super::park::{can_park, ensure_turn, send_expiry};
use crate::{
    allowance,
    app::App,
    batch::{Batch, Line},
    broker,
    job::{BatchMember, Job, JobReader, NewJob, Priority, StoredCall},
    problem::{Kind, Problem, RefusedBy},
    queue::Queue,
    store::{StoreError, jobs::MAX_ROW_BODY_BYTES},
    tenant::{Class, Tenant},
    units::{Millis, UnixMs},
};

/// How long before its job is ready a message may arrive. The job waits for the exact time in the
/// drain's process, because SQS delays whole seconds, while pools have room every five seconds, for
/// the first request that comes.
pub const MAX_EARLY: Millis = Millis::from_s(5);

/// Minimum estimate of the wait behind other jobs, which may be about to start.
const MIN_WAIT_BEHIND_JOBS: Millis = Millis::from_s(1);

/// A request that waits as a job.
#[derive(Debug)]
pub struct Submission {
    /// Id of the job; `None` for a new one.
    pub id: Option<String>,
    /// The request without its body.
    pub call: StoredCall,
    /// The body, byte for byte.
    pub body: Bytes,
    /// How the caller reads the answer.
    pub reader: JobReader,
    /// Priority among the jobs of the tenant.
    pub priority: Priority,
    /// Share of a pool that the job may fill.
    pub class: Class,
    /// Time when the job expires unless it has started.
    pub expires_at: UnixMs,
}

impl Submission {
    fn job(self, tenant: &str, created_at: UnixMs, ready_at: UnixMs) -> NewJob {
        NewJob {
            id: self.id,
            tenant: tenant.to_owned(),
            call: self.call,
            body: self.body,
            created_at,
            ready_at,
            expires_at: self.expires_at,
            is_parked: false,
            priority: self.priority,
            class: self.class,
            member: None,
        }
    }
}

/// Accepts a request as a job. The job is stored first and its message sent second, so that no
/// accepted job is lost.
///
/// The job is ready when `refusal` expects room, or immediately without a refusal. If jobs of the
/// tenant wait already, it is parked and has no message, unless its caller waits.
///
/// # Errors
/// Returns `refusal` if there is no queue, or if the job would expire before there is room. Returns
/// an error if the tenant has too many waiting jobs or stored bytes, if the body is too large, if
/// the job with this id was deleted, or if the store is unavailable.
pub async fn submit(
    app: &App,
    tenant: &Tenant,
    submission: Submission,
    refusal: Option<&Problem>,
) -> Result<Job, Problem> {
    let now = app.clock.now();
    let wait = refusal.map_or(Some(Millis::ZERO), |refusal| refusal.retry_after);
    let ready_at = wait.map(|wait| now + wait).filter(|ready_at| *ready_at < submission.expires_at);
    let (Some(queue), Some(ready_at)) = (&app.queue, ready_at) else {
        return Err(refusal.cloned().unwrap_or_else(no_queue));
    };
    allowance::admit_jobs(app, tenant, 1).await?;
    if app.blobs.is_some() && submission.body.len() > MAX_ROW_BODY_BYTES {
        admit_body(app, tenant, submission.body.len(), refusal).await?;
    }
    let reader = submission.reader;
    let is_behind = refusal.is_some_and(|refusal| refusal.refused_by.is_none());
    let is_parked = is_behind && reader != JobReader::Waiting && can_park(tenant);
    if is_parked {
        ensure_turn(app, queue, &tenant.name, ready_at).await?;
    }
    let new = NewJob { is_parked, ..submission.job(&tenant.name, now, ready_at) };
    let job = app.jobs.submit_for(reader, &new).await.map_err(|error| not_stored(error, refusal))?;
    if job.is_deleted {
        return Err(Problem::new(Kind::Conflict, "The response of this Idempotency-Key was deleted."));
    }
    if job.is_parked {
        send_expiry(queue, &job, now).await;
    } else {
        let delay = refusal.map_or(Millis::ZERO, |refusal| message_delay(refusal, ready_at - now));
        send(queue, &job.id, &job.tenant, delay).await;
    }
    Ok(job)
}

/// Admits a body to the bucket.
///
/// # Errors
/// Returns `refusal`, or else an error, if the bucket has no room for more of this tenant. Returns
/// an error if the ledger is unavailable.
async fn admit_body(app: &App, tenant: &Tenant, bytes: usize, refusal: Option<&Problem>) -> Result<(), Problem> {
    let admitted = allowance::admit_object(app, tenant, u64::try_from(bytes).unwrap_or(u64::MAX)).await;
    admitted.map_err(|full| match refusal {
        Some(refusal) if full.refused_by.is_some() => {
            let message = format!("There is no room now, and the request cannot wait as a job. {}", full.message);
            Problem { message, ..refusal.clone() }
        }
        _ => full,
    })
}

/// The job of a batch's line, which is ready immediately or waits for a turn. Its id is the same
/// each time the line is made a job.
pub fn line_job(batch: &Batch, number: u64, line: &Line, is_parked: bool) -> NewJob {
    let submission = Submission {
        id: Some(batch.job_id(number)),
        call: StoredCall {
            api: batch.api,
            model: None,
            path: batch.api.path().to_owned(),
            base_path: String::new(),
            headers: batch.headers.clone(),
            stream: false,
        },
        body: line.body.clone(),
        reader: JobReader::Later,
        priority: Priority::Low,
        class: Class::Batch,
        expires_at: batch.expires_at,
    };
    let member = BatchMember {
        batch_id: batch.id.clone(),
        line: number,
        total_lines: batch.total,
        custom_id: line.custom_id.clone(),
    };
    let job = submission.job(&batch.tenant, batch.created_at, batch.created_at);
    NewJob { is_parked, member: Some(member), ..job }
}

/// Refuses a request that can wait if jobs of its tenant already wait, because it would take the
/// room that they wait for. If the store is unavailable, the request is tried like any other.
///
/// # Errors
/// Returns a refusal until the first of these jobs is ready.
pub async fn check_backlog(app: &App, tenant: &Tenant) -> Result<(), Problem> {
    let Ok((parked, with_messages)) = app.jobs.waiting(&tenant.name, 1).await else { return Ok(()) };
    match parked.iter().chain(&with_messages).map(|job| job.ready_at).min() {
        Some(ready_at) => {
            let wait = (ready_at - app.clock.now()).max(MIN_WAIT_BEHIND_JOBS);
            Err(broker::behind_jobs(&tenant.name, wait))
        }
        None => Ok(()),
    }
}

/// Returns the delay of the message of a job that was refused for `wait`. If the pools were full,
/// the message comes early, because the first request that comes takes the room. If limits of the
/// tenant refused the job, the message comes in time, because an early message would delay others.
pub fn message_delay(refusal: &Problem, wait: Millis) -> Millis {
    match refusal.refused_by {
        Some(RefusedBy::Pools) => wait - MAX_EARLY,
        Some(RefusedBy::Limits(_) | RefusedBy::Allowance(_)) | None => wait,
    }
}

/// Sends the message of a job or batch that is stored. If this fails, the sweep sends it.
pub async fn send(queue: &Queue, id: &str, tenant: &str, delay: Millis) {
    if let Err(error) = queue.send(id, tenant, delay).await {
        warn!(id, %error, "failed to send a message; the sweep will send it");
    }
}

fn no_queue() -> Problem {
    Problem::new(Kind::NotFound, "No queue is configured, so requests cannot wait.")
}

fn not_stored(error: StoreError, refusal: Option<&Problem>) -> Problem {
    match (&error, refusal) {
        (StoreError::TooLarge { limit, .. }, Some(refusal)) => {
            let message = format!("There is no room now, and a request over {limit} bytes cannot wait as a job.");
            Problem { message, ..refusal.clone() }
        }
        (StoreError::TooLarge { .. }, None) => {
            let message = format!("A request over {MAX_ROW_BODY_BYTES} bytes cannot wait in the background.");
            Problem::new(Kind::TooLarge, message)
        }
        _ => error.into(),
    }
}
