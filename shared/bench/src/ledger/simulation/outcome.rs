//! Results of a scenario.

use spillway::quota::Burst;

use super::Simulation;
use crate::ledger::{
    accounts::{Charged, SimulatedAccount},
    load::Kind,
    tally::Tally,
};

/// Results of the measured part of a scenario. The worst windows also cover the warm-up.
#[derive(Debug)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: &'static str,
    /// Measured time in seconds.
    pub measured_s: f64,
    /// Counts of the measured part.
    pub tally: Tally,
    /// Counts of the warm-up.
    pub warm_up: Tally,
    /// Use of the hot tenant's requests per minute.
    pub hot: Use,
    /// Use of the token-limited tenants' tokens per minute.
    pub token_limited: Use,
    /// Use of the pools' tokens per minute, in the order of the ladder.
    pub pools: Vec<Use>,
    /// Worst minute of any account, as a share of the bound that the algorithm promises: `limit +
    /// cap(1)`, or what a bucket of a minute and its last request allow if tokens carry over.
    pub worst_of_bound: f64,
    /// Mean share of the limits of requests in flight that dead requests held.
    pub dead_share: f64,
    /// Longest time for which a dead request held a slot, in seconds.
    pub longest_held_s: f64,
    /// Number of freed slots of dead requests.
    pub freed: usize,
}

/// Use of a limit per minute.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// Charges as a share of the limit.
    pub utilisation: f64,
    /// Worst window of a minute, as a share of the limit. Only for tokens.
    pub worst_window: f64,
    /// Worst true 60 seconds, as a share of the limit.
    pub worst_60_s: f64,
    /// Worst true 10 seconds, as a share of a sixth of the limit.
    pub worst_10_s: f64,
}

impl Simulation {
    /// Records that a slot was freed whose holder died at `died_us`.
    pub(super) fn note_recovered(&mut self, died_us: u64) {
        let (now_us, warm_us) = (self.now_us, self.scenario.warm_us());
        let tally = self.tally();
        tally.held_us.push(now_us - died_us);
        tally.dead_slot_us += now_us.saturating_sub(died_us.max(warm_us));
    }

    pub(super) fn into_outcome(mut self) -> Outcome {
        self.now_us = self.scenario.end_us();
        let still_dead: Vec<u64> = self.items.iter().flat_map(|item| item.still_dead()).collect();
        let (end_us, warm_us) = (self.now_us, self.scenario.warm_us());
        self.measured.dead_slot_us += still_dead.iter().map(|died_us| end_us - (*died_us).max(warm_us)).sum::<u64>();
        let measured_us = (end_us - warm_us) as f64;
        let in_flight: u64 = self.accounts.iter().filter_map(|account| account.limits.in_flight).sum();
        let (tenants, pools) = self.accounts.split_at(self.scenario.callers.len());
        let by_kind = |kind: Kind| {
            let callers = self.scenario.callers.iter().zip(tenants);
            callers.filter(move |(caller, _)| caller.kind == kind).map(|(_, account)| account)
        };
        let longest_us = self.measured.held_us.iter().max().copied().unwrap_or(0);
        Outcome {
            name: self.scenario.name,
            measured_s: measured_us / 1e6,
            hot: Use::worst(by_kind(Kind::Hot).map(|account| Use::for_requests(account, warm_us, end_us))),
            token_limited: Use::worst(
                by_kind(Kind::TokenLimited).map(|account| Use::for_tokens(account, warm_us, end_us)),
            ),
            pools: pools.iter().map(|account| Use::for_tokens(account, warm_us, end_us)).collect(),
            worst_of_bound: self.accounts.iter().map(worst_of_bound).fold(0.0, f64::max),
            dead_share: self.measured.dead_slot_us as f64 / (in_flight.max(1) as f64 * measured_us),
            longest_held_s: longest_us as f64 / 1e6,
            freed: self.measured.held_us.len(),
            tally: self.measured,
            warm_up: self.warm_up,
        }
    }
}

impl Use {
    fn for_requests(account: &SimulatedAccount, from_us: u64, to_us: u64) -> Self {
        let limit = account.limits.requests_per_minute;
        limit.map_or_else(Self::default, |limit| {
            Self::measure(account, limit, |charged| charged.requests, to_us - from_us, from_us)
        })
    }

    fn for_tokens(account: &SimulatedAccount, from_us: u64, to_us: u64) -> Self {
        let limit = account.limits.tokens_per_minute;
        limit.map_or_else(Self::default, |limit| {
            let worst_window = account.worst_window() as f64 / limit as f64;
            let tokens = |charged: &Charged| charged.tokens;
            Self { worst_window, ..Self::measure(account, limit, tokens, to_us - from_us, from_us) }
        })
    }

    fn measure(
        account: &SimulatedAccount,
        limit: u64,
        amount: impl Fn(&Charged) -> u64,
        span_us: u64,
        from_us: u64,
    ) -> Self {
        let limit = limit as f64;
        Self {
            utilisation: account.charged(from_us, &amount) as f64 / (limit * span_us as f64 / MINUTE_US as f64),
            worst_window: 0.0,
            worst_60_s: account.worst(MINUTE_US, &amount) as f64 / limit,
            worst_10_s: account.worst(MINUTE_US / 6, &amount) as f64 / (limit / 6.0),
        }
    }

    /// Returns the mean utilisation and the worst windows of several limits.
    fn worst(uses: impl Iterator<Item = Self>) -> Self {
        let (mut worst, mut count) = (Self::default(), 0.0);
        for limit in uses {
            worst.utilisation += limit.utilisation;
            worst.worst_window = worst.worst_window.max(limit.worst_window);
            worst.worst_60_s = worst.worst_60_s.max(limit.worst_60_s);
            worst.worst_10_s = worst.worst_10_s.max(limit.worst_10_s);
            count += 1.0;
        }
        Self { utilisation: worst.utilisation / f64::max(count, 1.0), ..worst }
    }
}

const MINUTE_US: u64 = 60_000_000;

/// Returns the worst minute as a share of the bound that the algorithm promises, for requests or
/// tokens, whichever is worse.
fn worst_of_bound(account: &SimulatedAccount) -> f64 {
    let part = |limit: Option<u64>, bound: &dyn Fn(f64) -> f64, amount: fn(&Charged) -> u64| {
        Some(account.worst(MINUTE_US, amount) as f64 / bound(limit? as f64))
    };
    let Burst { requests_s, tokens_s, carries_over, .. } = account.burst;
    let limit_and_cap_1 = |limit: f64, burst_s: u64| limit * (1.0 + (5 + burst_s).min(60) as f64 / 60.0);
    // A window of five minutes that began up to 25 s before the minute, and the last request.
    let max_tokens = account.charges.iter().map(|charged| charged.tokens).max().unwrap_or_default() as f64;
    let carried = |limit: f64| limit * (85 + tokens_s) as f64 / 60.0 + max_tokens;
    let for_tokens = |limit: f64| if carries_over { carried(limit) } else { limit_and_cap_1(limit, tokens_s) };
    let requests = part(account.limits.requests_per_minute, &|limit| limit_and_cap_1(limit, requests_s), |charged| {
        charged.requests
    });
    let tokens = part(account.limits.tokens_per_minute, &for_tokens, |charged| charged.tokens);
    requests.unwrap_or(0.0).max(tokens.unwrap_or(0.0))
}
