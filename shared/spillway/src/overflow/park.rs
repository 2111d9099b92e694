//! Parks jobs: a job that waits for its tenant's own limits has no message. One message stands for
//! all such jobs of a tenant: its next turn, which `drain::turn` takes.

use tracing::warn;

use crate::{
    app::App,
    job::{Backlog, Job},
    problem::{Problem, RefusedBy},
    queue::{Queue, QueueError},
    store::StoreError,
    tenant::Tenant,
    units::{Millis, UnixMs},
};

/// Longest time before its expiry for which a parked job has a message that ends it in time. Later
/// expiries are found by the sweep, within a minute.
const MAX_EXPIRY_DELAY: Millis = Millis::from_s(900);

/// Whether jobs of `tenant` may be parked: it has limits that they can wait for.
pub fn can_park(tenant: &Tenant) -> bool {
    tenant.parent.is_some() || tenant.limits.iter().next().is_some()
}

/// Whether limits of the tenant or of its organisation refused the request.
pub fn is_refused_by_limits(refusal: &Problem) -> bool {
    matches!(refusal.refused_by, Some(RefusedBy::Limits(_)))
}

/// Makes sure that `tenant` has a turn, for jobs that were parked or are about to be parked and
/// expect room at `turn_at`.
///
/// # Errors
/// Returns an error if the store is unavailable.
pub async fn ensure_turn(app: &App, queue: &Queue, tenant: &str, turn_at: UnixMs) -> Result<(), StoreError> {
    let now = app.clock.now();
    if let Some(backlog) = app.backlogs.note_parked(tenant, turn_at, now).await?
        && let Err(error) = send_turn(queue, &backlog, now).await
    {
        warn!(tenant, %error, "failed to send the message of a turn; the sweep will send it");
    }
    Ok(())
}

/// Sends the message of the next turn. It arrives up to a second early, and the drain waits for the
/// exact time.
///
/// # Errors
/// Returns an error if the queue is unavailable.
pub async fn send_turn(queue: &Queue, backlog: &Backlog, now: UnixMs) -> Result<(), QueueError> {
    let delay = Millis::from_s((backlog.turn_at - now).as_ms() / 1_000);
    queue.send(&backlog.next_turn().to_body(), &backlog.tenant, delay).await
}

/// Sends a message that ends a parked job when it expires, if that is soon.
pub async fn send_expiry(queue: &Queue, job: &Job, now: UnixMs) {
    let delay = job.expires_at - now;
    if delay <= MAX_EXPIRY_DELAY {
        super::send(queue, &job.id, &job.tenant, delay).await;
    }
}
