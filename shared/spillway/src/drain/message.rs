//! One message: claim its job, run it, and leave job and message as they should be.

use tracing::{debug, error, warn};

use super::{
    attempt::{self, Attempt},
    batch,
    concurrency::{self, Slot},
    dead_letters, priority,
    time_budget::{AttemptTimes, TimeBudget},
};
use crate::{
    app::App,
    batch::is_batch_id,
    job::{Job, MAX_ATTEMPTS, Next, Outcome, Reader, Reason, Status},
    overflow::{self, MAX_EARLY_MS, delay_ms},
    queue::{Handled, Message, Queue},
    store::{StoreError, jobs::Claim},
};

/// How long a job whose attempt failed rests before the next one, in milliseconds, times the attempts so far.
const RETRY_MS: u64 = 5_000;

/// Handles one message. It may come twice, late, or at two drains at once: the claim decides.
pub async fn handle(app: &App, message: &Message, budget: TimeBudget) -> Handled {
    let Some(queue) = &app.queue else {
        error!("SPILLWAY_QUEUE_URL is not set, so a job that must wait could not be sent again");
        return Handled::Failed;
    };
    match try_handle(app, queue, message, budget).await {
        Ok(handled) => handled,
        Err(error) => {
            warn!(job_id = shown(&message.body), error = format!("{error:#}"), "a message could not be handled");
            Handled::Failed
        }
    }
}

async fn try_handle(app: &App, queue: &Queue, message: &Message, budget: TimeBudget) -> anyhow::Result<Handled> {
    if is_batch_id(&message.body) {
        let _running = app.concurrency.start_work();
        batch::handle(app, queue, &message.body, budget.deadline_ms()).await?;
        return Ok(Handled::Done);
    }
    let Some(job) = job_in_time(app, &message.body).await? else {
        error!(job_id = shown(&message.body), "a message names no job");
        let is_id = uuid::Uuid::try_parse(&message.body).is_ok();
        let reason = if is_id { Reason::UnknownJob } else { Reason::UnreadableMessage };
        return Ok(dead_letters::bury(app, queue, message, None, reason).await);
    };
    let call_ms = attempt::longest_ms(app).await?;
    let now_ms = app.clock.now_ms();
    let times = budget.attempt(call_ms, now_ms);
    match job.next(now_ms) {
        // It failed before; if this message was seen before as well, the drain may have died between the two.
        Next::Drop(Status::Failed) if message.receive_count > 1 => {
            return Ok(dead_letters::bury(app, queue, message, Some(&job), Reason::Failed).await);
        }
        Next::Drop(_) => return Ok(Handled::Done),
        Next::Run if !budget.may_begin(call_ms, now_ms) => {
            // Not as a failure, which would count as one of its receives.
            queue.send(&job.id, &job.tenant, 0).await?;
            return Ok(Handled::Done);
        }
        Next::Run => {}
        Next::Wait { .. } | Next::Expire | Next::GiveUp => {
            return claim(app, queue, message, &job, times).await;
        }
    }
    let slot = concurrency::take(app, &job, times.lease_ends_ms).await?;
    if let Slot::NotYet { until_ms } = slot {
        app.jobs.postpone(&job, until_ms).await?;
        queue.send(&job.id, &job.tenant, until_ms.saturating_sub(now_ms)).await?;
        return Ok(Handled::Done);
    }
    let handled = claim(app, queue, message, &job, times).await;
    slot.give_back(app).await;
    handled
}

/// The job, as it stands when its time has come, if that is soon.
async fn job_in_time(app: &App, id: &str) -> anyhow::Result<Option<Job>> {
    let job = app.jobs.get(id).await?;
    let now_ms = app.clock.now_ms();
    match job.as_ref().map(|job| job.next(now_ms)) {
        Some(Next::Wait { until_ms }) if until_ms <= now_ms.saturating_add(MAX_EARLY_MS) => {
            app.clock.sleep_until(crate::units::UnixMs::from_ms(until_ms)).await;
            Ok(app.jobs.get(id).await?)
        }
        _ => Ok(job),
    }
}

async fn claim(app: &App, queue: &Queue, message: &Message, job: &Job, times: AttemptTimes) -> anyhow::Result<Handled> {
    let now_ms = app.clock.now_ms();
    let lease_ms = times.lease_ends_ms.saturating_sub(now_ms);
    match priority::claim(app, queue, job, lease_ms, now_ms).await? {
        Claim::Run { job, body } => {
            if let Err(error) = queue.hide_at_least(&message.receipt_handle, lease_ms).await {
                warn!(%error, "a message may be seen again before its job is done");
            }
            let attempt = attempt::attempt(app, &job, &body, times).await;
            conclude(app, queue, message, &job, attempt).await
        }
        Claim::NotYet { until_ms } => {
            queue.send(&job.id, &job.tenant, until_ms.saturating_sub(now_ms)).await?;
            Ok(Handled::Done)
        }
        Claim::Ended(status) => {
            overflow::notify_end(app, job).await;
            match status {
                Status::Failed => {
                    Ok(dead_letters::bury(app, queue, message, Some(job), Reason::AttemptsExhausted).await)
                }
                _ => Ok(Handled::Done),
            }
        }
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
        Attempt::NoRoom { refused, wait_ms } => {
            let ready_ms = job.deferred_until(wait_ms, now_ms);
            if app.jobs.defer(job, ready_ms).await? {
                queue.send(&job.id, &job.tenant, delay_ms(&refused, ready_ms.saturating_sub(now_ms))).await?;
            }
            Ok(Handled::Done)
        }
        Attempt::Failed { error, reason, result, is_final } => {
            if is_final || job.attempts >= MAX_ATTEMPTS {
                // Who waits is told, and nobody else misses it.
                if !finish(app, job, Outcome::Failed { error, result }).await? || job.reader == Reader::Waiting {
                    return Ok(Handled::Done);
                }
                return Ok(dead_letters::bury(app, queue, message, Some(job), reason).await);
            }
            let rest_ms = RETRY_MS * u64::from(job.attempts);
            app.jobs.retry(job, now_ms + rest_ms).await?;
            if job.id != message.body {
                // It had the turn of another one, to which the message belongs.
                queue.send(&job.id, &job.tenant, rest_ms).await?;
                return Ok(Handled::Done);
            }
            queue.hide(message, rest_ms / 1_000).await;
            Ok(Handled::Failed)
        }
    }
}

/// Stores the outcome; `false` if another drain has the job by now. An answer that is too large to store is a failure of its
/// own.
async fn finish(app: &App, job: &Job, outcome: Outcome) -> anyhow::Result<bool> {
    let now_ms = app.clock.now_ms();
    let stored = match app.jobs.finish(job, &outcome, now_ms).await {
        Err(StoreError::TooLarge { bytes, limit, .. }) => {
            let outcome = attempt::too_large_to_store(job, bytes, limit);
            app.jobs.finish(job, &outcome, now_ms).await?
        }
        stored => stored?,
    };
    if stored {
        overflow::notify_end(app, job).await;
    } else {
        warn!(job_id = job.id, "another drain has taken the job over; this answer is dropped");
    }
    Ok(stored)
}

/// A message that is no job id may hold anything.
fn shown(body: &str) -> &str {
    if uuid::Uuid::try_parse(body).is_ok() { body } else { "not a job id" }
}
