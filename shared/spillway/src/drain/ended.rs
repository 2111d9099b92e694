//! Who is to know that a job has ended: its tenant's webhooks, and the batch whose line it did.

use tracing::warn;

use super::batch;
use crate::{app::App, job::Job, webhook};

/// Tells both. What cannot be told now is found by the sweep.
pub async fn tell(app: &App, job: &Job) {
    webhook::announce_end(app, &job.id, &job.tenant).await;
    if let Some(queue) = &app.queue
        && let Err(error) = batch::line_ended(app, queue, job).await
    {
        warn!(job_id = job.id, error = format!("{error:#}"), "a batch was not told of its last line");
    }
}
