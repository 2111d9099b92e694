//! The simulator's own account of what it served, kept apart from everything that a broker could tell it.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// How one admitted call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Succeeded,
    Throttled,
    Failed,
}

/// What one call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub input_tokens: u64,
    pub cache_read_input_tokens: u64,
    pub cache_write_input_tokens: u64,
    pub output_tokens: u64,
    /// Input + cache writes + output times burndown.
    pub quota_tokens: u64,
}

/// Accounts in total, per model id and per value of `requestMetadata.tenant`.
#[derive(Debug, Default)]
pub(super) struct Stats {
    total: Account,
    models: HashMap<String, Account>,
    tenants: HashMap<String, Account>,
}

/// Accounts kept per kind; a client that makes up ids cannot fill the memory. Further ones count in the total only.
const ACCOUNTS: usize = 10_000;

impl Stats {
    /// Counts a call that was refused before it began.
    pub fn refuse(&mut self, model_id: &str, tenant: Option<&str>, ending: Ending) {
        self.each(model_id, tenant, |account| {
            account.requests += 1;
            account.end(ending);
        });
    }

    /// Counts a call that begins.
    pub fn begin(&mut self, model_id: &str, tenant: Option<&str>) {
        self.each(model_id, tenant, |account| {
            account.requests += 1;
            account.in_flight += 1;
            account.peak_in_flight = account.peak_in_flight.max(account.in_flight);
        });
    }

    /// Counts the end of a call that began at `begun_ms`.
    pub fn finish(&mut self, model_id: &str, tenant: Option<&str>, begun_ms: u64, used: &Use, ending: Ending) {
        self.each(model_id, tenant, |account| {
            account.in_flight = account.in_flight.saturating_sub(1);
            account.end(ending);
            account.add(used);
            account.minutes.spend(begun_ms, used.quota_tokens);
        });
    }

    /// Counts a client that went away before its answer was complete; the call itself goes on.
    pub fn vanish(&mut self, model_id: &str, tenant: Option<&str>) {
        self.each(model_id, tenant, |account| account.clients_vanished += 1);
    }

    /// Forgets everything except the calls that are still running.
    pub fn reset(&mut self) {
        self.total.reset();
        for accounts in [&mut self.models, &mut self.tenants] {
            accounts.values_mut().for_each(Account::reset);
            accounts.retain(|_, account| account.in_flight > 0);
        }
    }

    /// The whole account, as `GET /_sim/stats` shows it.
    pub fn report(&self) -> Report {
        let all = |accounts: &HashMap<String, Account>| {
            accounts.iter().map(|(name, account)| (name.clone(), account.summary())).collect()
        };
        Report { total: self.total.summary(), models: all(&self.models), tenants: all(&self.tenants) }
    }

    fn each(&mut self, model_id: &str, tenant: Option<&str>, mut change: impl FnMut(&mut Account)) {
        change(&mut self.total);
        if let Some(account) = account(&mut self.models, model_id) {
            change(account);
        }
        if let Some(account) = tenant.and_then(|tenant| account(&mut self.tenants, tenant)) {
            change(account);
        }
    }
}

fn account<'a>(accounts: &'a mut HashMap<String, Account>, name: &str) -> Option<&'a mut Account> {
    if !accounts.contains_key(name) && accounts.len() >= ACCOUNTS {
        return None;
    }
    Some(accounts.entry(name.to_owned()).or_default())
}

/// The body of `GET /_sim/stats`.
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
struct Account {
    requests: u64,
    succeeded: u64,
    throttled: u64,
    failed: u64,
    clients_vanished: u64,
    used: Use,
    in_flight: u64,
    peak_in_flight: u64,
    minutes: Minutes,
}

impl Account {
    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::Succeeded => self.succeeded += 1,
            Ending::Throttled => self.throttled += 1,
            Ending::Failed => self.failed += 1,
        }
    }

    fn add(&mut self, used: &Use) {
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
            worst_minute_quota_tokens: self.minutes.worst(),
        }
    }
}

/// The largest sum of quota tokens in any 60 s, each call counted at its admission with what it used in the end.
/// Exact as long as no call runs longer than [`KEPT_MS`], after which its place in the log may be gone.
#[derive(Debug, Default)]
struct Minutes {
    spent: BTreeMap<u64, u64>,
    worst_before: u64,
    prune_at: usize,
}

const MINUTE_MS: u64 = 60_000;
/// Bedrock ends a call after an hour at most.
const KEPT_MS: u64 = 3_600_000;
const PRUNE_AT: usize = 50_000;

impl Minutes {
    fn spend(&mut self, at_ms: u64, tokens: u64) {
        *self.spent.entry(at_ms).or_default() += tokens;
        if self.spent.len() > self.prune_at.max(PRUNE_AT) {
            self.worst_before = self.worst();
            let newest_ms = self.spent.last_key_value().map_or(0, |(at_ms, _)| *at_ms);
            self.spent = self.spent.split_off(&newest_ms.saturating_sub(KEPT_MS));
            // Twice what is left, so that pruning costs each entry only a constant number of visits.
            self.prune_at = 2 * self.spent.len();
        }
    }

    fn worst(&self) -> u64 {
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
    fn a_call_belongs_to_the_minute_of_its_admission() {
        let mut minutes = Minutes::default();
        minutes.spend(60_000, 10);
        minutes.spend(0, 5);
        minutes.spend(59_999, 7);
        assert_eq!(minutes.worst(), 17);
    }

    #[test]
    fn resetting_keeps_the_calls_that_run() {
        let mut stats = Stats::default();
        stats.begin("a", Some("t"));
        stats.refuse("b", None, Ending::Throttled);
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
            let mut minutes = Minutes::default();
            for (at_ms, tokens) in &calls {
                minutes.spend(*at_ms, *tokens);
            }
            let naive = calls.iter().map(|(from_ms, _)| {
                calls.iter().filter(|(at_ms, _)| (*from_ms..from_ms + MINUTE_MS).contains(at_ms)).map(|(_, t)| t).sum()
            });
            prop_assert_eq!(minutes.worst(), naive.max().unwrap_or(0u64));
        }
    }
}
