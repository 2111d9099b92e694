//! Settlements that wait for one item: those of one slot go in one write.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Desk, items::Updated};
use crate::{
    quota::{self, Reservation, Settled, Write},
    store::StoreError,
};

/// How often a settlement is sent to a store that is busy.
const ATTEMPTS: u32 = 4;

/// The pause after a busy store's first refusal to settle; it doubles. Nobody waits for room here, so there is time.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// One settlement that waits for its turn.
pub(super) struct Settling {
    pub reservation: Reservation,
    pub settled: Settled,
    pub reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Desk {
    /// Settles everyone in `waiting`, all of whom hold a reservation on the item `key`.
    pub(super) async fn settle_all(&self, key: &str, mut waiting: Vec<Settling>) {
        while let Some(first) = waiting.first() {
            let slot = first.reservation.slot;
            // Those of one slot are reaped together or not at all, so one refusal means the same for all of them.
            let (together, rest) = waiting.into_iter().partition(|one| one.reservation.slot == slot);
            waiting = rest;
            self.settle(key, together).await;
        }
    }

    async fn settle(&self, key: &str, mut together: Vec<Settling>) {
        while !together.is_empty() {
            let now_ms = self.clock.now_ms();
            let (write, count) = compose(&together, |one| quota::settle(&one.reservation, &one.settled, now_ms));
            let rest = together.split_off(count);
            let mut outcome = self.update_in_time(key, &write).await;
            // Refused while its slot could not have been reaped, it has happened already.
            if matches!(outcome, Ok(false)) && together.iter().all(|one| one.reservation.is_dead(now_ms)) {
                outcome = self.settle_reaped(key, &together, now_ms).await;
            }
            for one in together {
                let _ = one.reply.send(outcome.clone().map(drop));
            }
            together = rest;
        }
    }

    async fn settle_reaped(&self, key: &str, together: &[Settling], now_ms: u64) -> Result<bool, StoreError> {
        let mut left = together;
        while !left.is_empty() {
            let (write, count) = compose(left, |one| quota::settle_reaped(&one.reservation, &one.settled, now_ms));
            if !write.updates.is_empty() {
                self.update_in_time(key, &write).await?;
            }
            left = &left[count..];
        }
        Ok(true)
    }

    /// Whether the write took effect. Waits a little for a store that is busy: what it refused before it tried can be sent
    /// again. Nothing else is: what is ambiguous may have happened.
    async fn update_in_time(&self, key: &str, write: &Write) -> Result<bool, StoreError> {
        for attempt in 0..ATTEMPTS {
            match self.items.update(key, write).await? {
                Updated::Done(image) => {
                    self.denials.changed(key, &image);
                    return Ok(true);
                }
                Updated::Refused(_) => return Ok(false),
                Updated::Busy => tokio::time::sleep(BUSY_PAUSE * (1 << attempt)).await,
            }
        }
        Err(StoreError::Unavailable(format!("the ledger stayed busy through {ATTEMPTS} attempts")))
    }
}

/// One write for as many of the first of `all` as can go together, and how many those are; at least one.
fn compose(all: &[Settling], write_of: impl Fn(&Settling) -> Write) -> (Write, usize) {
    let mut writes = all.iter().map(write_of);
    let mut composed = writes.next().unwrap_or_default();
    let mut count = 1;
    for write in writes {
        let Some(both) = composed.then(&write) else { break };
        composed = both;
        count += 1;
    }
    (composed, count)
}
