//! The reasons why the pools did not take a request, and the problem that follows from them.

use crate::{
    broker::{ModelRequest, estimate, outages::MetOutage, problems},
    outage::Outage,
    pool::{Model, Pool},
    problem::{BedrockErrorCode, Problem, SkippedPool, SkippedPools},
    units::{Millis, UnixMs},
};

/// What a request met on the ladder.
#[derive(Debug, Default)]
pub struct Trace {
    /// Number of pools that were called.
    pub calls: u32,
    /// The pools that did not answer, in the order in which they were tried.
    pub skipped: SkippedPools,
    /// Number of calls that were passed on to the next pool although they may be billed.
    pub late_calls: u64,
    /// The last outage that began with a call of this request.
    pub outage: Option<MetOutage>,
}

impl Trace {
    /// Starts with the pools that the tenant of the request may not use.
    pub(super) fn new(model: &Model) -> Self {
        let skipped = SkippedPools { pools: model.withheld.clone(), is_whole_ladder: false };
        Self { skipped, ..Self::default() }
    }

    /// Notes that `pool` was not called, for this reason in one word.
    pub(super) fn skip(&mut self, pool: &Pool, reason: &'static str) {
        self.skipped.pools.push(SkippedPool::passed_over(&pool.name, reason));
    }

    /// Notes that the call of `pool` failed, for this reason in one word, and the error that
    /// Bedrock named.
    pub(super) fn fail(&mut self, pool: &Pool, reason: &'static str, error: Option<BedrockErrorCode>) {
        self.skipped.pools.push(SkippedPool { error, is_called: true, ..SkippedPool::passed_over(&pool.name, reason) });
    }
}

/// The reasons why the pools so far did not take the request.
#[derive(Default)]
pub(super) struct Obstacles {
    /// Time until the first full pool has room.
    pub(super) min_retry_after: Option<Millis>,
    pub(super) unavailable: Option<Problem>,
    pub(super) denied: Option<Problem>,
    /// End of the first outage.
    outage_ends: Option<UnixMs>,
}

impl Obstacles {
    pub(super) fn add_full(&mut self, retry_after: Millis) {
        self.min_retry_after = Some(self.min_retry_after.map_or(retry_after, |min| min.min(retry_after)));
    }

    pub(super) fn add_outage(&mut self, outage: Outage) {
        self.outage_ends = Some(self.outage_ends.map_or(outage.until, |ends| ends.min(outage.until)));
    }

    pub(super) fn into_problem(self, request: &ModelRequest, now: UnixMs) -> Problem {
        let model = &request.model.name;
        if let Some(retry_after) = self.min_retry_after {
            return problems::pools_full(model, retry_after);
        }
        if let Some(problem) = self.unavailable {
            return Problem { retry_after: Some(problems::THROTTLED_RETRY_AFTER), ..problem };
        }
        if let Some(ends) = self.outage_ends {
            return self.denied.unwrap_or_else(|| problems::pools_out(model, ends - now));
        }
        self.denied.unwrap_or_else(|| problems::larger_than_every_pool(model, estimate::calls(request)))
    }
}
