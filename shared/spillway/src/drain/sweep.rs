//! Finds jobs whose message never appeared, or whose end was not told: sends it again, tells it, or ends what is over.

use anyhow::Context;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::dead_letters;
use crate::{
    app::App,
    batch::is_batch_id,
    job::{Reason, Status},
    overflow,
    queue::Queue,
    store::jobs::Sweep,
    webhook,
};

/// How many jobs one sweep looks at, at most.
const MOST: usize = 1_000;

/// How many of them at once.
const AT_ONCE: usize = 16;

/// Takes care of every overdue job; gives how many messages were sent again. A message too many is harmless: the claim
/// decides. One that cannot be taken care of keeps none of the others from it.
///
/// A job may be overdue because its message was lost or never sent, because its drain died, or because it waited in a long
/// queue until its time was over.
///
/// # Errors
/// The store or the queue could not be reached for some of them; the next sweep tries again.
pub async fn sweep(app: &App) -> anyhow::Result<usize> {
    let Some(queue) = &app.queue else { return Ok(0) };
    let overdue = app.jobs.overdue(MOST, app.clock.now_ms()).await?;
    let swept = stream::iter(overdue).map(|open| async move { (one(app, queue, &open.id).await, open.id) });
    let (mut sent, mut failed) = (0, None);
    let mut swept = std::pin::pin!(swept.buffer_unordered(AT_ONCE));
    while let Some((done, job_id)) = swept.next().await {
        match done {
            Ok(is_sent) => sent += usize::from(is_sent),
            Err(error) => {
                warn!(job_id, error = format!("{error:#}"), "an overdue job was not taken care of");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(sent), |error| Err(error).context("some overdue jobs were not taken care of"))
}

/// Whether the job's message was sent again.
async fn one(app: &App, queue: &Queue, id: &str) -> anyhow::Result<bool> {
    if is_batch_id(id) {
        let Some(batch) = app.batches.take_for_resend(id, app.clock.now_ms()).await? else { return Ok(false) };
        queue.send(&batch.id, &batch.tenant, 0).await?;
        return Ok(true);
    }
    match app.jobs.sweep(id, app.clock.now_ms()).await? {
        Sweep::Resend(job) => {
            warn!(job_id = job.id, "a job's message is late or lost, and is sent again");
            queue.send(&job.id, &job.tenant, 0).await?;
            Ok(true)
        }
        Sweep::Tell(job) => {
            warn!(job_id = job.id, "the end of a job was not told and is told now");
            webhook::announce_job(app, &job).await?;
            Ok(false)
        }
        Sweep::Ended(job) => {
            warn!(job_id = job.id, status = job.status.name(), "a job without a message has ended");
            overflow::notify_end(app, &job).await;
            if job.status == Status::Failed {
                dead_letters::write(app, &job, Reason::AttemptsExhausted).await;
            }
            Ok(false)
        }
        Sweep::Nothing => Ok(false),
    }
}
