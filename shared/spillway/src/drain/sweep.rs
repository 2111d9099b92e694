//! Finds jobs whose message never appeared and sends it again.

use tracing::warn;

use crate::app::App;

/// How many jobs one sweep sends again at most.
const MOST: usize = 1_000;

/// Sends the message of every overdue job again; gives how many those were. A message too many is harmless: the claim
/// decides.
///
/// # Errors
/// The store or the queue could not be reached; the next sweep tries again.
pub async fn sweep(app: &App) -> anyhow::Result<usize> {
    let Some(queue) = &app.queue else { return Ok(0) };
    let mut sent = 0;
    for open in app.jobs.overdue(MOST, app.clock.now_ms()).await? {
        if let Some(job) = app.jobs.take_for_resend(&open.id, app.clock.now_ms()).await? {
            warn!(job_id = job.id, "a job's message was lost and is sent again");
            queue.send(&job.id, &job.tenant, 0).await?;
            sent += 1;
        }
    }
    Ok(sent)
}
