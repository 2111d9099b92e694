//! Makes a job of a request: the only builder of jobs.

use bytes::Bytes;
use tracing::warn;

use crate::{
    app::App,
    batch::{Batch, Line},
    broker,
    job::{Call, Job, Member, NewJob, Priority, Reader},
    problem::{Kind, Problem, RefusedBy},
    queue::Queue,
    store::{StoreError, jobs::MAX_ROW_BODY_BYTES},
    tenant::{Class, Tenant},
    units::Millis,
};

/// How long before its job is ready a message may arrive, in milliseconds: the job waits for the exact time in the drain's
/// process. SQS delays by whole seconds, while pools have room again every five seconds, for the first that comes.
pub const MAX_EARLY_MS: u64 = 5_000;

/// A request that is to wait as a job.
#[derive(Debug)]
pub struct Submission {
    /// Id of the job; `None` for a new one.
    pub id: Option<String>,
    /// The request without its body.
    pub call: Call,
    /// The client's own bytes.
    pub body: Bytes,
    /// How the answer is read.
    pub reader: Reader,
    /// Order among the jobs of its tenant.
    pub priority: Priority,
    /// Share of a pool that it may fill.
    pub class: Class,
    /// When the job expires unless it has begun, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl Submission {
    fn job(self, tenant: &str, created_ms: u64, ready_ms: u64, member: Option<Member>) -> NewJob {
        NewJob {
            id: self.id,
            tenant: tenant.to_owned(),
            call: self.call,
            body: self.body,
            created_ms,
            ready_ms,
            expires_ms: self.expires_ms,
            priority: self.priority,
            class: self.class,
            member,
        }
    }
}

/// Accepts a request as a job. The job is stored first and its message sent second, so that nothing accepted is lost.
///
/// The job is ready when `refusal` says that there is room, or at once without one.
///
/// # Errors
/// Returns `refusal` if there is no queue, or if the job would expire before there is room. Returns an error if the body is
/// too large to be kept, the job of this id was deleted, or the store is unavailable.
pub async fn submit(
    app: &App,
    tenant: &Tenant,
    submission: Submission,
    refusal: Option<&Problem>,
) -> Result<Job, Problem> {
    let now_ms = app.clock.now_ms();
    let wait = refusal.map_or(Some(Millis::ZERO), |refusal| refusal.retry_after);
    let ready_ms = wait.map(|wait| now_ms.saturating_add(wait.as_ms()));
    let (Some(queue), Some(ready_ms)) = (&app.queue, ready_ms.filter(|ready_ms| *ready_ms < submission.expires_ms))
    else {
        return Err(refusal.cloned().unwrap_or_else(no_queue));
    };
    let reader = submission.reader;
    let new = submission.job(&tenant.name, now_ms, ready_ms, None);
    let job = app.jobs.submit_for(reader, &new).await.map_err(|error| not_stored(error, refusal))?;
    if job.is_deleted {
        return Err(Problem::new(Kind::Conflict, "The response of this Idempotency-Key was deleted."));
    }
    let delay_ms = refusal.map_or(0, |refusal| delay_ms(refusal, ready_ms.saturating_sub(now_ms)));
    send(queue, &job.id, &job.tenant, delay_ms).await;
    Ok(job)
}

/// The job of a batch's line, ready at once. Its id is the same each time the line is made a job.
pub fn line_job(batch: &Batch, number: u64, line: &Line) -> NewJob {
    let submission = Submission {
        id: Some(batch.job_id(number)),
        call: Call {
            api: batch.api,
            model: None,
            path: batch.api.path().to_owned(),
            headers: batch.headers.clone(),
            stream: false,
        },
        body: line.body.clone(),
        reader: Reader::Later,
        priority: Priority::Low,
        class: Class::Batch,
        expires_ms: batch.expires_ms,
    };
    let member = Member { batch: batch.id.clone(), line: number, of: batch.total, custom_id: line.custom_id.clone() };
    submission.job(&batch.tenant, batch.created_ms, batch.created_ms, Some(member))
}

/// Refuses a request that can wait while other jobs of its tenant wait, with the time at which the first of them is ready.
/// Otherwise it would take the room for which they wait. If the store is unavailable, the request is tried like any other.
pub async fn check_backlog(app: &App, tenant: &Tenant) -> Result<(), Problem> {
    match app.jobs.next_waiting(&tenant.name).await {
        Ok(Some(next)) => {
            let wait_ms = next.ready_ms.saturating_sub(app.clock.now_ms());
            Err(broker::behind_jobs(&tenant.name, Millis::from_ms(wait_ms)))
        }
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Delay of the message of a job that was refused for `wait_ms`, in milliseconds. If the pools were full, the message comes
/// early, because room in a pool is taken by the first that comes. A job that waits for its tenant's own limits comes in time:
/// early, it would only hold up others.
pub fn delay_ms(refusal: &Problem, wait_ms: u64) -> u64 {
    match refusal.refused_by {
        Some(RefusedBy::Pools) => wait_ms.saturating_sub(MAX_EARLY_MS),
        Some(RefusedBy::Limits(_)) | None => wait_ms,
    }
}

/// Sends the message of a job or batch that is stored. If this fails, the sweep sends it.
pub async fn send(queue: &Queue, id: &str, tenant: &str, delay_ms: u64) {
    if let Err(error) = queue.send(id, tenant, delay_ms).await {
        warn!(id, %error, "failed to send a message; the sweep will send it");
    }
}

fn no_queue() -> Problem {
    Problem::new(Kind::NotFound, "No queue is configured here, so requests cannot wait.")
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
