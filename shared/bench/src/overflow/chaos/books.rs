//! The books: what became of every call that a model was paid for, and whether the ledger says the same. Pure.
//!
//! The simulator bills a call, whoever hears its answer. The ledger's lifetime account holds the tokens that the broker
//! heard of. So the two differ by the calls whose answers nobody heard, and each of those is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use spillway::{
    job::Status,
    quota::{Attribute, Image},
};

use super::{
    evidence::{Call, Evidence, Seen},
    residue,
};
use crate::overflow::watched::Event;

/// Requests and their tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokens {
    pub requests: u64,
    pub input: u64,
    pub output: u64,
}

/// What became of a call that a model began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Its answer is the stored one of its job.
    Stored,
    /// Its answer was given at once.
    AtOnce,
    /// The broker heard its answer, and was killed before it could store it.
    Unstored,
    /// The broker heard its answer, but another one counts, or none could be stored.
    Dropped,
    /// The model broke it off.
    Broken,
    /// The broker gave up on it, and charges the reserve.
    Unheard,
    /// Its broker was killed before it could tell.
    Killed,
    /// Nothing explains it.
    Unexplained,
}

/// The result.
#[derive(Debug, Default)]
pub struct Books {
    /// All calls by their fates.
    pub fates: BTreeMap<Fate, Tokens>,
    /// What the broker told of calls that it heard.
    pub told: Tokens,
    /// What the ledger has settled.
    pub settled: Tokens,
    /// Settlements that the broker was not sure of, and how many of them happened.
    pub uncertain: (u64, u64),
    /// Calls whose broker was killed, and that were settled all the same.
    pub killed_settled: u64,
    /// Tokens of the day that stay charged without any outcome: reservations of killed brokers and unanswered writes.
    pub stays_charged: u64,
    /// Calls of each job: those that a model began, and all.
    pub calls_by_job: BTreeMap<String, (u64, u64)>,
    /// What nothing explains.
    pub unexplained: Vec<String>,
}

/// How long after its call's end a broker may be killed and its settlement not be done, in milliseconds: it may stand behind
/// others of the same account, each of which waits 3 s for an answer that does not come.
const SETTLING_MS: u64 = 15_000;

impl Tokens {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            input: self.input + other.input,
            output: self.output + other.output,
        }
    }

    /// What is left without `other`, if that is a part.
    pub fn minus(self, other: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(other.requests)?,
            input: self.input.checked_sub(other.input)?,
            output: self.output.checked_sub(other.output)?,
        })
    }

    /// Whether it can be a part of `other`.
    pub fn is_within(self, other: Self) -> bool {
        other.minus(self).is_some()
    }
}

/// What is known of one request.
#[derive(Default)]
struct Dossier<'a> {
    calls: Vec<&'a Call>,
    heard: Vec<&'a Event>,
    /// Who told of an attempt that failed without usage and stays charged.
    unheard: Vec<Option<&'a str>>,
}

/// Closes the books over all of `evidence`.
pub fn close(evidence: &Evidence) -> Books {
    let mut dossiers: HashMap<&str, Dossier<'_>> = HashMap::new();
    let mut books = Books::default();
    for call in &evidence.calls {
        let Some(id) = call.request_id.as_deref() else { continue };
        if evidence.jobs.contains_key(id) {
            let count = books.calls_by_job.entry(id.to_owned()).or_default();
            *count = (count.0 + u64::from(call.admitted), count.1 + 1);
        }
        dossiers.entry(id).or_default().calls.extend(call.admitted.then_some(call));
    }
    for event in evidence.said.events.iter().filter(|event| event.tenant_charged_at_ms.is_some()) {
        let dossier = dossiers.entry(&event.request_id).or_default();
        match event.tokens() {
            Some(_) => dossier.heard.push(event),
            None => dossier.unheard.push(event.teller.as_deref()),
        }
    }
    let mut killed: BTreeMap<&str, Vec<Tokens>> = BTreeMap::new();
    for (id, dossier) in dossiers {
        let job = evidence.jobs.get(id);
        for (call, fate) in books.judge(id, dossier, job, &evidence.kills) {
            if let (Fate::Killed, Some(tenant)) = (fate, call.tenant.as_deref()) {
                killed.entry(tenant).or_default().push(call.tokens());
            }
        }
    }
    books.compare_sums(evidence);
    for (tenant, images) in &evidence.ledger {
        books.compare_ledger(tenant, images, evidence, killed.get(tenant.as_str()).map_or(&[], Vec::as_slice));
    }
    books
}

impl Books {
    /// Finds the fate of every call of one request.
    fn judge<'a>(
        &mut self,
        id: &str,
        dossier: Dossier<'a>,
        job: Option<&Seen>,
        kills: &BTreeMap<String, u64>,
    ) -> Vec<(&'a Call, Fate)> {
        let Dossier { mut calls, heard, mut unheard } = dossier;
        let mut fates = Vec::new();
        // The stored answer is one of those that were heard.
        let mut kept = job.filter(|seen| seen.job.status == Status::Succeeded).and_then(|seen| seen.usage);
        let has_answer = kept.is_some();
        for event in heard {
            let Some(tokens) = event.tokens() else { continue };
            // The same request may have run twice; who tells of a call has made it.
            let by_teller = |call: &&Call| call.app == event.teller;
            let whole = calls.iter().position(|call| by_teller(call) && call.succeeded() && call.tokens() == tokens);
            // A stream that broke off may have told its input.
            let is_broken = |call: &&Call| by_teller(call) && !call.succeeded() && call.input_tokens == tokens.input;
            let broken = || calls.iter().position(&is_broken);
            let Some(place) = whole.or_else(broken) else {
                self.unexplained.push(format!("{id}: {tokens:?} were settled, but no call took them"));
                continue;
            };
            let call = calls.remove(place);
            let fate = match (job, call.succeeded()) {
                (_, false) => Fate::Broken,
                (None, true) => Fate::AtOnce,
                (Some(_), true) if kept == Some(tokens) => {
                    kept = None;
                    Fate::Stored
                }
                (Some(_), true) if is_killed(call, kills) => Fate::Unstored,
                (Some(_), true) => Fate::Dropped,
            };
            fates.push((call, fate));
        }
        if has_answer && kept.is_some() {
            self.unexplained.push(format!("{id}: its stored answer took {kept:?}, which no call was heard to take"));
        }
        for call in calls {
            let told = unheard.iter().position(|teller| *teller == call.app.as_deref());
            told.map(|place| unheard.swap_remove(place));
            let fate = match call.succeeded() {
                _ if told.is_some() => {
                    if call.succeeded() {
                        Fate::Unheard
                    } else {
                        Fate::Broken
                    }
                }
                _ if is_killed(call, kills) => Fate::Killed,
                _ => {
                    self.unexplained.push(format!("{id}: nobody tells of {call:?}"));
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

    /// The log against the simulator's own account, and the answers that were given at once.
    fn compare_sums(&mut self, evidence: &Evidence) {
        let mut logged: BTreeMap<&str, Tokens> = BTreeMap::new();
        for call in &evidence.calls {
            let sum = logged.entry(&call.model_id).or_default();
            *sum = sum.plus(call.tokens());
        }
        for (pool, account) in &evidence.simulated {
            let logged = logged.remove(pool.as_str()).unwrap_or_default();
            if logged != *account {
                self.unexplained.push(format!("{pool}: the simulator's log has {logged:?}, its account {account:?}"));
            }
        }
        self.unexplained.extend(logged.keys().map(|pool| format!("{pool}: it has calls, but no account")));
        let at_once = self.fates.get(&Fate::AtOnce).copied().unwrap_or_default();
        let (input, output) = evidence.submitted.answered_tokens;
        let given = Tokens { requests: evidence.submitted.answered, input, output };
        // One whose answer was lost on the way to its client is one more.
        if !given.is_within(at_once) || at_once.requests - given.requests > evidence.submitted.lost {
            self.unexplained.push(format!("clients got {given:?} at once, of {at_once:?}"));
        }
    }

    fn compare_ledger(&mut self, tenant: &str, images: &[Image], evidence: &Evidence, killed: &[Tokens]) {
        let sum = |attribute: Attribute| images.iter().map(|image| image.get(attribute)).sum::<u64>();
        let settled = Tokens {
            requests: sum(Attribute::SettledRequests),
            input: sum(Attribute::SettledInput),
            output: sum(Attribute::SettledOutput),
        };
        let unsettled: BTreeSet<&str> = evidence.said.unsettled.iter().map(String::as_str).collect();
        let (mut certain, mut uncertain, mut day) = (Tokens::default(), Vec::new(), 0);
        for event in evidence.said.events.iter().filter(|event| event.tenant.as_deref() == Some(tenant)) {
            day += event.tenant_charged_day_tokens.unwrap_or(0);
            let Some(tokens) = event.tokens() else { continue };
            self.told = self.told.plus(tokens);
            match unsettled.contains(event.request_id.as_str()) {
                true => uncertain.push(tokens),
                false => certain = certain.plus(tokens),
            }
        }
        self.settled = self.settled.plus(settled);
        let unsure = uncertain.len();
        uncertain.extend(killed);
        match settled.minus(certain).and_then(|rest| residue::find(rest, &uncertain)) {
            Some(chosen) => {
                let happened = chosen.iter().filter(|place| **place < unsure).count();
                self.uncertain = (self.uncertain.0 + unsure as u64, self.uncertain.1 + happened as u64);
                self.killed_settled += (chosen.len() - happened) as u64;
            }
            None => self.unexplained.push(format!(
                "{tenant}: the ledger has settled {settled:?}; {certain:?} are certain, and no choice of {uncertain:?} \
                 makes the rest"
            )),
        }
        let of_days = images.iter().flat_map(Image::iter).filter(|(name, _)| matches!(name, Attribute::Day(_)));
        let charged = u64::try_from(of_days.map(|(_, value)| value).sum::<i64>()).unwrap_or(0);
        match charged.checked_sub(day) {
            Some(more) => self.stays_charged += more,
            None => self.unexplained.push(format!("{tenant}: {charged} tokens of the day are charged, {day} are owed")),
        }
        let flaws = images.iter().flat_map(spillway::quota::flaws);
        self.unexplained.extend(flaws.map(|flaw| format!("{tenant}: {flaw}")));
    }
}

/// Whether the broker of a call was killed while it ran, or before it can have been settled and stored for sure.
fn is_killed(call: &Call, kills: &BTreeMap<String, u64>) -> bool {
    let killed_ms = call.app.as_ref().and_then(|life| kills.get(life));
    killed_ms.is_some_and(|at_ms| (call.begun_ms..call.ended_ms + SETTLING_MS).contains(at_ms))
}

impl Call {
    /// It and its tokens; a call that was refused is a request as well.
    pub fn tokens(&self) -> Tokens {
        Tokens { requests: 1, input: self.input_tokens, output: self.output_tokens }
    }

    fn succeeded(&self) -> bool {
        self.ending == "succeeded"
    }
}

impl Event {
    /// The usage that the broker heard of, if it did.
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
            app: Some("life".into()),
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
            teller: Some("life".into()),
            input_tokens: output_tokens.map(|_| 5),
            output_tokens,
            tenant_charged_at_ms: Some(1),
            tenant_charged_day_tokens: Some(0),
        }
    }

    fn evidence(calls: Vec<Call>, events: Vec<Event>, kills: Vec<u64>) -> Evidence {
        let simulated = calls.iter().fold(Tokens::default(), |sum, call| sum.plus(call.tokens()));
        let simulated = BTreeMap::from([("m".to_owned(), simulated)]);
        let kills = kills.into_iter().map(|at_ms| ("life".to_owned(), at_ms)).collect();
        let mut evidence = Evidence { calls, kills, simulated, ..Evidence::default() };
        evidence.said.events = events;
        evidence.submitted.lost = 10;
        evidence
    }

    fn fates(books: &Books) -> Vec<(Fate, u64)> {
        books.fates.iter().map(|(fate, tokens)| (*fate, tokens.requests)).collect()
    }

    #[test]
    fn each_call_has_the_fate_that_its_events_and_kills_explain() {
        let calls = vec![
            call("heard", "succeeded", (0, 10), 7),
            call("cut", "failed", (0, 10), 3),
            call("slow", "succeeded", (0, 10), 9),
            call("killed", "succeeded", (100, 200), 4),
        ];
        let events = vec![event("heard", Some(7)), event("cut", None), event("slow", None)];
        let books = close(&evidence(calls, events, vec![150]));
        assert!(books.unexplained.is_empty(), "{:?}", books.unexplained);
        assert_eq!(fates(&books), [(Fate::AtOnce, 1), (Fate::Broken, 1), (Fate::Unheard, 1), (Fate::Killed, 1)]);
    }

    #[test]
    fn a_call_of_which_nobody_tells_is_unexplained() {
        let books = close(&evidence(vec![call("a", "succeeded", (100, 200), 4)], vec![], vec![99]));
        assert_eq!(fates(&books), [(Fate::Unexplained, 1)], "killed before it began");
        let mut evidence = evidence(vec![call("a", "succeeded", (100, 200), 4)], vec![], vec![150]);
        evidence.calls[0].app = Some("another life".into());
        let books = close(&evidence);
        assert_eq!(fates(&books), [(Fate::Unexplained, 1)]);
        assert_eq!(books.unexplained.len(), 1);
    }

    #[test]
    fn who_tells_of_a_call_has_made_it() {
        let (mut of_another, own) = (call("a", "succeeded", (100, 200), 4), call("a", "succeeded", (300, 400), 4));
        of_another.app = Some("another life".into());
        let mut evidence = evidence(vec![of_another, own], vec![event("a", Some(4))], vec![]);
        evidence.kills.insert("another life".into(), 150);
        assert_eq!(fates(&close(&evidence)), [(Fate::AtOnce, 1), (Fate::Killed, 1)]);
    }

    #[test]
    fn tokens_that_no_model_produced_are_unexplained() {
        let books = close(&evidence(vec![call("a", "succeeded", (0, 1), 4)], vec![event("a", Some(5))], vec![]));
        assert_eq!(books.unexplained.len(), 2, "{:?}", books.unexplained);
    }

    #[test]
    fn a_simulator_whose_log_is_not_its_account_is_told() {
        let mut evidence = evidence(vec![call("a", "succeeded", (0, 1), 4)], vec![event("a", Some(4))], vec![]);
        evidence.simulated.entry("m".into()).or_default().output += 1;
        assert_eq!(close(&evidence).unexplained.len(), 1);
    }
}
