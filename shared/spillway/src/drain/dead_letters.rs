//! Dead letters: messages of jobs that failed permanently, with the reason.

use tracing::{debug, warn};

use crate::{
    app::App,
    job::{FailureReason, Job},
    queue::{Handled, Message, NewDeadLetter, Queue},
    units::Millis,
};

/// Moves the message of a job that failed permanently to the dead-letter queue. If there is no such
/// queue, or it is unavailable, the message fails without a pause until SQS moves it. A message
/// that ran another job of its tenant is not moved.
pub async fn dead_letter(
    app: &App,
    queue: &Queue,
    message: &Message,
    job: Option<&Job>,
    reason: FailureReason,
) -> Handled {
    let body = job.map_or(&message.body, |job| &job.id);
    if send(app, body, job, reason).await || *body != message.body {
        return Handled::Done;
    }
    queue.hide(message, Millis::ZERO).await;
    Handled::Failed
}

/// Sends a dead letter for a job whose message no longer exists.
pub async fn dead_letter_job(app: &App, job: &Job, reason: FailureReason) {
    send(app, &job.id, Some(job), reason).await;
}

/// Sends a dead letter. Returns whether it was sent or is not needed: a batch reports the failures
/// of its lines.
async fn send(app: &App, body: &str, job: Option<&Job>, reason: FailureReason) -> bool {
    if job.is_some_and(|job| job.member.is_some()) {
        return true;
    }
    let Some(dead_letters) = &app.dead_letters else { return false };
    let failed_at = job.and_then(|job| job.finished_at).unwrap_or(app.clock.now());
    let tenant = job.map(|job| job.tenant.as_str());
    let letter = NewDeadLetter { body, tenant, reason: reason.code(), failed_at };
    match dead_letters.send_dead_letter(&letter).await {
        Ok(()) => {
            debug!(job_id = job.map(|job| &job.id), reason = reason.code(), "a job failed permanently");
            true
        }
        Err(error) => {
            warn!(%error, reason = reason.code(), "failed to send a dead letter");
            false
        }
    }
}
