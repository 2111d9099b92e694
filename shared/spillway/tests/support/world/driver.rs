//! The processes. They reserve and settle in memory as `store::ledger` does in DynamoDB.

use spillway::{
    quota::{
        Attribute, Charge, Condition, Image, Policy, Reservation, Settled, Update, Verdict, Write, explain, reserve,
        settle, settle_reaped, too_large,
    },
    units::UnixMs,
};

use super::{
    Mutant,
    judge::{Admission, Judge},
    program::{Ask, Ending, Plan, Program, START_MS, Step},
};

/// Maximum number of attempts at a write while other processes interfere, as in the product.
const MAX_ATTEMPTS: usize = 4;

/// Maximum number of items of an account.
const MAX_ITEMS: usize = 4;

/// One write, its outcome, and the item after it.
pub struct Traced {
    pub shard: usize,
    pub write: Write,
    pub is_done: bool,
    pub image: Image,
}

struct Running {
    process: usize,
    shard: usize,
    reservation: Reservation,
    /// Position in the judge's list.
    index: usize,
}

/// A request that is about to free a slot.
struct Freeing {
    process: usize,
    shard: usize,
    ask: Ask,
    reap: (u64, u64),
}

pub struct World {
    pub(super) mutant: Option<Mutant>,
    now_ms: u64,
    skews_ms: [i64; 3],
    /// Limits in the registry, by version - 1.
    pub(super) plans: Vec<Plan>,
    /// Version that each process knows.
    pub(super) known: [u64; 3],
    running: Vec<Running>,
    freeing: Vec<Freeing>,
    pub items: Vec<Image>,
    pub judge: Judge,
    /// All writes so far, if they are recorded.
    pub trace: Option<Vec<Traced>>,
    /// Number of admitted requests.
    pub admitted: usize,
    /// Number of requests that were refused by all items that they tried.
    pub refused: usize,
    /// Number of freed slots.
    pub reaped: usize,
}

impl World {
    pub fn new(program: &Program, mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            now_ms: START_MS,
            skews_ms: program.skews_ms,
            plans: vec![program.plan.clone()],
            known: [1; 3],
            running: Vec::new(),
            freeing: Vec::new(),
            items: vec![Image::default(); MAX_ITEMS],
            judge: Judge::default(),
            trace: None,
            admitted: 0,
            refused: 0,
            reaped: 0,
        }
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Reserve { process, draw, asks } => self.reserve(*process, *draw, asks.clone(), false),
            Step::Hesitate { process, draw, ask } => self.reserve(*process, *draw, vec![ask.clone()], true),
            Step::Free { which } => {
                if let Some(Freeing { process, shard, ask, reap }) = take(&mut self.freeing, *which) {
                    self.round(process, shard, vec![ask], Some(reap), false);
                }
            }
            Step::Settle { which, percent, ending } => {
                self.end(*which, *ending, |reserved| scaled(&reserved.in_full(), *percent))
            }
            Step::Undo { which, ending } => self.end(*which, *ending, |_| Charge::default()),
            Step::Die { which } => drop(take(&mut self.running, *which)),
            Step::Wait { ms } => self.now_ms += ms,
            Step::WaitForEdge { off_ms } => self.wait_until((self.now_ms / 5_000 + 1) * 5_000, *off_ms),
            Step::WaitForSlot { off_ms } => self.wait_until((self.now_ms / 15_000 + 1) * 15_000, *off_ms),
            Step::Change { plan, fenced } => self.change(plan, *fenced),
            Step::Reload { process } => self.known[*process] = self.newest(),
        }
    }

    fn wait_until(&mut self, edge_ms: u64, off_ms: i64) {
        self.now_ms = edge_ms.saturating_add_signed(off_ms).max(self.now_ms);
    }

    pub(super) fn clock(&self, process: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.skews_ms[process])
    }

    fn newest(&self) -> u64 {
        self.plans.len() as u64
    }

    /// Returns the limits that a process knows.
    pub(super) fn plan(&self, process: usize) -> &Plan {
        &self.plans[usize::try_from(self.known[process]).expect("small") - 1]
    }

    /// Runs a write on an item. Returns whether its conditions held.
    fn write(&mut self, shard: usize, write: &Write) -> bool {
        let before = self.items[shard].clone();
        let is_done = self.items[shard].apply(write);
        self.judge.refused(is_done || self.items[shard] == before);
        if let Some(trace) = &mut self.trace {
            trace.push(Traced { shard, write: write.clone(), is_done, image: self.items[shard].clone() });
        }
        is_done
    }

    fn change(&mut self, plan: &Plan, fenced: usize) {
        let former = self.plans.last().map_or(1, |plan| plan.shards);
        self.plans.push(plan.clone());
        let version = self.newest();
        let fence = Write {
            conditions: vec![Condition::AtMost(Attribute::Version, version)],
            updates: vec![Update::Set(Attribute::Version, version)],
        };
        let all = usize::try_from(former.max(plan.shards)).expect("small");
        for shard in 0..all.min(fenced) {
            if self.write(shard, &fence) {
                self.judge.note_version(shard, version);
            }
        }
    }

    /// Tries one item and, for the requests that it refuses, another. A process that learns of
    /// newer limits reads them and tries again.
    fn reserve(&mut self, process: usize, draw: (u64, u64), asks: Vec<Ask>, hesitates: bool) {
        let Plan { limits, shards, .. } = *self.plan(process);
        let may_fit = |ask: &Ask| too_large(&limits, &ask.charge.in_full()).is_empty();
        let asks: Vec<Ask> = asks.into_iter().filter(may_fit).collect();
        let first = draw.0 % shards;
        let mut left = self.round(process, index(first), asks, None, hesitates);
        if shards > 1 && !left.is_empty() && self.known[process] == self.newest() {
            let second = (first + 1 + draw.1 % (shards - 1)) % shards;
            left = self.round(process, index(second), left, None, hesitates);
        }
        self.refused += left.len();
    }

    /// Replies to all pending requests for an item, as the product's ledger does. Returns the
    /// requests that were refused.
    fn round(
        &mut self,
        process: usize,
        shard: usize,
        mut waiting: Vec<Ask>,
        mut reap: Option<(u64, u64)>,
        hesitates: bool,
    ) -> Vec<Ask> {
        let (mut seen, mut attempts, mut refused) = (None, 0, Vec::new());
        while !waiting.is_empty() {
            let mut choice = self.choose(process, shard, waiting, seen.as_ref(), reap.take());
            refused.append(&mut choice.refused);
            waiting = choice.rest;
            if !choice.stale.is_empty() {
                self.known[process] = self.newest();
                waiting.splice(0..0, choice.stale);
                seen = None;
                if choice.chosen.is_empty() {
                    continue;
                }
            }
            if let (Some(reap), true, Some((ask, ..))) = (choice.reap, hesitates, choice.chosen.first()) {
                self.freeing.push(Freeing { process, shard, ask: ask.clone(), reap });
                return refused;
            }
            if choice.chosen.is_empty() {
                continue;
            }
            if self.write(shard, &choice.write) {
                self.reaped += usize::from(choice.reap.is_some());
                if choice.only_frees {
                    waiting.splice(0..0, choice.chosen.into_iter().map(|(ask, ..)| ask));
                } else {
                    self.admit(process, shard, choice.chosen);
                }
                (seen, attempts) = (Some(self.items[shard].clone()), 0);
                continue;
            }
            attempts += 1;
            let chosen = choice.chosen.into_iter().map(|(ask, ..)| ask);
            if attempts == MAX_ATTEMPTS {
                refused.extend(chosen);
                (seen, attempts) = (None, 0);
                continue;
            }
            waiting.splice(0..0, chosen);
            seen = Some(self.items[shard].clone());
        }
        refused
    }

    fn admit(&mut self, process: usize, shard: usize, chosen: Vec<(Ask, Policy, Reservation)>) {
        self.admitted += chosen.len();
        let (plan, version) = (self.plan(process).clone(), self.known[process]);
        let all: Vec<Policy> =
            (0..plan.shards).map(|shard| plan.policy(version, 100).slice(shard, plan.shards)).collect();
        let mut is_first = true;
        for (ask, _, mut reservation) in chosen {
            if std::mem::take(&mut is_first) {
                reservation.note_stale(&self.items[shard]);
            }
            let admission = Admission {
                shard,
                policy: plan.policy(version, ask.share_percent).slice(shard as u64, plan.shards),
                charge: reservation.charge,
                at_ms: reservation.at.as_ms(),
                ends_ms: expires_ms(&ask, reservation.at.as_ms()).saturating_add_signed(-self.skews_ms[process]),
            };
            let index = self.judge.admit(admission, &all, self.now_ms);
            self.running.push(Running { process, shard, reservation, index });
        }
        self.judge.item(shard, &self.items[shard], self.now_ms);
    }

    fn end(&mut self, which: usize, ending: Ending, actual: impl Fn(&Charge) -> Charge) {
        let Some(Running { process, shard, reservation, index }) = take(&mut self.running, which) else { return };
        let now_ms = self.clock(process);
        let settled = Settled { charge: actual(&reservation.charge), ..Settled::default() };
        self.judge.end(index);
        let is_written = match ending {
            Ending::Lost => false,
            Ending::Settled => self.settle(shard, &reservation, &settled, now_ms),
            Ending::Ambiguous => {
                let is_written = self.settle_once(shard, &reservation, &settled, now_ms);
                if self.mutant == Some(Mutant::ResentSettle) {
                    self.settle_once(shard, &reservation, &settled, now_ms);
                }
                is_written
            }
            // The refusal shows that the first attempt took effect, unless the slot may have been
            // reaped: then the product cannot know.
            Ending::SaidRefused => {
                let is_written = self.settle_once(shard, &reservation, &settled, now_ms);
                if is_written && self.mutant == Some(Mutant::HastySettleReaped) {
                    self.write(shard, &settle_reaped(&reservation, &settled, UnixMs::from_ms(now_ms)));
                }
                is_written
            }
        };
        if is_written {
            self.judge.settle(index, settled.charge, now_ms);
        }
        self.judge.item(shard, &self.items[shard], self.now_ms);
    }

    fn settle(&mut self, shard: usize, reservation: &Reservation, settled: &Settled, now_ms: u64) -> bool {
        self.settle_once(shard, reservation, settled, now_ms)
            || reservation.is_dead(UnixMs::from_ms(now_ms)) && {
                let write = settle_reaped(reservation, settled, UnixMs::from_ms(now_ms));
                let write =
                    self.mutant.map_or(write.clone(), |mutant| mutant.spoil_settle(write, reservation, settled));
                self.write(shard, &write)
            }
    }

    fn settle_once(&mut self, shard: usize, reservation: &Reservation, settled: &Settled, now_ms: u64) -> bool {
        let write = settle(reservation, settled, UnixMs::from_ms(now_ms));
        let write = match self.mutant {
            Some(mutant) => mutant.spoil_settle(write, reservation, settled),
            None => write,
        };
        self.write(shard, &write)
    }
}

pub(super) fn expires_ms(ask: &Ask, now_ms: u64) -> u64 {
    let at_ms = now_ms + ask.lives_ms;
    if ask.fills_slot { (at_ms / 15_000 + 1) * 15_000 - 1 } else { at_ms }
}

fn scaled(max: &Charge, percent: u64) -> Charge {
    Charge {
        requests: max.requests,
        minute_tokens: max.minute_tokens * percent / 100,
        day_tokens: max.day_tokens * percent / 100,
        cost_microusd: max.cost_microusd * percent / 100,
        unreserved_tokens: 0,
    }
}

pub(super) fn index(shard: u64) -> usize {
    usize::try_from(shard).expect("small")
}

fn take<T>(items: &mut Vec<T>, which: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(which % items.len()))
}
