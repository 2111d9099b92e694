//! One request, as the broker leads it: its tenant's limits, the pools of the ladder, the call, the settlement.

use std::rc::Rc;

use spillway::quota::{self, Charge, Image, Policy, Reservation, Settled};

use super::{Event, Simulation, settling::Debt};
use crate::ledger::{
    fleet::Fleet,
    load::{Ask, TIMEOUT_MS},
};

/// One request on its way.
pub struct Request {
    pub caller: usize,
    pub process: usize,
    arrived_us: u64,
    ask: Ask,
    pub expires_ms: u64,
    /// Whose books it wants to reserve on: its tenant's, then a pool's.
    pub account: usize,
    pub shard: u64,
    other_shard: Option<u64>,
    /// What the first shard said, once the second is asked.
    first: Option<No>,
    /// Whether it is above its tenant's committed share of the pools.
    is_excess: bool,
    /// Whether it has cost a write.
    wrote: bool,
    tenant: Option<Held>,
    pool: Option<Held>,
    /// Settlements under way.
    settling: u32,
}

/// A reservation and where it was made.
pub struct Held {
    pub account: usize,
    pub shard: u64,
    pub reservation: Reservation,
    /// Its entry in the account's charges.
    pub entry: usize,
}

/// What an item says.
pub enum Answer {
    Reserved(Held, Rc<Image>),
    No(No),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum No {
    Refused,
    Busy,
}

/// The pause before a busy item is asked once more, where there is no other shard to ask.
const BUSY_PAUSE_US: u64 = 25_000;

impl Simulation {
    pub(super) fn arrives(&mut self, caller: usize) {
        let ask = self.next_asks[caller].take().expect("the request that arrives");
        self.expect_next(caller);
        let kind = self.scenario.callers[caller].kind as usize;
        self.tally().offered[kind] += 1;
        let process = self.processes.take(&mut self.chance);
        let request = self.requests.insert(Request {
            caller,
            process,
            arrived_us: self.now_us,
            ask,
            expires_ms: self.clock_ms(process) + TIMEOUT_MS,
            account: caller,
            shard: 0,
            other_shard: None,
            first: None,
            is_excess: false,
            wrote: false,
            tenant: None,
            pool: None,
            settling: 0,
        });
        self.reserve_on(request, caller);
    }

    /// Asks one shard of `account`, drawn at random; it and what follows are what `Ledger::reserve` does.
    fn reserve_on(&mut self, request: usize, account: usize) {
        let shards = self.books[account].shards;
        let first = self.chance.u64(0..shards);
        let other = (shards > 1).then(|| (first + self.chance.u64(1..shards)) % shards);
        let one = self.requests.get_mut(request);
        (one.account, one.shard, one.other_shard, one.first) = (account, first, other, None);
        self.ask_shard(request);
    }

    pub(super) fn ask_shard(&mut self, request: usize) {
        let one = self.requests.get(request);
        let (process, item) = (one.process, self.books[one.account].item(one.shard));
        if self.scenario.remembers_denials {
            let (policy, charge) = self.wants(request);
            let now_ms = self.clock_ms(process);
            let process = self.processes.get(process);
            if process.denial(self.scenario.encoding, item, &policy, &charge, now_ms).is_some() {
                return self.answered(request, Answer::No(No::Refused));
            }
        }
        self.requests.get_mut(request).wrote = true;
        self.enter_reserving(process, item, request);
    }

    /// The policy that `request` asks under, and what it would charge.
    pub(super) fn wants(&self, request: usize) -> (Policy, Charge) {
        let one = self.requests.get(request);
        let policy = self.policy_of(one.account, one.shard, one.is_excess);
        (policy, policy.fit(&charge(one.ask.reserved_tokens())))
    }

    pub(super) fn policy_of(&self, account: usize, shard: u64, is_excess: bool) -> Policy {
        *self.books[account].policy(shard, is_excess && account >= self.scenario.callers.len())
    }

    /// An item has answered `request`.
    pub(super) fn answered(&mut self, request: usize, answer: Answer) {
        let one = self.requests.get_mut(request);
        let no = match answer {
            Answer::Reserved(held, image) => return self.reserved(request, held, &image),
            Answer::No(no) => no,
        };
        match (one.first, one.other_shard) {
            (None, Some(other)) => {
                (one.first, one.shard) = (Some(no), other);
                self.ask_shard(request);
            }
            (None, None) if no == No::Busy => {
                one.first = Some(no);
                self.after(BUSY_PAUSE_US, Event::AsksAgain { request });
            }
            (None, None) => self.no_room(request, no),
            (Some(first), _) => self.no_room(request, if first == No::Refused { first } else { no }),
        }
    }

    fn reserved(&mut self, request: usize, held: Held, image: &Image) {
        let one = self.requests.get(request);
        if one.account >= self.scenario.callers.len() {
            self.requests.get_mut(request).pool = Some(held);
            return self.admitted(request);
        }
        let tenant = &self.scenario.callers[one.caller].tenant;
        let used = quota::minute_tokens(image, self.clock_ms(one.process)) * self.books[one.account].shards;
        let is_excess = tenant.committed_tokens_per_minute.is_some_and(|committed| used > committed);
        let one = self.requests.get_mut(request);
        (one.tenant, one.is_excess) = (Some(held), is_excess);
        if self.scenario.model.is_some() {
            self.reserve_on(request, self.scenario.callers.len());
        } else {
            self.admitted(request);
        }
    }

    fn no_room(&mut self, request: usize, no: No) {
        let one = self.requests.get(request);
        let (account, kind) = (one.account, self.scenario.callers[one.caller].kind as usize);
        if account < self.scenario.callers.len() {
            let from_memory = u64::from(!one.wrote);
            let tally = self.tally();
            match no {
                No::Refused => tally.refused[kind] += 1,
                No::Busy => tally.busy += 1,
            }
            tally.from_memory += from_memory;
            return self.ends(request);
        }
        if account + 1 < self.books.len() {
            return self.reserve_on(request, account + 1);
        }
        self.tally().overflowed[kind] += 1;
        let held = self.requests.get_mut(request).tenant.take();
        self.settle(request, held.into_iter().collect(), Settled::nothing());
    }

    fn admitted(&mut self, request: usize) {
        let one = self.requests.get(request);
        let (kind, service_us) = (self.scenario.callers[one.caller].kind as usize, one.ask.service_us);
        let waited_us = self.now_us - one.arrived_us;
        let tally = self.tally();
        tally.admitted[kind] += 1;
        tally.admit_us.saturating_record(waited_us);
        self.after(service_us, Event::Served { request });
    }

    pub(super) fn served(&mut self, request: usize) {
        let one = self.requests.get_mut(request);
        let held: Vec<Held> = [one.tenant.take(), one.pool.take()].into_iter().flatten().collect();
        if one.ask.dies {
            return self.dies(request, held);
        }
        let usage = one.ask.usage();
        let charge = charge(usage.input_tokens + usage.output_tokens);
        self.settle(request, held, Settled { charge, usage: Some(usage), regained_tokens: 0 });
    }

    /// Whoever served `request` is gone: nobody settles what it held, and no instance comes back.
    fn dies(&mut self, request: usize, held: Vec<Held>) {
        let request = self.requests.remove(request);
        for held in held {
            let books = &self.books[held.account];
            if books.limits.in_flight.is_some() {
                self.items[books.item(held.shard)].died(held.reservation.slot, self.now_us);
            }
        }
        if let Fleet::Processes(_) = self.scenario.fleet {
            self.processes.give_back(request.process);
        }
    }

    fn settle(&mut self, request: usize, held: Vec<Held>, settled: Settled) {
        self.requests.get_mut(request).settling = held.len() as u32;
        for held in held {
            self.enter_settling(Debt { request, held, settled });
        }
    }

    /// One of the settlements of `request` is over.
    pub(super) fn settlement_ends(&mut self, request: usize) {
        let one = self.requests.get_mut(request);
        one.settling -= 1;
        if one.settling == 0 {
            self.ends(request);
        }
    }

    fn ends(&mut self, request: usize) {
        let request = self.requests.remove(request);
        self.processes.give_back(request.process);
    }
}

fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: 0 }
}
