//! Whose turn it is. A message is a turn of its tenant: if a more urgent job of the same tenant waits, that one takes it, and
//! the message's own job gets another message.

use tracing::warn;

use crate::{
    app::App,
    job::Job,
    queue::Queue,
    store::jobs::{Claim, Waiting},
};

/// How many jobs before the message's own are looked at: other drains look at the same ones.
const MOST: usize = 10;

/// Claims the job that takes the turn of `own`: the most urgent one that can begin, or itself.
///
/// # Errors
/// The store or the queue cannot be reached.
pub async fn claim(app: &App, queue: &Queue, own: &Job, lease_ms: u64, now_ms: u64) -> anyhow::Result<Claim> {
    if own.can_be_overtaken() {
        for other in app.jobs.before(own, MOST).await?.iter().filter(|other| takes_turn(other, own, now_ms)) {
            match app.jobs.claim(&other.id, lease_ms, now_ms).await {
                Ok(Claim::Run { job, body }) => {
                    queue.send(&own.id, &own.tenant, 0).await?;
                    return Ok(Claim::Run { job, body });
                }
                Ok(_) => {}
                // As when its body is gone. The job of this message can begin all the same.
                Err(error) => warn!(job_id = other.id, %error, "a more urgent job cannot take its turn"),
            }
        }
    }
    Ok(app.jobs.claim_seen(own.clone(), lease_ms, now_ms).await?)
}

/// Whether `other`, which is before `own`, is there because it is more urgent and not only older: those have messages of
/// their own on the way.
fn takes_turn(other: &Waiting, own: &Job, now_ms: u64) -> bool {
    other.priority.behind_ms() < own.priority.behind_ms() && other.ready_ms <= now_ms
}
