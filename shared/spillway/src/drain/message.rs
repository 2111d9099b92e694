//! One message: claim its job, run it, and leave job and message as they should be.

use tracing::{debug, error, warn};

use super::{
    answer::{self, Attempt},
    turn,
};
use crate::{
    app::App,
    job::{Job, Outcome, Status},
    queue::{Message, Queue},
    store::{StoreError, jobs::Claim},
};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// It can be deleted.
    Done,
    /// It stays: SQS shows it again, and moves it to the dead-letter queue in the end.
    Failed,
}

/// How long a claim lasts beyond the time that the model may take, for settling and storing, in milliseconds.
pub(super) const LEASE_MARGIN_MS: u64 = 15_000;

/// How long a job whose attempt failed rests before the next one, in milliseconds, times the attempts so far.
const RETRY_MS: u64 = 5_000;

/// Handles one message. It may come twice, late, or at two drains at once: the claim decides.
pub async fn handle(app: &App, message: &Message, deadline_ms: Option<u64>) -> Handled {
    let Some(queue) = &app.queue else {
        error!("SPILLWAY_QUEUE_URL is not set, so a job that must wait could not be sent again");
        return Handled::Failed;
    };
    match try_handle(app, queue, message, deadline_ms).await {
        Ok(handled) => handled,
        Err(error) => {
            warn!(job_id = shown(&message.body), error = format!("{error:#}"), "a message could not be handled");
            Handled::Failed
        }
    }
}

async fn try_handle(app: &App, queue: &Queue, message: &Message, deadline_ms: Option<u64>) -> anyhow::Result<Handled> {
    let now_ms = app.clock.now_ms();
    let Some(job) = app.jobs.get(&message.body).await? else {
        error!(job_id = shown(&message.body), "a message names no job");
        return Ok(Handled::Failed);
    };
    let lease_ms = answer::longest_ms(app, deadline_ms).await? + LEASE_MARGIN_MS;
    match turn::claim(app, queue, &job, lease_ms, now_ms).await? {
        Claim::Run { job, body } => {
            let attempt = answer::attempt(app, &job, &body, deadline_ms).await;
            conclude(app, queue, message, &job, attempt).await
        }
        Claim::NotYet { until_ms } => {
            queue.send(&job.id, &job.tenant, until_ms.saturating_sub(now_ms)).await?;
            Ok(Handled::Done)
        }
        Claim::Ended(Status::Failed) => to_dead_letters(queue, message).await,
        Claim::Ended(_) => Ok(Handled::Done),
        Claim::Missing => Ok(Handled::Failed),
    }
}

async fn conclude(app: &App, queue: &Queue, message: &Message, job: &Job, attempt: Attempt) -> anyhow::Result<Handled> {
    let now_ms = app.clock.now_ms();
    match attempt {
        Attempt::Answered(result) => {
            finish(app, job, Outcome::Succeeded(result)).await?;
            debug!(job_id = job.id, "a job succeeded");
            Ok(Handled::Done)
        }
        Attempt::NoRoom { wait_ms } => {
            let ready_ms = job.deferred_until(wait_ms, now_ms);
            if app.jobs.defer(job, ready_ms).await? {
                queue.send(&job.id, &job.tenant, ready_ms.saturating_sub(now_ms)).await?;
            }
            Ok(Handled::Done)
        }
        Attempt::Failed { error, result, is_final } => {
            if is_final || job.attempts >= crate::job::MAX_ATTEMPTS {
                finish(app, job, Outcome::Failed { error, result }).await?;
                return to_dead_letters(queue, message).await;
            }
            let rest_ms = RETRY_MS * u64::from(job.attempts);
            app.jobs.retry(job, now_ms + rest_ms).await?;
            hide(queue, message, rest_ms / 1_000).await;
            Ok(Handled::Failed)
        }
    }
}

/// Stores the outcome. An answer that is too large to store is a failure of its own.
async fn finish(app: &App, job: &Job, outcome: Outcome) -> anyhow::Result<()> {
    let now_ms = app.clock.now_ms();
    let stored = match app.jobs.finish(job, &outcome, now_ms).await {
        Err(StoreError::TooLarge { bytes, limit, .. }) => {
            let outcome = answer::too_large_to_store(job, bytes, limit);
            app.jobs.finish(job, &outcome, now_ms).await?
        }
        stored => stored?,
    };
    if !stored {
        warn!(job_id = job.id, "another drain has taken the job over; this answer is dropped");
    }
    Ok(())
}

/// A failed job's message fails until SQS moves it to the dead-letter queue, without waiting in between.
async fn to_dead_letters(queue: &Queue, message: &Message) -> anyhow::Result<Handled> {
    hide(queue, message, 0).await;
    Ok(Handled::Failed)
}

/// When this fails the message is seen again at its visibility timeout, which is only later.
async fn hide(queue: &Queue, message: &Message, for_s: u64) {
    if let Err(error) = queue.change_visibility(&message.receipt_handle, u32::try_from(for_s).unwrap_or(0)).await {
        warn!(%error, "a message's visibility was not changed");
    }
}

/// A message that is no job id may hold anything.
fn shown(body: &str) -> &str {
    if uuid::Uuid::try_parse(body).is_ok() { body } else { "not a job id" }
}
