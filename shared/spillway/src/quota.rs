//! Admission decided: what a request costs each limit, whether it fits, and when it will.
//!
//! The algorithm is the *staircase*: for every limit per minute an item holds `EPOCHS` overlapping windows, each named
//! after the epoch that it starts in. A request charges all windows that contain now, under a condition on each, in one
//! write. No window is ever reset, because its name goes out of use; nothing is read first, because the condition is
//! the check. Requests in flight are counted in a ring of slots, named after the epoch in which they expire, so a
//! caller that dies frees its slot by the clock alone.
//!
//! Everything here is a function of its arguments: [`reserve`] and [`settle`] produce a [`Write`], and
//! [`explain`] turns the image that a failed write returned into a [`Verdict`]. `store::ledger` compiles a write to one
//! DynamoDB `UpdateItem`; [`Image::apply`] runs the same write in memory. [`Write::then`] makes one write of two.
//!
//! An account whose limits outgrow what one item can take is spread over [`shards`]: each holds a slice of every limit.

mod audit;
mod believed;
mod caps;
mod compose;
mod estimate;
mod explain;
mod history;
mod limit;
mod period;
mod reserve;
mod settle;
mod shards;
mod slots;
mod state;
mod write;

use serde::{Deserialize, Serialize};

pub use audit::{Audit, Drift, Findings, flaws};
pub use believed::is_believed;
pub use caps::{Burst, BurstSettings, LONGEST_BURST_S, Policy, too_large};
pub use estimate::{Tokenizer, input_tokens};
pub use explain::{Refusal, RefusedLimit, Verdict, explain};
pub use history::{History, Turnout, record};
pub use limit::{Limit, LimitName, Limits, Unit};
pub use period::Period;
pub use reserve::{Reservation, reserve};
pub use settle::{Settled, settle, settle_reaped};
pub use shards::{MOST_SHARDS, shards};
pub use slots::{MOST_SKEW_MS, REAP_MARGIN_MS, free, reapable};
pub use state::{minute_tokens, states};
pub use write::{Attribute, Condition, Image, Update, Write};

/// Length of an epoch in milliseconds. With [`EPOCHS`] it is part of the stored schema.
pub const EPOCH_MS: u64 = 5_000;

/// Epochs in a window; `EPOCHS * EPOCH_MS` is the minute of "per minute".
pub const EPOCHS: u64 = 12;

/// What a request costs each limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Requests: 1, or 0 to take a reservation back whole.
    pub requests: u64,
    /// Quota tokens of the minute.
    pub minute_tokens: u64,
    /// Quota tokens of the day. They differ from the minute's while the two are reserved by different rules.
    pub day_tokens: u64,
    /// Money, in micro-USD.
    pub cost_microusd: u64,
}

impl Charge {
    /// The larger of the two, limit by limit.
    pub fn dearest(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            minute_tokens: self.minute_tokens.max(other.minute_tokens),
            day_tokens: self.day_tokens.max(other.day_tokens),
            cost_microusd: self.cost_microusd.max(other.cost_microusd),
        }
    }

    /// Whether nothing is charged.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What one account was charged for a request in the end, and when: what [`audit`] recomputes its counters from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// When the reservation was made, in milliseconds since 1970: it names the windows, the day and the month.
    pub at_ms: u64,
    /// What is charged after the settlement.
    pub charge: Charge,
}

/// What a request left charged, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// On its tenant.
    pub tenant: Option<Charged>,
    /// On the tenant's parent.
    pub parent: Option<Charged>,
    /// On the pool that answered or failed, if that has limits.
    pub pool: Option<Charged>,
    /// That pool's name.
    pub pool_name: Option<String>,
}

/// Which tokens are reserved before anyone knows how many there will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReserveRule {
    /// As Bedrock does at the start of a call: input and output cap, without burndown. It may be settled above that.
    Mirror,
    /// The most that it can turn out: output cap times burndown. It is never settled above that.
    Conservative,
}

/// The reserve rules of an entry of the registry; what is absent has the default of its kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveSettings {
    /// For the tokens per minute.
    pub tokens_per_minute: Option<ReserveRule>,
    /// For the tokens per day.
    pub tokens_per_day: Option<ReserveRule>,
}

/// Where one limit stands for one tenant or pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimitState {
    /// Which limit.
    pub limit: Limit,
    /// Its cap, in its own unit.
    pub cap: u64,
    /// How much is charged or reserved now.
    pub used: u64,
    /// When all of what is used now is free again, in milliseconds from now.
    pub reset_ms: u64,
}

impl LimitState {
    /// What is left of the cap.
    pub fn remaining(&self) -> u64 {
        self.cap.saturating_sub(self.used)
    }
}
