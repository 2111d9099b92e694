//! What a scenario showed.

use super::Simulation;
use crate::ledger::{
    books::{Books, Charged},
    load::Kind,
    tally::Tally,
};

/// What a scenario showed, in the span that is measured. Windows are from its very beginning.
#[derive(Debug)]
pub struct Outcome {
    /// The scenario's name.
    pub name: &'static str,
    /// How long was measured, in seconds.
    pub measured_s: f64,
    /// What was counted.
    pub tally: Tally,
    /// What was counted before that.
    pub warm_up: Tally,
    /// The hot tenant and its requests per minute.
    pub hot: Use,
    /// The tenants that are limited by tokens, and these.
    pub token_limited: Use,
    /// The pools and their tokens per minute, in the order of the ladder.
    pub pools: Vec<Use>,
    /// The worst minute of any account, as a part of the most that the algorithm promises for it: `limit + cap(1)`.
    pub worst_of_bound: f64,
    /// How much of the limits on requests in flight was held by the dead, on average.
    pub dead_share: f64,
    /// The longest that a dead request held a slot, in seconds, and how many were freed.
    pub longest_held_s: f64,
    pub freed: usize,
}

/// How one limit per minute was used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// What was charged, as a part of the limit.
    pub utilisation: f64,
    /// The worst true 60 seconds, as a part of the limit.
    pub worst_60_s: f64,
    /// The worst true 10 seconds, as a part of a sixth of the limit.
    pub worst_10_s: f64,
}

impl Simulation {
    /// A slot was freed, whose holder died at `died_us`.
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
        let in_flight: u64 = self.books.iter().filter_map(|books| books.limits.in_flight).sum();
        let (tenants, pools) = self.books.split_at(self.scenario.callers.len());
        let of_kind = |kind: Kind| {
            let callers = self.scenario.callers.iter().zip(tenants);
            callers.filter(move |(caller, _)| caller.kind == kind).map(|(_, books)| books)
        };
        let longest_us = self.measured.held_us.iter().max().copied().unwrap_or(0);
        Outcome {
            name: self.scenario.name,
            measured_s: measured_us / 1e6,
            hot: Use::worst(of_kind(Kind::Hot).map(|books| Use::of_requests(books, warm_us, end_us))),
            token_limited: Use::worst(of_kind(Kind::TokenLimited).map(|books| Use::of_tokens(books, warm_us, end_us))),
            pools: pools.iter().map(|books| Use::of_tokens(books, warm_us, end_us)).collect(),
            worst_of_bound: self.books.iter().map(worst_of_bound).fold(0.0, f64::max),
            dead_share: self.measured.dead_slot_us as f64 / (in_flight.max(1) as f64 * measured_us),
            longest_held_s: longest_us as f64 / 1e6,
            freed: self.measured.held_us.len(),
            tally: self.measured,
            warm_up: self.warm_up,
        }
    }
}

impl Use {
    fn of_requests(books: &Books, from_us: u64, to_us: u64) -> Self {
        let limit = books.limits.requests_per_minute;
        limit.map_or_else(Self::default, |limit| Self::of(books, limit, |one| one.requests, to_us - from_us, from_us))
    }

    fn of_tokens(books: &Books, from_us: u64, to_us: u64) -> Self {
        let limit = books.limits.tokens_per_minute;
        limit.map_or_else(Self::default, |limit| Self::of(books, limit, |one| one.tokens, to_us - from_us, from_us))
    }

    fn of(books: &Books, limit: u64, of: impl Fn(&Charged) -> u64, span_us: u64, from_us: u64) -> Self {
        let limit = limit as f64;
        Self {
            utilisation: books.charged(from_us, &of) as f64 / (limit * span_us as f64 / MINUTE_US as f64),
            worst_60_s: books.worst(MINUTE_US, &of) as f64 / limit,
            worst_10_s: books.worst(MINUTE_US / 6, &of) as f64 / (limit / 6.0),
        }
    }

    /// The mean utilisation of several, and the worst windows of any.
    fn worst(all: impl Iterator<Item = Self>) -> Self {
        let (mut worst, mut count) = (Self::default(), 0.0);
        for one in all {
            worst.utilisation += one.utilisation;
            worst.worst_60_s = worst.worst_60_s.max(one.worst_60_s);
            worst.worst_10_s = worst.worst_10_s.max(one.worst_10_s);
            count += 1.0;
        }
        Self { utilisation: worst.utilisation / f64::max(count, 1.0), ..worst }
    }
}

const MINUTE_US: u64 = 60_000_000;

/// The worst minute of `books` as a part of `limit + cap(1)`, by requests or tokens, whichever is worse.
fn worst_of_bound(books: &Books) -> f64 {
    let part = |limit: Option<u64>, burst_s: u64, of: fn(&Charged) -> u64| {
        let bound = limit? as f64 * (1.0 + (5 + burst_s).min(60) as f64 / 60.0);
        Some(books.worst(MINUTE_US, of) as f64 / bound)
    };
    let requests = part(books.limits.requests_per_minute, books.burst.requests_s, |one| one.requests);
    let tokens = part(books.limits.tokens_per_minute, books.burst.tokens_s, |one| one.tokens);
    requests.unwrap_or(0.0).max(tokens.unwrap_or(0.0))
}
