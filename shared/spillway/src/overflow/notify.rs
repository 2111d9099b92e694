//! Reports the end of a job: to its tenant's webhooks, and to the batch that it belongs to.

use tracing::warn;

use crate::{app::App, job::Job, queue::Queue, units::Millis, webhook};

/// Reports that `job` has ended. The sweep finds and repeats a report that fails.
pub async fn notify_end(app: &App, job: &Job) {
    webhook::notify_job_end(app, &job.id, &job.tenant).await;
    if let Some(queue) = &app.queue
        && let Err(error) = notify_batch(app, queue, job).await
    {
        warn!(job_id = job.id, error = format!("{error:#}"), "failed to notify the batch of its last line");
    }
}

/// Sends the message of the batch of which `job` was the last line, if it was. Repeating the call
/// is harmless.
///
/// # Errors
/// Returns an error if the store or the queue is unavailable.
pub async fn notify_batch(app: &App, queue: &Queue, job: &Job) -> anyhow::Result<()> {
    let Some(member) = &job.member else { return Ok(()) };
    if app.batches.is_last(member).await?
        && let Some(batch) = app.batches.get(&member.batch_id).await?
        && !batch.status.is_final()
    {
        queue.send(&batch.id, &batch.tenant, Millis::ZERO).await?;
    }
    Ok(())
}
