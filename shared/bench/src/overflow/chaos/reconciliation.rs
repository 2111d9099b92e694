//! Reconciliation: finds the fate of every billed call, and compares the ledger with the calls.
//! Pure.
//!
//! The simulator bills a call even if its response reaches no broker. The ledger's settled totals
//! hold the tokens that a broker has received. So they differ by the calls whose responses no
//! broker received, and each of these calls must be explained.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spillway::{
    job::JobStatus,
    quota::{Attribute, Image},
};

use super::{
    evidence::{Call, Evidence, ObservedJob},
    subset_sum,
    tokens::Tokens,
};
use crate::overflow::output::Event;

/// Fate of a call that a model started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Its response is the stored result of its job.
    Stored,
    /// Its response was returned directly.
    Direct,
    /// The broker received its response, and was killed before it stored it.
    NotStored,
    /// The broker received its response, but the job has another result or none.
    Dropped,
    /// The model broke it off.
    BrokenOff,
    /// The broker gave it up and charges the reservation.
    GivenUp,
    /// Its broker was killed before it reported the call.
    Killed,
    /// No evidence explains it.
    Unexplained,
}

/// Result of the reconciliation.
#[derive(Debug, Default)]
pub struct Reconciliation {
    /// Calls by fate.
    pub fates: BTreeMap<Fate, Tokens>,
    /// Tokens of the calls that the brokers reported.
    pub reported: Tokens,
    /// Tokens that the ledger has settled.
    pub settled: Tokens,
    /// Number of settlements with an unknown result, and of these that happened.
    pub uncertain: (u64, u64),
    /// Number of calls that were settled although their broker was killed.
    pub killed_settled: u64,
    /// Tokens of the day that stay charged without an outcome: reservations of killed brokers and
    /// of writes without a response.
    pub stays_charged: u64,
    /// Calls of each job: calls that a model started, and all calls.
    pub calls_by_job: BTreeMap<String, (u64, u64)>,
    /// Unexplained findings.
    pub unexplained: Vec<String>,
}

/// Maximum time from the end of a call to the end of its settlement, in milliseconds. A settlement
/// may wait behind other settlements of the same account, each of which waits 3 s for a response
/// that does not arrive.
const MAX_SETTLING_MS: u64 = 15_000;

/// Evidence of a request.
#[derive(Default)]
struct RequestEvidence<'a> {
    calls: Vec<&'a Call>,
    /// Events with usage.
    reported: Vec<&'a Event>,
    /// Processes that reported an attempt without usage, which stays charged.
    given_up: Vec<Option<&'a str>>,
}

/// Reconciles all of `evidence`.
pub fn reconcile(evidence: &Evidence) -> Reconciliation {
    let mut requests: HashMap<&str, RequestEvidence<'_>> = HashMap::new();
    let mut reconciliation = Reconciliation::default();
    for call in &evidence.calls {
        let Some(id) = call.request_id.as_deref() else { continue };
        if evidence.jobs.contains_key(id) {
            let count = reconciliation.calls_by_job.entry(id.to_owned()).or_default();
            *count = (count.0 + u64::from(call.admitted), count.1 + 1);
        }
        requests.entry(id).or_default().calls.extend(call.admitted.then_some(call));
    }
    for event in evidence.output.events.iter().filter(|event| event.tenant_charged_at_ms.is_some()) {
        let request = requests.entry(&event.request_id).or_default();
        match event.tokens() {
            Some(_) => request.reported.push(event),
            None => request.given_up.push(event.process.as_deref()),
        }
    }
    let mut killed: BTreeMap<&str, Vec<Tokens>> = BTreeMap::new();
    for (id, request) in requests {
        let job = evidence.jobs.get(id);
        for (call, fate) in reconciliation.judge(id, request, job, &evidence.kills) {
            if let (Fate::Killed, Some(tenant)) = (fate, call.tenant.as_deref()) {
                killed.entry(tenant).or_default().push(call.tokens());
            }
        }
    }
    reconciliation.compare_sums(evidence);
    for (tenant, images) in &evidence.ledger {
        reconciliation.compare_ledger(tenant, images, evidence, killed.get(tenant.as_str()).map_or(&[], Vec::as_slice));
    }
    reconciliation
}

impl Reconciliation {
    /// Finds the fate of every call of a request.
    fn judge<'a>(
        &mut self,
        id: &str,
        request: RequestEvidence<'a>,
        job: Option<&ObservedJob>,
        kills: &BTreeMap<String, u64>,
    ) -> Vec<(&'a Call, Fate)> {
        let RequestEvidence { mut calls, reported, mut given_up } = request;
        let mut fates = Vec::new();
        // The stored result comes from one of the reported calls.
        let mut stored =
            job.filter(|observed| observed.job.status == JobStatus::Succeeded).and_then(|observed| observed.usage);
        let has_result = stored.is_some();
        for event in reported {
            let Some(tokens) = event.tokens() else { continue };
            let Some(call) = take_reported(&mut calls, event, tokens) else {
                self.unexplained.push(format!("{id}: {tokens:?} were settled, but no call used them"));
                continue;
            };
            let fate = match (job, call.succeeded()) {
                (_, false) => Fate::BrokenOff,
                (None, true) => Fate::Direct,
                (Some(_), true) if stored == Some(tokens) => {
                    stored = None;
                    Fate::Stored
                }
                (Some(_), true) if is_killed(call, kills) => Fate::NotStored,
                (Some(_), true) => Fate::Dropped,
            };
            fates.push((call, fate));
        }
        if has_result && stored.is_some() {
            self.unexplained.push(format!("{id}: its stored result used {stored:?}, but no call reported that"));
        }
        for call in calls {
            let report = given_up.iter().position(|process| *process == call.app.as_deref());
            report.map(|index| given_up.swap_remove(index));
            let fate = match (report.is_some(), call.succeeded()) {
                (true, true) => Fate::GivenUp,
                (true, false) => Fate::BrokenOff,
                (false, _) if is_killed(call, kills) => Fate::Killed,
                (false, _) => {
                    self.unexplained.push(format!("{id}: no process reported {call:?}"));
                    Fate::Unexplained
                }
            };
            fates.push((call, fate));
        }
        for (call, fate) in &fates {
            let sum = self.fates.entry(*fate).or_default();
            *sum = sum.plus(call.tokens());
        }
        fates
    }

    /// Compares the simulator's log with its totals, and the direct responses with the clients'
    /// counts.
    fn compare_sums(&mut self, evidence: &Evidence) {
        let mut logged: BTreeMap<&str, Tokens> = BTreeMap::new();
        for call in &evidence.calls {
            let sum = logged.entry(&call.model_id).or_default();
            *sum = sum.plus(call.tokens());
        }
        for (pool, total) in &evidence.simulated {
            let logged = logged.remove(pool.as_str()).unwrap_or_default();
            if logged != *total {
                self.unexplained
                    .push(format!("{pool}: the simulator's log has {logged:?}, but its totals are {total:?}"));
            }
        }
        self.unexplained.extend(logged.keys().map(|pool| format!("{pool}: there are calls, but no totals")));
        let direct = self.fates.get(&Fate::Direct).copied().unwrap_or_default();
        let (input, output) = evidence.submitted.answered_tokens;
        let received = Tokens { requests: evidence.submitted.answered, input, output };
        // A response that was lost on the way to its client is missing in the client's count.
        if !received.is_within(direct) || direct.requests - received.requests > evidence.submitted.lost {
            self.unexplained.push(format!("clients received {received:?} directly, of {direct:?}"));
        }
    }

    fn compare_ledger(&mut self, tenant: &str, images: &[Image], evidence: &Evidence, killed: &[Tokens]) {
        let sum = |attribute: Attribute| images.iter().map(|image| image.get(attribute)).sum::<u64>();
        let settled = Tokens {
            requests: sum(Attribute::SettledRequests),
            input: sum(Attribute::SettledInput),
            output: sum(Attribute::SettledOutput),
        };
        let unsettled: BTreeSet<&str> = evidence.output.unsettled.iter().map(String::as_str).collect();
        let (mut certain, mut uncertain, mut day) = (Tokens::default(), Vec::new(), 0);
        for event in evidence.output.events.iter().filter(|event| event.tenant.as_deref() == Some(tenant)) {
            day += event.tenant_charged_day_tokens.unwrap_or(0);
            let Some(tokens) = event.tokens() else { continue };
            self.reported = self.reported.plus(tokens);
            match unsettled.contains(event.request_id.as_str()) {
                true => uncertain.push(tokens),
                false => certain = certain.plus(tokens),
            }
        }
        self.settled = self.settled.plus(settled);
        let unknown = uncertain.len();
        uncertain.extend(killed);
        match settled.minus(certain).and_then(|rest| subset_sum::find(rest, &uncertain)) {
            Some(chosen) => {
                let happened = chosen.iter().filter(|index| **index < unknown).count();
                self.uncertain = (self.uncertain.0 + unknown as u64, self.uncertain.1 + happened as u64);
                self.killed_settled += (chosen.len() - happened) as u64;
            }
            None => self.unexplained.push(format!(
                "{tenant}: the ledger has settled {settled:?}; {certain:?} are certain, and no subset of {uncertain:?} \
                 gives the rest"
            )),
        }
        let days = images.iter().flat_map(Image::iter).filter(|(name, _)| matches!(name, Attribute::Day(_)));
        let charged = u64::try_from(days.map(|(_, value)| value).sum::<i64>()).unwrap_or(0);
        match charged.checked_sub(day) {
            Some(excess) => self.stays_charged += excess,
            None => self
                .unexplained
                .push(format!("{tenant}: {charged} tokens of the day are charged, but the events charge {day}")),
        }
        let flaws = images.iter().flat_map(spillway::quota::flaws);
        self.unexplained.extend(flaws.map(|flaw| format!("{tenant}: {flaw}")));
    }
}

/// Takes the call that `event` reports out of `calls`.
fn take_reported<'a>(calls: &mut Vec<&'a Call>, event: &Event, tokens: Tokens) -> Option<&'a Call> {
    // The same request may have run twice. The process that reports a call has made it.
    let is_same_process = |call: &&Call| call.app == event.process;
    let whole = calls.iter().position(|call| is_same_process(call) && call.succeeded() && call.tokens() == tokens);
    // A stream that broke off may have reported its input tokens.
    let is_broken_off = |call: &&Call| is_same_process(call) && !call.succeeded() && call.input_tokens == tokens.input;
    let index = whole.or_else(|| calls.iter().position(is_broken_off))?;
    Some(calls.remove(index))
}

/// Whether the broker of a call was killed during the call, or before the call was certainly
/// settled and stored.
fn is_killed(call: &Call, kills: &BTreeMap<String, u64>) -> bool {
    let killed_ms = call.app.as_ref().and_then(|process| kills.get(process));
    killed_ms.is_some_and(|at_ms| (call.begun_ms..call.ended_ms + MAX_SETTLING_MS).contains(at_ms))
}

impl Call {
    /// Tokens of the call. A refused call counts as a request too.
    pub fn tokens(&self) -> Tokens {
        Tokens { requests: 1, input: self.input_tokens, output: self.output_tokens }
    }

    fn succeeded(&self) -> bool {
        self.ending == "succeeded"
    }
}

impl Event {
    /// Usage that the broker reported, if any.
    fn tokens(&self) -> Option<Tokens> {
        let (input, output) = self.input_tokens.zip(self.output_tokens)?;
        Some(Tokens { requests: 1, input, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, ending: &str, (begun_ms, ended_ms): (u64, u64), output_tokens: u64) -> Call {
        Call {
            model_id: "m".into(),
            request_id: Some(id.into()),
            tenant: Some("t".into()),
            app: Some("process".into()),
            admitted: true,
            ending: ending.into(),
            begun_ms,
            ended_ms,
            input_tokens: 5,
            output_tokens,
        }
    }

    fn event(id: &str, output_tokens: Option<u64>) -> Event {
        Event {
            request_id: id.into(),
            tenant: Some("t".into()),
            process: Some("process".into()),
            input_tokens: output_tokens.map(|_| 5),
            output_tokens,
            tenant_charged_at_ms: Some(1),
            tenant_charged_day_tokens: Some(0),
        }
    }

    fn evidence(calls: Vec<Call>, events: Vec<Event>, kills: Vec<u64>) -> Evidence {
        let simulated = calls.iter().fold(Tokens::default(), |sum, call| sum.plus(call.tokens()));
        let simulated = BTreeMap::from([("m".to_owned(), simulated)]);
        let kills = kills.into_iter().map(|at_ms| ("process".to_owned(), at_ms)).collect();
        let mut evidence = Evidence { calls, kills, simulated, ..Evidence::default() };
        evidence.output.events = events;
        evidence.submitted.lost = 10;
        evidence
    }

    fn fates(reconciliation: &Reconciliation) -> Vec<(Fate, u64)> {
        reconciliation.fates.iter().map(|(fate, tokens)| (*fate, tokens.requests)).collect()
    }

    #[test]
    fn every_call_has_the_fate_that_its_events_and_kills_explain() {
        let calls = vec![
            call("received", "succeeded", (0, 10), 7),
            call("cut", "failed", (0, 10), 3),
            call("slow", "succeeded", (0, 10), 9),
            call("killed", "succeeded", (100, 200), 4),
        ];
        let events = vec![event("received", Some(7)), event("cut", None), event("slow", None)];
        let reconciliation = reconcile(&evidence(calls, events, vec![150]));
        assert!(reconciliation.unexplained.is_empty(), "{:?}", reconciliation.unexplained);
        assert_eq!(
            fates(&reconciliation),
            [(Fate::Direct, 1), (Fate::BrokenOff, 1), (Fate::GivenUp, 1), (Fate::Killed, 1)]
        );
    }

    #[test]
    fn a_call_that_no_process_reports_is_unexplained() {
        let reconciliation = reconcile(&evidence(vec![call("a", "succeeded", (100, 200), 4)], vec![], vec![99]));
        assert_eq!(fates(&reconciliation), [(Fate::Unexplained, 1)], "killed before it began");
        let mut evidence = evidence(vec![call("a", "succeeded", (100, 200), 4)], vec![], vec![150]);
        evidence.calls[0].app = Some("another process".into());
        let reconciliation = reconcile(&evidence);
        assert_eq!(fates(&reconciliation), [(Fate::Unexplained, 1)]);
        assert_eq!(reconciliation.unexplained.len(), 1);
    }

    #[test]
    fn the_process_that_reports_a_call_has_made_it() {
        let (mut first, second) = (call("a", "succeeded", (100, 200), 4), call("a", "succeeded", (300, 400), 4));
        first.app = Some("another process".into());
        let mut evidence = evidence(vec![first, second], vec![event("a", Some(4))], vec![]);
        evidence.kills.insert("another process".into(), 150);
        assert_eq!(fates(&reconcile(&evidence)), [(Fate::Direct, 1), (Fate::Killed, 1)]);
    }

    #[test]
    fn tokens_that_no_model_produced_are_unexplained() {
        let reconciliation =
            reconcile(&evidence(vec![call("a", "succeeded", (0, 1), 4)], vec![event("a", Some(5))], vec![]));
        assert_eq!(reconciliation.unexplained.len(), 2, "{:?}", reconciliation.unexplained);
    }

    #[test]
    fn a_difference_between_the_simulators_log_and_its_totals_is_reported() {
        let mut evidence = evidence(vec![call("a", "succeeded", (0, 1), 4)], vec![event("a", Some(4))], vec![]);
        evidence.simulated.entry("m".into()).or_default().output += 1;
        assert_eq!(reconcile(&evidence).unexplained.len(), 1);
    }
}
