//! The judge: a list of all charges, and the state of the items that follows from it.
//!
//! Bound on a minute: take any 60 seconds by the clocks of the writers (any 60 s less twice their
//! skew by the true time), which touch the epochs e₀ to e₁₂. When the last request of e₁ to e₁₂ was
//! admitted on an item, all requests of these epochs were in the window from e₁. So they were at
//! most `cap(12)`, or that request alone. The requests of e₀ were at most `cap(1)`, or one request
//! alone. So 60 s hold at most `max(cap(12), n) + max(cap(1), n)` on each item, where n is the
//! largest request admitted there. For one item that is at most `limit + max(cap(1), n)`. If
//! `is_strict` lowers the caps so that `cap(12) + cap(1) <= limit`, and no request is larger than
//! `cap(1)`, 60 s hold at most the limit. The bound counts the reserve, or the usage if that is
//! less: usage beyond the reserve is debt, which is charged without a condition.
//!
//! If tokens carry over, any 60 seconds begin at most 25 s after a window of five minutes does.
//! When their last request was admitted, that window held at most `carry_cap(85 s)`. So 60 s hold
//! at most `carry_cap(85 s) + n` tokens on each item.
//!
//! Bound on use: a window also holds what its requests use beyond the reserve. The judge takes the
//! most that a request can still use. Usage beyond that is not counted.
//!
//! Changes of limits: the bound holds for the requests of each version of the limits separately. So
//! during a change, a minute holds at most the sum of the old and the new limits.

use std::collections::BTreeMap;

use spillway::quota::{Attribute, CARRY_EPOCH, Charge, EPOCHS, Image, Policy};

use super::{EPOCH_MS, Invariant, MINUTE_MS};

/// Returns the amount that a window of `age` epochs may hold under `limit` with a burst of
/// `burst_s`. It repeats the product's formula, so that the judge is independent of the product.
pub fn cap(policy: &Policy, limit: u64, burst_s: u64, age: u64) -> u64 {
    let (minute_s, epoch_s) = (60, EPOCH_MS / 1_000);
    let whole_s = if policy.burst.is_strict { minute_s + epoch_s + burst_s } else { minute_s };
    limit * (age * epoch_s + burst_s).min(minute_s) * policy.share_percent / (whole_s * 100)
}

/// Returns the amount that a window of five minutes may hold at `age_ms` under a limit on tokens
/// that carry over. It repeats the product's formula.
pub fn carry_cap(policy: &Policy, limit: u64, age_ms: u64) -> u64 {
    let (burst_ms, free_ms, payback_ms) = (policy.burst.tokens_s * 1_000, 225_000, 75_000);
    let late_ms = age_ms.saturating_sub(free_ms);
    let time = (burst_ms + age_ms.min(free_ms)) * payback_ms + late_ms * (payback_ms - burst_ms);
    limit * policy.share_percent * time / (payback_ms * MINUTE_MS * 100)
}

/// Length of an epoch in milliseconds if tokens carry over.
const CARRY_EPOCH_MS: u64 = CARRY_EPOCH.as_ms();

/// An admission.
pub struct Admission {
    pub shard: usize,
    /// Policy that the item had to enforce.
    pub policy: Policy,
    pub charge: Charge,
    /// Time by the clock of its process.
    pub at_ms: u64,
    /// Time when its process gives up, by the true clock.
    pub ends_ms: u64,
}

struct Entry {
    admission: Admission,
    /// Final cost, and the time of the settlement by the clock of its process.
    settled: Option<(Charge, u64)>,
    is_running: bool,
}

/// Returns the number of the day or month of a moment.
type Period = fn(u64) -> u64;

/// Returns the amount that a limit counts.
type Amount = fn(&Charge) -> u64;
const REQUESTS: Amount = |charge| charge.requests;
const TOKENS: Amount = |charge| charge.minute_tokens;

/// Limits per minute, by the number of their kind.
const KINDS: [Amount; 2] = [REQUESTS, TOKENS];

const DAY_TOKENS: Amount = |charge| charge.day_tokens;

/// Maximum duration of a call with its settlement. The program may settle a request later, which
/// the product does not.
const CALL_MS: u64 = 16 * MINUTE_MS;

/// Largest caps and largest request among the admissions on one item under one version of the
/// limits.
#[derive(Default, Clone, Copy)]
struct Peak {
    newest: u64,
    whole: u64,
    request: u64,
}

#[derive(Default)]
pub struct Judge {
    entries: Vec<Entry>,
    /// By limit (0 requests, 1 tokens), version and item.
    peaks: BTreeMap<(usize, u64, usize), Peak>,
    /// Highest version that each item has seen.
    versions: BTreeMap<usize, u64>,
    pub broken: BTreeMap<Invariant, String>,
}

impl Judge {
    fn require(&mut self, holds: bool, invariant: Invariant, why: impl FnOnce() -> String) {
        if !holds {
            self.broken.entry(invariant).or_insert_with(why);
        }
    }

    /// Notes that an item has seen `version`.
    pub fn note_version(&mut self, shard: usize, version: u64) {
        let highest = self.versions.entry(shard).or_default();
        *highest = version.max(*highest);
    }

    /// Judges an admission at the true time `now_ms`. `all` are the policies of all shards under
    /// its version, at a full share. Returns its position in the list.
    pub fn admit(&mut self, admission: Admission, all: &[Policy], now_ms: u64) -> usize {
        let Admission { shard, policy, .. } = admission;
        let highest = self.versions.get(&shard).copied().unwrap_or_default();
        self.require(policy.version >= highest, Invariant::NoStaleAdmission, || {
            format!("{} after {highest}", policy.version)
        });
        self.note_version(shard, policy.version);
        self.windows(&admission, 0);
        self.windows(&admission, 1);
        self.totals(&admission);
        let at_ms = admission.at_ms;
        self.entries.push(Entry { admission, settled: None, is_running: true });
        self.live(shard, &policy, all, now_ms);
        self.minute(0, all, at_ms);
        self.minute(1, all, at_ms);
        self.possible_use(shard, &policy, at_ms);
        self.entries.len() - 1
    }

    fn windows(&mut self, admission: &Admission, kind: usize) {
        let Admission { shard, policy, charge, at_ms, .. } = admission;
        let Some((limit, burst_s, amount)) = per_minute(policy, kind) else { return };
        let epoch_ms = epoch_ms(policy, kind);
        let carries_over = epoch_ms == CARRY_EPOCH_MS;
        for age in 1..=EPOCHS {
            let start = at_ms / epoch_ms + 1 - age;
            let held = self.window(*shard, kind, epoch_ms, start);
            // If tokens carry over, only the requests before this one must keep to the cap.
            let (cap, added) = match carries_over {
                true => (carry_cap(policy, limit, at_ms - start * epoch_ms), 0),
                false => (cap(policy, limit, burst_s, age), amount(charge)),
            };
            let is_within = held + added <= cap || held == 0;
            let why = || format!("{held} + {} of {cap} at age {age}, limit {kind}", amount(charge));
            self.require(is_within, Invariant::WindowWithinCap, why);
        }
        let peak = self.peaks.entry((kind, policy.version, *shard)).or_default();
        if carries_over {
            peak.whole = peak.whole.max(carry_cap(policy, limit, MINUTE_MS + CARRY_EPOCH_MS));
        } else {
            peak.newest = peak.newest.max(cap(policy, limit, burst_s, 1));
            peak.whole = peak.whole.max(cap(policy, limit, burst_s, EPOCHS));
        }
        peak.request = peak.request.max(amount(charge));
    }

    fn totals(&mut self, admission: &Admission) {
        let Admission { shard, policy, charge, at_ms, .. } = admission;
        let of_day: (Amount, Period) = (DAY_TOKENS, day);
        let of_month: (Amount, Period) = (|charge| charge.cost_microusd, month);
        let limits = [policy.limits.tokens_per_day, policy.limits.microusd_per_month];
        for (limit, (amount, period)) in limits.into_iter().zip([of_day, of_month]) {
            let Some(limit) = limit else { continue };
            let same =
                |entry: &&Entry| entry.admission.shard == *shard && period(entry.admission.at_ms) == period(*at_ms);
            let held: u64 = self.entries.iter().filter(same).map(|entry| amount(&entry.total(period))).sum();
            let reserved = |entry: &Entry| amount(&entry.admission.charge).min(amount(&entry.total(period)));
            let alike = |entry: &&Entry| entry.admission.policy.version == policy.version;
            let all: u64 = self.entries.iter().filter(same).filter(alike).map(reserved).sum();
            let cap = limit * policy.share_percent / 100;
            let is_within = (held + amount(charge) <= cap || held == 0) && all + amount(charge) <= limit;
            self.require(is_within, Invariant::TotalWithinLimit, || format!("{held} or {all} of {cap} of {limit}"));
        }
    }

    fn live(&mut self, shard: usize, policy: &Policy, all: &[Policy], now_ms: u64) {
        let is_live = |entry: &&Entry| entry.is_running && entry.admission.ends_ms > now_ms;
        if let Some(limit) = policy.limits.in_flight {
            let live =
                self.entries.iter().filter(is_live).filter(|entry| entry.admission.shard == shard).count() as u64;
            let cap = (limit * policy.share_percent / 100).max(1);
            self.require(live <= cap, Invariant::LiveWithinLimit, || format!("{live} of {cap} on one item"));
        }
        if let Some(limit) = all.iter().map(|policy| policy.limits.in_flight).sum::<Option<u64>>() {
            let alike = |entry: &&Entry| entry.admission.policy.version == policy.version;
            let live = self.entries.iter().filter(is_live).filter(alike).count() as u64;
            self.require(live <= limit, Invariant::LiveWithinLimit, || format!("{live} of {limit} in all"));
        }
    }

    /// Judges all 60 s around the newest admission. The worst of them end with an admission.
    fn minute(&mut self, kind: usize, all: &[Policy], at_ms: u64) {
        let Some(version) = all.first().map(|policy| policy.version) else { return };
        let Some(limit) =
            all.iter().map(|policy| per_minute(policy, kind).map(|(limit, ..)| limit)).sum::<Option<u64>>()
        else {
            return;
        };
        let amount = KINDS[kind];
        let peaks = || self.peaks.iter().filter(|((of, by, _), _)| (*of, *by) == (kind, version)).map(|(_, peak)| peak);
        let bound: u64 = peaks().map(|peak| peak.whole.max(peak.request) + peak.newest.max(peak.request)).sum();
        let is_strict =
            all.iter().all(|policy| policy.burst.is_strict) && peaks().all(|peak| peak.request <= peak.newest);
        let bound = if is_strict { bound.min(limit) } else { bound };
        let of_version = || self.entries.iter().filter(|entry| entry.admission.policy.version == version);
        let ends = || of_version().map(|entry| entry.admission.at_ms).filter(|end_ms| *end_ms >= at_ms);
        let in_minute = |end_ms: u64| {
            let within = |entry: &&Entry| (end_ms - (MINUTE_MS - 1)..=end_ms).contains(&entry.admission.at_ms);
            of_version().filter(within).map(|entry| entry.bounded(amount)).sum::<u64>()
        };
        let max = ends().map(in_minute).max().unwrap_or_default();
        let why = || format!("{max} of {bound}, limit {kind} of {limit}, strict {is_strict}");
        self.require(max <= bound, Invariant::MinuteWithinBound, why);
    }

    /// Judges the most that the windows at `at_ms` will hold once all requests have ended.
    fn possible_use(&mut self, shard: usize, policy: &Policy, at_ms: u64) {
        let (minute, day_limit) = (policy.limits.tokens_per_minute, policy.limits.tokens_per_day);
        let unreserved = minute.unwrap_or(u64::MAX).min(day_limit.map_or(u64::MAX, |limit| limit / 16));
        let alike = |entry: &&Entry| entry.admission.shard == shard && entry.admission.policy.version == policy.version;
        let of_minute = |start: u64| {
            let is_in = |entry: &&Entry| (start..start + EPOCHS).contains(&(entry.admission.at_ms / EPOCH_MS));
            let entries = self.entries.iter().filter(alike).filter(is_in);
            entries.map(|entry| entry.possible(TOKENS, |now_ms| start + EPOCHS > now_ms / EPOCH_MS)).sum::<u64>()
        };
        let of_day = || {
            let today = |entry: &&Entry| day(entry.admission.at_ms) == day(at_ms);
            let entries = self.entries.iter().filter(alike).filter(today);
            let in_time = |entry: &Entry, now_ms: u64| now_ms < entry.admission.at_ms + CALL_MS;
            let possible = |entry: &Entry| match entry.settled {
                None if !in_time(entry, at_ms) => DAY_TOKENS(&entry.admission.charge),
                _ => entry.possible(DAY_TOKENS, |now_ms| in_time(entry, now_ms)),
            };
            entries.map(possible).sum::<u64>()
        };
        let epoch = at_ms / EPOCH_MS;
        let worst_minute = (epoch + 1 - EPOCHS..=epoch).map(of_minute).max().unwrap_or_default();
        let bounds = [
            (minute.filter(|_| !policy.burst.carries_over).map(|limit| limit + unreserved), worst_minute),
            (day_limit.map(|limit| limit + 16 * unreserved), of_day()),
        ];
        for (bound, possible) in bounds {
            let is_within = bound.is_none_or(|bound| possible <= bound);
            self.require(is_within, Invariant::UseWithinTwiceLimit, || format!("{possible} of {bound:?}"));
        }
    }

    /// Notes that the request at `index` has ended, whether its settlement took effect or not.
    pub fn end(&mut self, index: usize) {
        self.entries[index].is_running = false;
    }

    /// Notes the settlement of the request at `index` at `now_ms` by the clock of its process.
    pub fn settle(&mut self, index: usize, actual: Charge, now_ms: u64) {
        self.entries[index].settled = Some((actual, now_ms));
    }

    pub fn refused(&mut self, is_unchanged: bool) {
        self.require(is_unchanged, Invariant::RefusalChangesNothing, || "a refused write changed the item".to_owned());
    }

    /// Judges an item's counters at the true time `now_ms`.
    pub fn item(&mut self, shard: usize, image: &Image, now_ms: u64) {
        let negative = image.iter().find(|(_, value)| *value < 0);
        self.require(negative.is_none(), Invariant::NothingNegative, || format!("{negative:?}"));
        let is_slot = |attribute| matches!(attribute, Attribute::Slot(_));
        let slots: i64 = image.iter().filter(|(attribute, _)| is_slot(*attribute)).map(|(_, value)| value).sum();
        let count = image.iter().find(|(attribute, _)| *attribute == Attribute::InFlight).map_or(0, |(_, value)| value);
        self.require(count == slots, Invariant::CountIsSlots, || format!("{count}, the slots hold {slots}"));
        let epoch = now_ms / EPOCH_MS;
        for start in epoch + 1 - EPOCHS..=epoch {
            let held = (image.get(Attribute::Requests(start)), image.get(Attribute::Tokens(start)));
            let listed = [0, 1].map(|kind| self.window(shard, kind, EPOCH_MS, start)).into();
            let why = || format!("{held:?} for {listed:?} in the window {} epochs old", epoch - start + 1);
            self.require(held == listed, Invariant::CountersAreTheList, why);
        }
        let epoch = now_ms / CARRY_EPOCH_MS;
        for start in epoch + 1 - EPOCHS..=epoch {
            let held = image.get(Attribute::CarriedTokens(start));
            let listed = self.window(shard, 1, CARRY_EPOCH_MS, start);
            let why = || format!("{held} for {listed} in the window of five minutes {} epochs old", epoch - start + 1);
            self.require(held == listed, Invariant::CountersAreTheList, why);
        }
    }

    /// Returns the sum of the list for the window of an item from the epoch `start`. It counts what
    /// was charged to windows with epochs of this length.
    fn window(&self, shard: usize, kind: usize, epoch_ms: u64, start: u64) -> u64 {
        let epochs = start..start + EPOCHS;
        let is_in = |entry: &&Entry| {
            let Admission { shard: of, policy, at_ms, .. } = &entry.admission;
            *of == shard && self::epoch_ms(policy, kind) == epoch_ms && epochs.contains(&(at_ms / epoch_ms))
        };
        self.entries.iter().filter(is_in).map(|entry| KINDS[kind](&entry.in_window(epoch_ms, start))).sum()
    }
}

impl Entry {
    /// Returns the charge in a window. A settlement corrects the windows that are in use by the
    /// clock of its process.
    fn in_window(&self, epoch_ms: u64, start: u64) -> Charge {
        match self.settled {
            Some((actual, now_ms)) if start + EPOCHS > now_ms / epoch_ms => actual,
            _ => self.admission.charge,
        }
    }

    /// Returns the charge in a day or month. A settlement corrects the current and the last day and
    /// month.
    fn total(&self, period: Period) -> Charge {
        match self.settled {
            Some((actual, now_ms)) if period(self.admission.at_ms) + 1 >= period(now_ms) => actual,
            _ => self.admission.charge,
        }
    }

    /// Returns the most that the request has used or can still use. A settlement counts if it is
    /// `corrected` at its time.
    fn possible(&self, amount: Amount, is_corrected: impl Fn(u64) -> bool) -> u64 {
        let max = amount(&self.admission.charge.in_full());
        match self.settled {
            Some((actual, now_ms)) if is_corrected(now_ms) => amount(&actual).min(max),
            Some(_) => amount(&self.admission.charge),
            None => max,
        }
    }

    /// Returns the reserve, or the usage if that is less.
    fn bounded(&self, amount: Amount) -> u64 {
        let reserved = amount(&self.admission.charge);
        self.settled.map_or(reserved, |(actual, _)| amount(&actual).min(reserved))
    }
}

/// Returns the length of the epochs that a kind of limit is counted in.
fn epoch_ms(policy: &Policy, kind: usize) -> u64 {
    if kind == 1 && policy.burst.carries_over { CARRY_EPOCH_MS } else { EPOCH_MS }
}

fn per_minute(policy: &Policy, kind: usize) -> Option<(u64, u64, Amount)> {
    let (limits, burst) = (policy.limits, policy.burst);
    match kind {
        0 => limits.requests_per_minute.map(|limit| (limit, burst.requests_s, REQUESTS)),
        _ => limits.tokens_per_minute.map(|limit| (limit, burst.tokens_s, TOKENS)),
    }
}

fn day(at_ms: u64) -> u64 {
    at_ms / 86_400_000
}

fn month(at_ms: u64) -> u64 {
    let seconds = i64::try_from(at_ms / 1_000).expect("seconds since 1970");
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a date");
    u64::try_from(date.year()).expect("after year 0") * 12 + u64::from(u8::from(date.month()))
}
