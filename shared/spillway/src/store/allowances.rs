//! Allowances of tenants, in the ledger's table: one item for each tenant and allowance, and a tab
//! of this process for each item (`quota::allowance`).
//!
//! If the ledger is unavailable or the clock is off, jobs and objects are refused. Other requests
//! are admitted, because polls and lists should not stop with the ledger.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard as SyncMutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_dynamodb::Client;
use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard},
    time::Instant,
};
use tracing::warn;

use super::{
    LedgerError, StoreError,
    clock_skew::ClockSkew,
    ledger::{
        items::{Items, UpdateOutcome},
        nonce::NonceAttribute,
    },
};
use crate::{
    clock::Clock,
    connections::{MAX_SILENT_TIME, OutOfTime, Patience, ResendingClient, TimeLimits},
    quota::{
        Allowance,
        allowance::{self, Tab},
    },
    tenant::Tenant,
    units::{Millis, UnixMs},
};

/// Time until the next try if the item accepts no more writes at the moment.
const BUSY_PAUSE: Millis = Millis::from_s(1);

/// Longest time of a write of requests that call no model. They are admitted after it, so they wait
/// less than for other writes.
const OTHER_REQUESTS_LIMITS: TimeLimits =
    TimeLimits { for_caller: Duration::from_secs(1), in_background: MAX_SILENT_TIME };

/// Longest time of other writes.
const WRITE_LIMITS: TimeLimits = TimeLimits { for_caller: MAX_SILENT_TIME, in_background: MAX_SILENT_TIME };

/// Maximum time of a count. A tenant that has more than can be counted in this time stays refused.
const COUNT_TIMEOUT: Duration = Duration::from_secs(20);

/// Outcome of taking from an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOutcome {
    /// It was taken.
    Taken,
    /// The tenant has reached its maximum. It may have room after this time.
    Full { retry_after: Millis },
    /// The amount is larger than the maximum.
    TooLarge,
}

/// The allowances of all tenants. Clones share the tabs.
#[derive(Clone)]
pub struct Allowances {
    items: Items,
    tabs: Arc<Mutex<HashMap<String, Arc<SharedTab>>>>,
    clock: Clock,
    clock_skew: ClockSkew,
}

/// A tab of this process.
#[derive(Default)]
struct SharedTab {
    tab: AsyncMutex<Tab>,
    progress: Mutex<TabProgress>,
}

/// What the holders of a tab have met.
#[derive(Debug, Clone, Copy, Default)]
struct TabProgress {
    /// When a store last answered a holder.
    answered_at: Option<Instant>,
    /// Whether the holder counts what the tenant has, which may take long.
    is_counting: bool,
    /// Time for which the holders so far waited for stores that did not answer.
    silent: Duration,
}

impl SharedTab {
    /// Locks the tab. Waits for as long as the stores answer its holders. The time for which they
    /// did not answer uses up the patience of the caller.
    ///
    /// # Errors
    /// Returns an error if the ledger does not answer the holder.
    async fn lock(&self, limits: TimeLimits) -> Result<MutexGuard<'_, Tab>, OutOfTime> {
        let (started, silent_before) = (Instant::now(), self.progress().silent);
        let progressed_at = || {
            let TabProgress { answered_at, is_counting, .. } = *self.progress();
            if is_counting { Some(Instant::now()) } else { answered_at }
        };
        let tab = limits.apply_while(self.tab.lock(), progressed_at).await?;
        self.progress().is_counting = false;
        if let Some(patience) = Patience::current() {
            patience.use_up((self.progress().silent - silent_before).min(started.elapsed()));
        }
        Ok(tab)
    }

    /// Records whether the operation of the holder that began at `began` was answered.
    fn record(&self, began: Instant, is_answered: bool) {
        let mut progress = self.progress();
        match is_answered {
            true => progress.answered_at = Some(Instant::now()),
            false => progress.silent += began.elapsed(),
        }
    }

    fn progress(&self) -> SyncMutexGuard<'_, TabProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowances {
    /// The allowances in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock, clock_skew: ClockSkew) -> Self {
        Self { items: Items::new(client, table), tabs: Arc::default(), clock, clock_skew }
    }

    /// Takes `amount` of what `tenant` may have. If the tenant has reached its maximum or the last
    /// count is old, `count` says how much it really holds.
    ///
    /// # Errors
    /// Returns an error if the ledger is unavailable, unless `of` is for other requests.
    pub async fn take(
        &self,
        tenant: &Tenant,
        of: Allowance,
        amount: u64,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<TakeOutcome, LedgerError> {
        let key = key(&tenant.name, of);
        match self.take_from(&key, of, amount, tenant.max(of), count).await {
            Err(error) if of == Allowance::OtherRequests => {
                warn!(key, %error, "failed to write an allowance; the request is admitted");
                Ok(TakeOutcome::Taken)
            }
            taken => Ok(taken?),
        }
    }

    async fn take_from(
        &self,
        key: &str,
        of: Allowance,
        amount: u64,
        max: u64,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<TakeOutcome, StoreError> {
        if amount > max {
            return Ok(TakeOutcome::TooLarge);
        }
        let shared = self.tab(key);
        // Held during the write, so that no request of this process is admitted beside a refusal.
        let mut tab = shared.lock(limits(of)).await?;
        let now = self.clock.now();
        if let Some(retry_after) = tab.refusal(amount, now) {
            return Ok(TakeOutcome::Full { retry_after });
        }
        let Some(sum) = tab.put(amount, of.max_tab(max), now) else { return Ok(TakeOutcome::Taken) };
        let count = async {
            shared.progress().is_counting = true;
            let began = Instant::now();
            let counted = count.await;
            shared.record(began, counted.is_ok());
            counted
        };
        let began = Instant::now();
        let written = Box::pin(self.write(key, of, sum, max, count)).await;
        shared.record(began, written.is_ok());
        Ok(match written? {
            Some(until) => {
                tab.refuse(amount, until);
                TakeOutcome::Full { retry_after: until - self.clock.now() }
            }
            None => {
                tab.clear();
                TakeOutcome::Taken
            }
        })
    }

    /// Takes `sum`. Returns the time of the next try if there is no room.
    async fn write(
        &self,
        key: &str,
        of: Allowance,
        sum: u64,
        max: u64,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<Option<UnixMs>, StoreError> {
        // A count that began in the future would be repeated too late.
        self.clock_skew.check()?;
        let mut count = Some(count);
        loop {
            let now = self.clock.now();
            let Some(take) = allowance::take(of, sum, max, now) else { return Ok(Some(now + BUSY_PAUSE)) };
            let image = match limits(of).apply(self.items.update(key, &take, NonceAttribute::Added)).await?? {
                UpdateOutcome::Done(_) => return Ok(None),
                UpdateOutcome::Busy => return Ok(Some(now + BUSY_PAUSE)),
                UpdateOutcome::Refused(image) => image,
            };
            let next_count_at = of.next_count_at(&image);
            match count.take() {
                Some(count) if next_count_at <= now => Box::pin(self.recount(key, of, count)).await?,
                _ => return Ok(Some(next_count_at.max(now + BUSY_PAUSE))),
            }
        }
    }

    /// Replaces what the tenant holds by `count`, unless another process counts or has counted
    /// shortly before. If `count` fails, what the tenant holds stays.
    async fn recount(
        &self,
        key: &str,
        of: Allowance,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<(), StoreError> {
        let begin = allowance::begin_count(of, self.clock.now());
        let begun = match limits(of).apply(self.items.update(key, &begin, NonceAttribute::Added)).await?? {
            UpdateOutcome::Done(begun) if of != Allowance::OtherRequests => begun,
            _ => return Ok(()),
        };
        let timed_out = || StoreError::Unavailable(format!("it takes longer than {COUNT_TIMEOUT:?}"));
        match tokio::time::timeout(COUNT_TIMEOUT, count).await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(counted) => {
                let end = allowance::end_count(&begun, counted);
                limits(of).apply(self.items.update(key, &end, NonceAttribute::Added)).await?.map(drop)
            }
            Err(error) => {
                warn!(key, %error, "failed to count what a tenant holds");
                Ok(())
            }
        }
    }

    fn tab(&self, key: &str) -> Arc<SharedTab> {
        let mut tabs = self.tabs.lock().unwrap_or_else(PoisonError::into_inner);
        match tabs.get(key) {
            Some(tab) => Arc::clone(tab),
            None => Arc::clone(tabs.entry(key.to_owned()).or_default()),
        }
    }
}

fn limits(of: Allowance) -> TimeLimits {
    match of {
        Allowance::OtherRequests => OTHER_REQUESTS_LIMITS,
        Allowance::WaitingJobs | Allowance::StoredBytes => WRITE_LIMITS,
    }
}

fn key(tenant: &str, of: Allowance) -> String {
    format!("A#{tenant}#{}", of.name())
}
