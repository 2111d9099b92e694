//! Allowances: limits of a tenant for what calls no model. They protect what tenants share.
//!
//! The ledger has one item for each tenant and allowance, with two numbers: what the tenant holds,
//! and when that was last counted. Taking adds to the first number, and nothing subtracts from it.
//! Once it reaches the maximum, the truth is counted and replaces what was held when the count
//! began. So the end of a job or the deletion of a file costs no write. Requests are counted in
//! minutes: at the end of each minute, the truth is zero.
//!
//! A process takes small amounts on a [`Tab`], which it writes to the item as one sum.

use super::{Attribute, Condition, Image, Update, Write, reserve::signed};
use crate::units::{Millis, UnixMs};

/// What a limit of a tenant counts beside calls of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allowance {
    /// Jobs that wait, lines of batches included.
    WaitingJobs,
    /// Bytes in the bucket.
    StoredBytes,
    /// Requests that call no model, in a minute.
    OtherRequests,
}

/// Size that a smaller object in the bucket counts as, because small objects cost as much to write
/// and to list as large ones.
pub const MIN_OBJECT_BYTES: u64 = 128 * 1024;

/// Time after which a tab is written with the next request, whatever is on it.
const MAX_TAB_AGE: Millis = Millis::from_s(60);

impl Allowance {
    /// All allowances, in the order in which callers and operators see them.
    pub const ALL: [Self; 3] = [Self::WaitingJobs, Self::StoredBytes, Self::OtherRequests];

    /// Returns the name that callers and operators see, which is also the name in the registry.
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitingJobs => "max_waiting_jobs",
            Self::StoredBytes => "max_stored_bytes",
            Self::OtherRequests => "other_requests_per_minute",
        }
    }

    /// Returns the maximum of a tenant that sets none. The largest batches of OpenAI's API have
    /// 50,000 lines, and 16 workers that poll each second send 960 requests a minute.
    pub fn default_max(self) -> u64 {
        match self {
            Self::WaitingJobs => 100_000,
            Self::StoredBytes => 100 * 1024 * 1024 * 1024,
            Self::OtherRequests => 6_000,
        }
    }

    /// Returns the maximum on a tab, the next request included. Each process can exceed the limit
    /// `max` by what is on its tab.
    pub fn max_tab(self, max: u64) -> u64 {
        match self {
            Self::WaitingJobs => (max / 2_000).clamp(1, 50),
            Self::StoredBytes => 1,
            Self::OtherRequests => (max / 300).clamp(1, 20),
        }
    }

    /// Returns the minimum time between two counts. For requests it is their minute, which starts
    /// with the first request after the last minute.
    fn count_pause(self) -> Millis {
        match self {
            Self::WaitingJobs | Self::StoredBytes => Millis::from_s(10),
            Self::OtherRequests => Millis::from_s(60),
        }
    }

    /// Returns the age at which a count is repeated although there is room. What is stored without
    /// being taken, such as answers, counts from the next count on.
    fn max_count_age(self) -> Millis {
        match self {
            Self::WaitingJobs | Self::StoredBytes => Millis::from_s(60 * 60),
            Self::OtherRequests => self.count_pause(),
        }
    }

    /// Returns the time from which the next count may begin.
    pub fn next_count_at(self, image: &Image) -> UnixMs {
        UnixMs::from_ms(image.get(Attribute::CountedAt)) + self.count_pause()
    }

    /// Returns the number in the stored log of refusals.
    pub(super) fn log_number(self) -> u64 {
        match self {
            Self::WaitingJobs => 6,
            Self::StoredBytes => 7,
            Self::OtherRequests => 8,
        }
    }
}

/// What a process has admitted and not yet written to the item of its tenant and allowance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tab {
    amount: u64,
    since: UnixMs,
    refused: Option<RefusedAmount>,
}

/// The last refusal. It holds for this amount and larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RefusedAmount {
    amount: u64,
    until: UnixMs,
}

impl Tab {
    /// Returns the time until `amount` can fit, if it was refused before.
    pub fn refusal(&self, amount: u64, now: UnixMs) -> Option<Millis> {
        let refused = self.refused.filter(|refused| amount >= refused.amount && now < refused.until)?;
        Some(refused.until - now)
    }

    /// Returns the sum to write before `amount` is admitted, or puts `amount` on the tab.
    pub fn put(&mut self, amount: u64, max_tab: u64, now: UnixMs) -> Option<u64> {
        let sum = self.amount.saturating_add(amount);
        if sum >= max_tab || (self.amount > 0 && now - self.since >= MAX_TAB_AGE) {
            return Some(sum);
        }
        if self.amount == 0 {
            self.since = now;
        }
        self.amount = sum;
        None
    }

    /// Clears the tab, because its sum is written.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Notes that `amount` does not fit before `until`. What is on the tab stays there.
    pub fn refuse(&mut self, amount: u64, until: UnixMs) {
        self.refused = Some(RefusedAmount { amount, until });
    }
}

/// Returns the write that takes `amount`. It is refused if the tenant would then hold more than
/// `max`, or if the last count is old. Returns `None` if `amount` alone is more.
pub fn take(of: Allowance, amount: u64, max: u64, now: UnixMs) -> Option<Write> {
    let room = max.checked_sub(amount)?;
    let oldest_count = (now - of.max_count_age()).as_ms() + 1;
    Some(Write {
        conditions: vec![
            Condition::AtLeast(Attribute::CountedAt, oldest_count),
            Condition::AtMost(Attribute::Held, room),
        ],
        updates: vec![Update::Add(Attribute::Held, signed(amount))],
    })
}

/// Returns the write that begins a count. It is refused if another count began shortly before. The
/// new item shows what [`end_count`] replaces. A count of requests ends at once.
pub fn begin_count(of: Allowance, now: UnixMs) -> Write {
    let mut updates = vec![Update::Set(Attribute::CountedAt, now.as_ms())];
    if of == Allowance::OtherRequests {
        updates.push(Update::Set(Attribute::Held, 0));
    }
    Write { conditions: vec![Condition::AtMost(Attribute::CountedAt, (now - of.count_pause()).as_ms())], updates }
}

/// Returns the write that replaces what was held in `begun`, the item after [`begin_count`], by
/// `counted`. What was taken during the count stays. It is refused if another count has begun.
pub fn end_count(begun: &Image, counted: u64) -> Write {
    Write {
        conditions: vec![Condition::Equals(Attribute::CountedAt, begun.get(Attribute::CountedAt))],
        updates: vec![Update::Add(Attribute::Held, signed(counted) - signed(begun.get(Attribute::Held)))],
    }
}

#[cfg(test)]
mod tests;
