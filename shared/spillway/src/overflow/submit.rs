//! Accepts requests as jobs. No other module builds jobs.

use bytes::Bytes;
use tracing::warn;

use crate::{
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
    fn job(self, tenant: &str, created_at: UnixMs, ready_at: UnixMs, member: Option<BatchMember>) -> NewJob {
        NewJob {
            id: self.id,
            tenant: tenant.to_owned(),
            call: self.call,
            body: self.body,
            created_at,
            ready_at,
            expires_at: self.expires_at,
            priority: self.priority,
            class: self.class,
            member,
        }
    }
}

/// Accepts a request as a job. The job is stored first and its message sent second, so that no
/// accepted job is lost.
///
/// The job is ready when `refusal` expects room, or immediately without a refusal.
///
/// # Errors
/// Returns `refusal` if there is no queue, or if the job would expire before there is room. Returns
/// an error if the body is too large, if the job with this id was deleted, or if the store is
/// unavailable.
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
    let reader = submission.reader;
    let new = submission.job(&tenant.name, now, ready_at, None);
    let job = app.jobs.submit_for(reader, &new).await.map_err(|error| not_stored(error, refusal))?;
    if job.is_deleted {
        return Err(Problem::new(Kind::Conflict, "The response of this Idempotency-Key was deleted."));
    }
    let delay = refusal.map_or(Millis::ZERO, |refusal| message_delay(refusal, ready_at - now));
    send(queue, &job.id, &job.tenant, delay).await;
    Ok(job)
}

/// The job of a batch's line, which is ready immediately. Its id is the same each time the line is
/// made a job.
pub fn line_job(batch: &Batch, number: u64, line: &Line) -> NewJob {
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
    submission.job(&batch.tenant, batch.created_at, batch.created_at, Some(member))
}

/// Refuses a request that can wait if jobs of its tenant already wait, because it would take the
/// room that they wait for. If the store is unavailable, the request is tried like any other.
///
/// # Errors
/// Returns a refusal until the first of these jobs is ready.
pub async fn check_backlog(app: &App, tenant: &Tenant) -> Result<(), Problem> {
    match app.jobs.next_waiting(&tenant.name).await {
        Ok(Some(next)) => Err(broker::behind_jobs(&tenant.name, next.ready_at - app.clock.now())),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Returns the delay of the message of a job that was refused for `wait`. If the pools were full,
/// the message comes early, because the first request that comes takes the room. If limits of the
/// tenant refused the job, the message comes in time, because an early message would delay others.
pub fn message_delay(refusal: &Problem, wait: Millis) -> Millis {
    match refusal.refused_by {
        Some(RefusedBy::Pools) => wait - MAX_EARLY,
        Some(RefusedBy::Limits(_)) | None => wait,
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
