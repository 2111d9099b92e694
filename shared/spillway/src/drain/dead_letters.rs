//! What is said of a job that failed for good: a message in the dead-letter queue, with the reason.

use tracing::{debug, warn};

use crate::{
    app::App,
    job::{Job, Reason},
    queue::{Handled, Letter, Message, Queue},
};

/// Moves the message of a job that failed for good to the dead-letter queue. Without one, or if it cannot be reached, the
/// message fails until SQS moves it, without waiting in between; unless it is another job's, whose turn this one had.
pub async fn bury(app: &App, queue: &Queue, message: &Message, job: Option<&Job>, reason: Reason) -> Handled {
    let body = job.map_or(&message.body, |job| &job.id);
    if send(app, body, job, reason).await || *body != message.body {
        return Handled::Done;
    }
    queue.hide(message, 0).await;
    Handled::Failed
}

/// Sends the letter of a job whose message is gone.
pub async fn write(app: &App, job: &Job, reason: Reason) -> bool {
    send(app, &job.id, Some(job), reason).await
}

/// Whether there is a letter now, or none is wanted: how a line of a batch failed, its batch tells.
async fn send(app: &App, body: &str, job: Option<&Job>, reason: Reason) -> bool {
    if job.is_some_and(|job| job.member.is_some()) {
        return true;
    }
    let Some(dead_letters) = &app.dead_letters else { return false };
    let failed_ms = job.and_then(|job| job.finished_ms).unwrap_or(app.clock.now_ms());
    let letter = Letter { body, tenant: job.map(|job| job.tenant.as_str()), reason: reason.code(), failed_ms };
    match dead_letters.send_letter(&letter).await {
        Ok(()) => {
            debug!(job_id = job.map(|job| &job.id), reason = reason.code(), "a job failed for good");
            true
        }
        Err(error) => {
            warn!(%error, reason = reason.code(), "a dead letter was not sent");
            false
        }
    }
}
