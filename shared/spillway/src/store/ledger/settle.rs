//! Pending settlements on one item: settlements of one slot go in one write.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Writer, items::UpdateOutcome, nonce::NonceAttribute};
use crate::{
    quota::{self, Reservation, Settled, Write},
    store::StoreError,
    units::UnixMs,
};

/// Maximum number of attempts to write a settlement to a busy store.
const MAX_ATTEMPTS: u32 = 4;

/// Pause after the first refusal by a busy store; it doubles. No caller waits for room here, so
/// there is time.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// A pending settlement.
pub(super) struct PendingSettle {
    pub reservation: Reservation,
    pub settled: Settled,
    pub reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Writer {
    /// Settles all reservations in `pending`, all on the item `key`.
    pub(super) async fn settle_group(&self, key: &str, mut pending: Vec<PendingSettle>) {
        while let Some(first) = pending.first() {
            let slot = first.reservation.slot;
            // A slot is reaped as a whole, so one refusal means the same for all of its
            // settlements.
            let (group, rest) = pending.into_iter().partition(|request| request.reservation.slot == slot);
            pending = rest;
            self.settle_slot(key, group).await;
        }
    }

    async fn settle_slot(&self, key: &str, mut group: Vec<PendingSettle>) {
        while !group.is_empty() {
            let now = self.clock.now();
            let (write, count) = compose(&group, |request| quota::settle(&request.reservation, &request.settled, now));
            let rest = group.split_off(count);
            let mut outcome = self.update_in_time(key, &write).await;
            // A refusal while the slot cannot have been reaped means that the settlement has
            // already taken effect.
            if matches!(outcome, Ok(false)) && group.iter().all(|request| request.reservation.is_dead(now)) {
                outcome = self.settle_reaped(key, &group, now).await;
            }
            for request in group {
                let _ = request.reply.send(outcome.clone().map(drop));
            }
            group = rest;
        }
    }

    async fn settle_reaped(&self, key: &str, group: &[PendingSettle], now: UnixMs) -> Result<bool, StoreError> {
        let mut left = group;
        while !left.is_empty() {
            let (write, count) =
                compose(left, |request| quota::settle_reaped(&request.reservation, &request.settled, now));
            if !write.updates.is_empty() {
                self.update_in_time(key, &write).await?;
            }
            left = &left[count..];
        }
        Ok(true)
    }

    /// Writes, and returns whether the conditions held. A busy store refuses before it tries, so
    /// the write is sent again after a pause. A timeout is ambiguous and is not retried: the write
    /// may have happened.
    async fn update_in_time(&self, key: &str, write: &Write) -> Result<bool, StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            match self.items.update(key, write, NonceAttribute::Settled).await? {
                UpdateOutcome::Done(image) => {
                    self.recent_refusals.changed(key, &image);
                    return Ok(true);
                }
                UpdateOutcome::Refused(_) => return Ok(false),
                UpdateOutcome::Busy => tokio::time::sleep(BUSY_PAUSE * (1 << attempt)).await,
            }
        }
        Err(StoreError::Unavailable(format!("the ledger was busy in {MAX_ATTEMPTS} attempts")))
    }
}

/// Composes the writes of as many of the first `requests` as possible, at least one. Returns the
/// write and their number.
fn compose(requests: &[PendingSettle], write: impl Fn(&PendingSettle) -> Write) -> (Write, usize) {
    let mut writes = requests.iter().map(write);
    let mut composed = writes.next().unwrap_or_default();
    let mut count = 1;
    for next in writes {
        let Some(both) = composed.then(&next) else { break };
        composed = both;
        count += 1;
    }
    (composed, count)
}
