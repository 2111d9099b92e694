//! Admission decisions: what a request costs each limit, whether it fits, and when it will fit.
//!
//! The algorithm is called the *staircase*: overlapping fixed windows with a token-bucket cap by
//! age. For every limit per minute, an item holds [`EPOCHS`] overlapping windows. Each window is
//! named after the epoch in which it starts. One write charges a request to all windows that
//! contain the current time, and has a condition on each of them. A window is never reset, because
//! its name goes out of use. Nothing is read first, because the condition is the check. Requests in
//! flight are counted in a ring of slots, named after the epoch in which they expire, so the clock
//! alone frees the slot of a caller that dies.
//!
//! The tokens of a pool that is paid for in advance may carry over ([`Burst::carries_over`]): then
//! they are counted in windows of five minutes, as a token bucket of a minute whose debt is paid
//! back.
//!
//! All functions here are pure. [`reserve`] and [`settle`] produce a [`Write`], and [`explain`]
//! turns the image that a failed write returned into a [`Verdict`]. `store::ledger` compiles a
//! write to one DynamoDB `UpdateItem`; [`Image::apply`] runs the same write in memory.
//! [`Write::then`] joins two writes into one.
//!
//! What right-sizing does not reserve is bounded in [`unreserved`].
//!
//! An account whose limits outgrow one item is spread over [`shards`]. Each shard holds a slice of
//! every limit.

pub mod allowance;
mod audit;
mod burndown;
mod capacity;
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
mod unreserved;
mod write;

use serde::{Deserialize, Serialize};

pub use allowance::Allowance;
pub use audit::{Audit, Drift, Findings, flaws};
pub use burndown::quota_tokens;
pub use capacity::{Capacity, capacity};
pub use caps::{Burst, BurstSettings, MAX_BURST_S, Policy, too_large};
pub use estimate::{InputEstimate, Tokenizer, estimate_input};
pub use explain::{Refusal, RefusedLimit, Verdict, explain};
pub use history::{History, Observation, record};
pub use limit::{Limit, LimitName, Limits, Unit};
pub use period::Period;
pub use reserve::{Reservation, reserve};
pub use settle::{Settled, settle, settle_reaped};
pub use shards::{MAX_SHARDS, shards};
pub use slots::{MAX_CLOCK_SKEW, REAP_MARGIN, free, reapable};
pub use state::{minute_tokens, states};
pub use unreserved::MAX_CALL;
pub use write::{Attribute, Condition, Image, Update, Write};

use crate::units::{Millis, UnixMs};

/// Length of an epoch. With [`EPOCHS`] it is part of the stored schema.
pub const EPOCH: Millis = Millis::from_s(5);

/// Epochs in a window; `EPOCHS * EPOCH` is the minute of "per minute".
pub const EPOCHS: u64 = 12;

/// Length of an epoch if unused tokens carry over ([`Burst::carries_over`]). With [`EPOCHS`] it is
/// part of the stored schema.
pub const CARRY_EPOCH: Millis = Millis::from_s(25);

/// Cost of a request for each limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Requests: the calls of Bedrock, which are one for most requests and several for embeddings;
    /// 0 to refund a whole reservation.
    pub requests: u64,
    /// Quota tokens of the minute.
    pub minute_tokens: u64,
    /// Quota tokens of the day. They differ from the minute's while the two are reserved by
    /// different rules.
    pub day_tokens: u64,
    /// Money, in micro-USD.
    pub cost_microusd: u64,
    /// Quota tokens that the request may use on top, of the minute and of the day. Only a charge
    /// that is reserved has them.
    pub unreserved_tokens: u64,
}

impl Charge {
    /// Nothing.
    pub const ZERO: Self =
        Self { requests: 0, minute_tokens: 0, day_tokens: 0, cost_microusd: 0, unreserved_tokens: 0 };

    /// Returns the most that the request can cost: nothing is unreserved.
    pub fn in_full(self) -> Self {
        Self {
            minute_tokens: self.minute_tokens.saturating_add(self.unreserved_tokens),
            day_tokens: self.day_tokens.saturating_add(self.unreserved_tokens),
            unreserved_tokens: 0,
            ..self
        }
    }

    /// Returns the larger amount for each limit.
    pub fn max(self, charge: Self) -> Self {
        Self {
            requests: self.requests.max(charge.requests),
            minute_tokens: self.minute_tokens.max(charge.minute_tokens),
            day_tokens: self.day_tokens.max(charge.day_tokens),
            cost_microusd: self.cost_microusd.max(charge.cost_microusd),
            unreserved_tokens: self.unreserved_tokens.max(charge.unreserved_tokens),
        }
    }

    /// Returns this charge and the charge of `calls` calls that cost as much as `call` each.
    pub fn with_calls(self, call: Self, calls: u64) -> Self {
        let sum = |amount: u64, each: u64| amount.saturating_add(each.saturating_mul(calls));
        Self {
            requests: sum(self.requests, call.requests),
            minute_tokens: sum(self.minute_tokens, call.minute_tokens),
            day_tokens: sum(self.day_tokens, call.day_tokens),
            cost_microusd: sum(self.cost_microusd, call.cost_microusd),
            unreserved_tokens: sum(self.unreserved_tokens, call.unreserved_tokens),
        }
    }

    /// Returns whether nothing is charged.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

/// Final charge of a request on one account, from which [`Audit`] recomputes the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Time of the reservation. It names the windows, the day and the month.
    pub at: UnixMs,
    /// Charge after the settlement.
    pub charge: Charge,
    /// [`Burst::carries_over`] of the account at that time.
    pub carries_over: bool,
}

/// Charges that remain after a request has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Charge on the tenant.
    pub tenant: Option<Charged>,
    /// Charge on the tenant's parent.
    pub parent: Option<Charged>,
    /// Charge on the pool that answered or failed, if it has limits.
    pub pool: Option<Charged>,
    /// Name of that pool.
    pub pool_name: Option<String>,
}

/// Rule for the tokens to reserve before the output length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReserveRule {
    /// As Bedrock reserves at the start of a call: input and output cap, without burndown. The
    /// settlement may charge more.
    Mirror,
    /// The most that the request can cost: input and output cap × burndown. The settlement never
    /// charges more.
    Conservative,
}

/// Reserve rules of a registry entry. An absent rule takes the default of the entry's kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveSettings {
    /// Rule for the tokens per minute.
    pub tokens_per_minute: Option<ReserveRule>,
    /// Rule for the tokens per day.
    pub tokens_per_day: Option<ReserveRule>,
}

/// State of one limit of a tenant or a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// Value of the limit, in its own unit.
    pub cap: u64,
    /// Amount that is charged or reserved now.
    pub used: u64,
    /// Time until all of `used` is free again.
    pub resets_in: Millis,
}

impl LimitState {
    /// Returns the unused part of the cap.
    pub fn remaining(&self) -> u64 {
        self.cap.saturating_sub(self.used)
    }
}
