//! Usage statistics of the simulator. They depend on nothing that a broker reports.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Throttled,
    Failed,
}

/// Tokens that a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenUsage {
    /// Input tokens, without cached tokens.
    pub input_tokens: u64,
    /// Input tokens that were read from the prompt cache.
    pub cache_read_input_tokens: u64,
    /// Input tokens that were written to the prompt cache.
    pub cache_write_input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Quota tokens: input + cache writes + output × burndown.
    pub quota_tokens: u64,
}

/// Totals of all calls, per model id, and per value of `requestMetadata.tenant`.
#[derive(Debug, Default)]
pub(super) struct Stats {
    total: Totals,
    models: HashMap<String, Totals>,
    tenants: HashMap<String, Totals>,
}

/// Maximum number of model ids and of tenants with separate totals, so that a client that invents
/// ids cannot fill the memory. Calls of further ids count only in the overall total.
const MAX_TOTALS: usize = 10_000;

impl Stats {
    /// Counts a call that was refused before it started.
    pub fn refuse(&mut self, model_id: &str, tenant: Option<&str>, outcome: Outcome) {
        self.update_totals(model_id, tenant, |totals| {
            totals.requests += 1;
            totals.end(outcome);
        });
    }

    /// Counts a call that starts.
    pub fn begin(&mut self, model_id: &str, tenant: Option<&str>) {
        self.update_totals(model_id, tenant, |totals| {
            totals.requests += 1;
            totals.in_flight += 1;
            totals.peak_in_flight = totals.peak_in_flight.max(totals.in_flight);
        });
    }

    /// Counts the end of a call that started at `begun_ms`.
    pub fn finish(&mut self, model_id: &str, tenant: Option<&str>, begun_ms: u64, used: &TokenUsage, outcome: Outcome) {
        self.update_totals(model_id, tenant, |totals| {
            totals.in_flight = totals.in_flight.saturating_sub(1);
            totals.end(outcome);
            totals.add(used);
            totals.minutes.spend(begun_ms, used.quota_tokens);
        });
    }

    /// Counts a client that disconnected before its response was complete. The call continues.
    pub fn count_vanished_client(&mut self, model_id: &str, tenant: Option<&str>) {
        self.update_totals(model_id, tenant, |totals| totals.clients_vanished += 1);
    }

    /// Resets all totals except the number of calls in flight.
    pub fn reset(&mut self) {
        self.total.reset();
        for totals_by_name in [&mut self.models, &mut self.tenants] {
            totals_by_name.values_mut().for_each(Totals::reset);
            totals_by_name.retain(|_, totals| totals.in_flight > 0);
        }
    }

    /// Returns the body of `GET /_sim/stats`.
    pub fn report(&self) -> Report {
        let summaries = |totals_by_name: &HashMap<String, Totals>| {
            totals_by_name.iter().map(|(name, totals)| (name.clone(), totals.summary())).collect()
        };
        Report { total: self.total.summary(), models: summaries(&self.models), tenants: summaries(&self.tenants) }
    }

    fn update_totals(&mut self, model_id: &str, tenant: Option<&str>, mut change: impl FnMut(&mut Totals)) {
        change(&mut self.total);
        if let Some(totals) = totals_for(&mut self.models, model_id) {
            change(totals);
        }
        if let Some(totals) = tenant.and_then(|tenant| totals_for(&mut self.tenants, tenant)) {
            change(totals);
        }
    }
}

fn totals_for<'a>(totals_by_name: &'a mut HashMap<String, Totals>, name: &str) -> Option<&'a mut Totals> {
    if !totals_by_name.contains_key(name) && totals_by_name.len() >= MAX_TOTALS {
        return None;
    }
    Some(totals_by_name.entry(name.to_owned()).or_default())
}

/// Body of `GET /_sim/stats`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    total: Summary,
    models: BTreeMap<String, Summary>,
    tenants: BTreeMap<String, Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    requests: u64,
    succeeded: u64,
    throttled: u64,
    failed: u64,
    clients_vanished: u64,
    input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_write_input_tokens: u64,
    output_tokens: u64,
    quota_tokens: u64,
    in_flight: u64,
    peak_in_flight: u64,
    worst_minute_quota_tokens: u64,
}

#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    succeeded: u64,
    throttled: u64,
    failed: u64,
    clients_vanished: u64,
    used: TokenUsage,
    in_flight: u64,
    peak_in_flight: u64,
    minutes: MinuteUsage,
}

impl Totals {
    fn end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Succeeded => self.succeeded += 1,
            Outcome::Throttled => self.throttled += 1,
            Outcome::Failed => self.failed += 1,
        }
    }

    fn add(&mut self, used: &TokenUsage) {
        self.used.input_tokens += used.input_tokens;
        self.used.cache_read_input_tokens += used.cache_read_input_tokens;
        self.used.cache_write_input_tokens += used.cache_write_input_tokens;
        self.used.output_tokens += used.output_tokens;
        self.used.quota_tokens += used.quota_tokens;
    }

    fn reset(&mut self) {
        let running = self.in_flight;
        *self = Self { requests: running, in_flight: running, peak_in_flight: running, ..Self::default() };
    }

    fn summary(&self) -> Summary {
        Summary {
            requests: self.requests,
            succeeded: self.succeeded,
            throttled: self.throttled,
            failed: self.failed,
            clients_vanished: self.clients_vanished,
            input_tokens: self.used.input_tokens,
            cache_read_input_tokens: self.used.cache_read_input_tokens,
            cache_write_input_tokens: self.used.cache_write_input_tokens,
            output_tokens: self.used.output_tokens,
            quota_tokens: self.used.quota_tokens,
            in_flight: self.in_flight,
            peak_in_flight: self.peak_in_flight,
            worst_minute_quota_tokens: self.minutes.worst_minute(),
        }
    }
}

/// Largest sum of quota tokens in any 60 s. A call counts at the time of its admission, with the
/// tokens that it used in the end. The sum is exact unless a call runs longer than
/// [`RETENTION_MS`], because its minute may then have been pruned.
#[derive(Debug, Default)]
struct MinuteUsage {
    spent: BTreeMap<u64, u64>,
    worst_before: u64,
    prune_length: usize,
}

const MINUTE_MS: u64 = 60_000;
/// Bedrock ends a call after at most an hour.
const RETENTION_MS: u64 = 3_600_000;
const MIN_PRUNE_LENGTH: usize = 50_000;

impl MinuteUsage {
    fn spend(&mut self, at_ms: u64, tokens: u64) {
        *self.spent.entry(at_ms).or_default() += tokens;
        if self.spent.len() > self.prune_length.max(MIN_PRUNE_LENGTH) {
            self.worst_before = self.worst_minute();
            let newest_ms = self.spent.last_key_value().map_or(0, |(at_ms, _)| *at_ms);
            self.spent = self.spent.split_off(&newest_ms.saturating_sub(RETENTION_MS));
            // Twice the remaining length, so that each entry is visited only a constant number of
            // times.
            self.prune_length = 2 * self.spent.len();
        }
    }

    fn worst_minute(&self) -> u64 {
        let mut worst = self.worst_before;
        let mut sum = 0;
        let mut oldest = self.spent.iter().peekable();
        for (at_ms, tokens) in &self.spent {
            sum += tokens;
            while let Some((_, left)) = oldest.next_if(|(from_ms, _)| *from_ms + MINUTE_MS <= *at_ms) {
                sum -= left;
            }
            worst = worst.max(sum);
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_counts_in_the_minute_of_its_admission() {
        let mut minutes = MinuteUsage::default();
        minutes.spend(60_000, 10);
        minutes.spend(0, 5);
        minutes.spend(59_999, 7);
        assert_eq!(minutes.worst_minute(), 17);
    }

    #[test]
    fn a_reset_keeps_the_calls_in_flight() {
        let mut stats = Stats::default();
        stats.begin("a", Some("t"));
        stats.refuse("b", None, Outcome::Throttled);
        stats.reset();
        let report = serde_json::to_value(stats.report()).unwrap();
        assert_eq!(report["total"]["requests"], 1);
        assert_eq!(report["tenants"]["t"]["in_flight"], 1);
        assert!(report["models"].get("b").is_none());
    }

    proptest! {
        #[test]
        fn the_worst_minute_is_the_maximum_over_all_windows(
            calls in prop::collection::vec((0u64..400_000, 0u64..1_000), 0..80),
        ) {
            let mut minutes = MinuteUsage::default();
            for (at_ms, tokens) in &calls {
                minutes.spend(*at_ms, *tokens);
            }
            let naive = calls.iter().map(|(from_ms, _)| {
                calls.iter().filter(|(at_ms, _)| (*from_ms..from_ms + MINUTE_MS).contains(at_ms)).map(|(_, t)| t).sum()
            });
            prop_assert_eq!(minutes.worst_minute(), naive.max().unwrap_or(0u64));
        }
    }
}
