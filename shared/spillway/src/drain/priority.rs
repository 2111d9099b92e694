//! Priority: a message runs the most urgent ready job of its tenant. If that is not the job that
//! the message names, the named job gets a new message.

use tracing::warn;

use crate::{
    app::App,
    job::{Job, WaitingJob},
    queue::Queue,
    store::jobs::ClaimOutcome,
    units::{Millis, UnixMs},
};

/// Maximum number of jobs ahead of the named job that are considered. Other drains consider the
/// same jobs.
const MAX_CANDIDATES: usize = 10;

/// Claims the most urgent job of the tenant that can run instead of `job`, or `job` itself.
///
/// # Errors
/// Returns an error if the store or the queue is unavailable.
pub async fn claim_most_urgent(
    app: &App,
    queue: &Queue,
    job: &Job,
    lease: Millis,
    now: UnixMs,
) -> anyhow::Result<ClaimOutcome> {
    if job.can_be_overtaken() {
        let candidates = app.jobs.before(job, MAX_CANDIDATES).await?;
        for candidate in candidates.iter().filter(|candidate| is_more_urgent(candidate, job, now)) {
            match app.jobs.claim(&candidate.id, lease, now).await {
                Ok(ClaimOutcome::Run { job: claimed, body }) => {
                    queue.send(&job.id, &job.tenant, Millis::ZERO).await?;
                    return Ok(ClaimOutcome::Run { job: claimed, body });
                }
                Ok(_) => {}
                // For example, if its body was deleted. The named job can still run.
                Err(error) => warn!(job_id = candidate.id, %error, "failed to claim a more urgent job"),
            }
        }
    }
    Ok(app.jobs.claim_job(job.clone(), lease, now).await?)
}

/// Whether `candidate` is ready, and ahead of `job` because of its priority and not only because of
/// its age. Older jobs have their own messages.
fn is_more_urgent(candidate: &WaitingJob, job: &Job, now: UnixMs) -> bool {
    candidate.priority.lag() < job.priority.lag() && candidate.ready_at <= now
}
