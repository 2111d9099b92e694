//! The shared running service: the state behind a lock, its journal, and the wake-up of long polls.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    error::{Error, Fault},
    journal::Journal,
    state::State,
};
use crate::{clock::Clock, counts::Counts};

/// What all connections share.
pub struct Service {
    guarded: Mutex<Guarded>,
    pub counts: Counts,
    clock: Clock,
    changed: Notify,
    shutdown: CancellationToken,
}

struct Guarded {
    state: State,
    journal: Option<Journal>,
}

impl Service {
    /// Starts with what the data directory holds, or empty.
    pub fn open(options: Options, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let Options { clock, data, faults } = options;
        let mut state = State::new(faults);
        let journal = data.as_deref().map(Journal::open).transpose()?;
        if let Some(journal) = &journal {
            journal.load(&mut state, clock.now_ms())?;
        }
        let guarded = Mutex::new(Guarded { state, journal });
        Ok(Self { guarded, counts: Counts::default(), clock, changed: Notify::new(), shutdown })
    }

    /// Runs one step on the state as of now, and writes what it changed before the result is known to anyone.
    pub fn transact<T>(&self, step: impl FnOnce(&mut State, u64) -> Result<T, Error>) -> Result<T, Error> {
        let mut guarded = self.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        let Guarded { state, journal } = &mut *guarded;
        let now_ms = self.clock.now_ms();
        state.advance(now_ms);
        let result = step(state, now_ms);
        if state.changes.is_empty() {
            return result;
        }
        if let Some(journal) = journal {
            journal.write(state).map_err(|error| {
                tracing::error!(%error, "SQS stand-in cannot write its journal");
                Error::new(Fault::Internal, "The stand-in cannot write its journal.")
            })?;
        }
        state.changes.clear();
        self.changed.notify_waiters();
        result
    }

    /// Repeats `attempt` until it gives something or `wait_s` have passed: a long poll on `queue`.
    ///
    /// It looks again after each change of any queue and whenever a hidden message of this one becomes visible.
    pub async fn poll<T>(
        &self,
        queue: &str,
        wait_s: u32,
        mut attempt: impl FnMut(&mut State, u64) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let end_ms = self.clock.now_ms() + u64::from(wait_s) * 1_000;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed, even one between the attempt and the wait.
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
