//! The running service: the state behind a lock, its journal, and the wake-up of long polls.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    error::{Error, ErrorCode},
    journal::Journal,
    state::State,
};
use crate::{clock::Clock, faults::Faults, request_counts::RequestCounts};

/// The service, shared by all connections.
pub struct Service {
    locked: Mutex<Locked>,
    /// Requests per operation.
    pub counts: RequestCounts,
    /// Faults that strike requests.
    pub faults: Faults,
    /// Cancelled at the end of the service.
    pub shutdown: CancellationToken,
    clock: Clock,
    changed: Notify,
}

struct Locked {
    state: State,
    journal: Option<Journal>,
}

impl Service {
    /// Loads the state from the data directory, or starts with empty state.
    ///
    /// # Errors
    /// Returns an error if the data directory cannot be used.
    pub fn open(options: Options, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let Options { clock, data, faults, request_faults } = options;
        let mut state = State::new(faults);
        let journal = data.as_deref().map(Journal::open).transpose()?;
        if let Some(journal) = &journal {
            journal.load(&mut state, clock.now_ms())?;
        }
        let locked = Mutex::new(Locked { state, journal });
        let (counts, changed) = (RequestCounts::default(), Notify::new());
        Ok(Self { locked, counts, faults: request_faults, shutdown, clock, changed })
    }

    /// Waits until the clock has advanced by `delay_ms`.
    pub async fn delay(&self, delay_ms: u64) {
        self.clock.sleep_until(self.clock.now_ms().saturating_add(delay_ms)).await;
    }

    /// Runs `step` on the current state and writes its changes before it returns the result.
    ///
    /// # Errors
    /// Returns the error of `step`, or an internal error if the journal cannot be written.
    pub fn transact<T>(&self, step: impl FnOnce(&mut State, u64) -> Result<T, Error>) -> Result<T, Error> {
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let Locked { state, journal } = &mut *locked;
        let now_ms = self.clock.now_ms();
        state.advance(now_ms);
        let result = step(state, now_ms);
        if state.changes.is_empty() {
            return result;
        }
        if let Some(journal) = journal {
            journal.write(state).map_err(|error| {
                tracing::error!(%error, "failed to write the SQS journal");
                Error::new(ErrorCode::Internal, "The stand-in cannot write its journal.")
            })?;
        }
        state.changes.clear();
        self.changed.notify_waiters();
        result
    }

    /// Repeats `attempt` until it returns a value or `wait_s` seconds have passed: a long poll on
    /// `queue`.
    ///
    /// It retries after each change of any queue, and when a hidden message of `queue` becomes
    /// visible.
    ///
    /// # Errors
    /// Returns the error of `attempt`.
    pub async fn long_poll<T>(
        &self,
        queue: &str,
        wait_s: u32,
        mut attempt: impl FnMut(&mut State, u64) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let end_ms = self.clock.now_ms() + u64::from(wait_s) * 1_000;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on, no change is missed, not even a change between the attempt and the
            // wait.
            changed.as_mut().enable();
            let (found, now_ms, next_ms) = self.transact(|state, now_ms| {
                let found = attempt(state, now_ms)?;
                Ok((found, now_ms, state.next_change_ms(queue, now_ms)))
            })?;
            if found.is_some() || now_ms >= end_ms {
                return Ok(found);
            }
            tokio::select! {
                () = changed => {}
                () = self.clock.sleep_until(next_ms.map_or(end_ms, |next_ms| next_ms.min(end_ms))) => {}
                () = self.shutdown.cancelled() => return Ok(None),
            }
        }
    }
}
