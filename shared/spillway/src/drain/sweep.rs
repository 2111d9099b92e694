//! The sweep: finds overdue jobs, sends lost messages and overdue notifications again, and ends
//! expired jobs.

use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::dead_letters;
use crate::{
    app::App,
    batch::is_batch_id,
    job::{FailureReason, JobStatus},
    overflow,
    queue::Queue,
    store::{backlogs, jobs::SweepOutcome},
    telemetry::SweepEvent,
    units::Millis,
    webhook,
};

/// Interval between sweeps. On Lambda, the schedule in the SAM template has the same interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of jobs in one sweep.
const MAX_JOBS: usize = 1_000;

/// Number of jobs that are handled concurrently.
const CONCURRENT_JOBS: usize = 16;

/// Handles every overdue job, and records the sweep. Returns how many messages were sent again. A
/// superfluous message is harmless, because only one claim succeeds. A failure on one job does not
/// stop the others.
///
/// A job can be overdue because its message was lost or never sent, because its drain died, or
/// because it expired in a long queue. A job that waits for a limit of its tenant is not overdue.
///
/// # Errors
/// Returns an error if the store or the queue was unavailable for some jobs. The next sweep tries
/// them again.
pub async fn sweep(app: &App) -> anyhow::Result<usize> {
    let Some(queue) = &app.queue else { return Ok(0) };
    let overdue = app.jobs.overdue(MAX_JOBS, app.clock.now()).await?;
    let mut event = SweepEvent { sweeps: 1, oldest_overdue_s: 0, overdue: overdue.len(), resent: 0, unhandled: 0 };
    let swept = stream::iter(overdue).map(|open| async move { (sweep_job(app, queue, &open.id).await, open.id) });
    let mut failure = None;
    let mut swept = std::pin::pin!(swept.buffer_unordered(CONCURRENT_JOBS));
    while let Some((result, job_id)) = swept.next().await {
        match result {
            Ok(Swept { is_sent, ready_for }) => {
                event.resent += usize::from(is_sent);
                event.oldest_overdue_s = event.oldest_overdue_s.max(ready_for.as_s_rounded_up());
            }
            Err(error) => {
                warn!(job_id, error = format!("{error:#}"), "failed to handle an overdue job");
                event.unhandled += 1;
                failure = Some(error);
            }
        }
    }
    let sent = event.resent;
    app.telemetry.record_sweep(event);
    failure.map_or(Ok(sent), |error| Err(error).context("failed to handle some overdue jobs"))
}

/// What the sweep did about one overdue job, batch or turn.
#[derive(Default)]
struct Swept {
    /// Whether its message was sent again.
    is_sent: bool,
    /// How long the job or the turn has been ready for a drain; zero for a batch, and for a job
    /// that is parked or has ended.
    ready_for: Millis,
}

/// Handles one overdue job, batch or turn.
async fn sweep_job(app: &App, queue: &Queue, id: &str) -> anyhow::Result<Swept> {
    let now = app.clock.now();
    if is_batch_id(id) {
        let Some(batch) = app.batches.take_for_resend(id, now).await? else { return Ok(Swept::default()) };
        queue.send(&batch.id, &batch.tenant, Millis::ZERO).await?;
        return Ok(Swept { is_sent: true, ready_for: Millis::ZERO });
    }
    if let Some(tenant) = backlogs::tenant_of(id) {
        let Some(backlog) = app.backlogs.take_for_resend(tenant, now).await? else { return Ok(Swept::default()) };
        overflow::send_turn(queue, &backlog, now).await?;
        return Ok(Swept { is_sent: true, ready_for: now - backlog.turn_at });
    }
    match app.jobs.sweep(id, now).await? {
        SweepOutcome::Resend(job) if job.is_parked => {
            overflow::ensure_turn(app, queue, &job.tenant, now).await?;
        }
        SweepOutcome::Resend(job) => {
            warn!(job_id = job.id, "sending an overdue message again");
            queue.send(&job.id, &job.tenant, Millis::ZERO).await?;
            return Ok(Swept { is_sent: true, ready_for: now - job.ready_at });
        }
        SweepOutcome::Report(job) => {
            warn!(job_id = job.id, "sending an overdue notification");
            webhook::notify_job(app, &job).await?;
        }
        SweepOutcome::Ended(job) => {
            warn!(job_id = job.id, status = job.status.name(), "ended an overdue job");
            overflow::notify_end(app, &job).await;
            if job.status == JobStatus::Failed {
                dead_letters::dead_letter_job(app, &job, FailureReason::AttemptsExhausted).await;
            }
        }
        SweepOutcome::Nothing => {}
    }
    Ok(Swept::default())
}
