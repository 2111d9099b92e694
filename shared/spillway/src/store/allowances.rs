//! Allowances of tenants, in the ledger's table: one item for each tenant and allowance, and a tab
//! of this process for each item (`quota::allowance`).
//!
//! If the ledger is unavailable or the clock is off, everything is admitted: allowances bound what
//! a tenant takes from others, and polls and uploads should not stop with the ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_sdk_dynamodb::Client;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use tracing::warn;

use super::{
    StoreError,
    clock_skew::ClockSkew,
    ledger::{
        items::{Items, UpdateOutcome},
        nonce::NonceAttribute,
    },
};
use crate::{
    clock::Clock,
    connections::{MAX_SILENT_TIME, ResendingClient, TimeLimits},
    quota::{
        Allowance,
        allowance::{self, Tab},
    },
    tenant::Tenant,
    units::{Millis, UnixMs},
};

/// Time until the next try if the item accepts no more writes at the moment.
const BUSY_PAUSE: Millis = Millis::from_s(1);

/// Longest time of a write, and of a wait for the write of another request. After that, the request
/// is admitted, so a caller waits less than for other writes.
const WRITE_LIMITS: TimeLimits = TimeLimits { for_caller: Duration::from_secs(1), in_background: MAX_SILENT_TIME };

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
    /// Whether the holder of the tab counts what the tenant has, which may take long.
    is_counting: AtomicBool,
}

impl SharedTab {
    /// Locks the tab. Returns `None` if its holder waits for a store that does not answer.
    async fn lock(&self) -> Option<MutexGuard<'_, Tab>> {
        loop {
            if let Ok(tab) = WRITE_LIMITS.apply(self.tab.lock()).await {
                self.is_counting.store(false, Ordering::Relaxed);
                return Some(tab);
            }
            if !self.is_counting.load(Ordering::Relaxed) {
                return None;
            }
        }
    }
}

impl Allowances {
    /// The allowances in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock, clock_skew: ClockSkew) -> Self {
        Self { items: Items::new(client, table), tabs: Arc::default(), clock, clock_skew }
    }

    /// Takes `amount` of what `tenant` may have. If the tenant has reached its maximum or the last
    /// count is old, `count` says how much it really holds.
    pub async fn take(
        &self,
        tenant: &Tenant,
        of: Allowance,
        amount: u64,
        count: impl Future<Output = Result<u64, StoreError>>,
    ) -> TakeOutcome {
        let (key, max) = (key(&tenant.name, of), tenant.max(of));
        if amount > max {
            return TakeOutcome::TooLarge;
        }
        let shared = self.tab(&key);
        // Held during the write, so that no request of this process is admitted beside a refusal.
        let Some(mut tab) = shared.lock().await else { return TakeOutcome::Taken };
        let now = self.clock.now();
        if let Some(retry_after) = tab.refusal(amount, now) {
            return TakeOutcome::Full { retry_after };
        }
        let Some(sum) = tab.put(amount, of.max_tab(max), now) else { return TakeOutcome::Taken };
        let count = async {
            shared.is_counting.store(true, Ordering::Relaxed);
            count.await
        };
        let written = Box::pin(self.write(&key, of, sum, max, count)).await;
        let full_until = written.unwrap_or_else(|error| {
            warn!(key, %error, "failed to write an allowance; the request is admitted");
            None
        });
        match full_until {
            Some(until) => {
                tab.refuse(amount, until);
                TakeOutcome::Full { retry_after: until - self.clock.now() }
            }
            None => {
                tab.clear();
                TakeOutcome::Taken
            }
        }
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
            let image = match WRITE_LIMITS.apply(self.items.update(key, &take, NonceAttribute::Added)).await?? {
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
        let begun = match WRITE_LIMITS.apply(self.items.update(key, &begin, NonceAttribute::Added)).await?? {
            UpdateOutcome::Done(begun) if of != Allowance::OtherRequests => begun,
            _ => return Ok(()),
        };
        let timed_out = || StoreError::Unavailable(format!("it takes longer than {COUNT_TIMEOUT:?}"));
        match tokio::time::timeout(COUNT_TIMEOUT, count).await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(counted) => {
                let end = allowance::end_count(&begun, counted);
                WRITE_LIMITS.apply(self.items.update(key, &end, NonceAttribute::Added)).await?.map(drop)
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

fn key(tenant: &str, of: Allowance) -> String {
    format!("A#{tenant}#{}", of.name())
}
