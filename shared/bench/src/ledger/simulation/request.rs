//! The steps of a request in the broker: the limits of its tenant, the pools of the ladder, the
//! call, the settlement.

use std::rc::Rc;

use spillway::{
    quota::{self, Charge, Image, Policy, Reservation, Settled},
    units::UnixMs,
};

use super::{Event, Simulation, settling::Debt};
use crate::ledger::{
    fleet::Fleet,
    load::{Ask, TIMEOUT_MS},
};

/// State of a request.
pub struct Request {
    pub caller: usize,
    pub process: usize,
    arrived_us: u64,
    ask: Ask,
    pub expires_ms: u64,
    /// Account to reserve on: its tenant's, then a pool's.
    pub account: usize,
    pub shard: u64,
    second_shard: Option<u64>,
    /// Failure of the first shard, when the second shard is tried.
    first_failure: Option<Failure>,
    /// Whether it is above its tenant's committed share of the pools.
    is_excess: bool,
    /// Whether it has cost a write.
    wrote: bool,
    tenant: Option<Held>,
    pool: Option<Held>,
    /// Number of settlements in progress.
    settling: u32,
}

/// A reservation and where it was made.
pub struct Held {
    pub account: usize,
    pub shard: u64,
    pub reservation: Reservation,
    /// Index in the account's charges.
    pub entry: usize,
}

/// Reply of an item.
pub enum Reply {
    Reserved(Held, Rc<Image>),
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Refused,
    Busy,
}

/// Pause before a busy item is tried again, if the account has a single shard.
const BUSY_PAUSE_US: u64 = 25_000;

impl Simulation {
    pub(super) fn arrives(&mut self, caller: usize) {
        let ask = self.next_asks[caller].take().expect("the scheduled request");
        self.expect_next(caller);
        let kind = self.scenario.callers[caller].kind as usize;
        self.tally().offered[kind] += 1;
        let process = self.processes.take(&mut self.rng);
        let request = self.requests.insert(Request {
            caller,
            process,
            arrived_us: self.now_us,
            ask,
            expires_ms: self.clock_ms(process) + TIMEOUT_MS,
            account: caller,
            shard: 0,
            second_shard: None,
            first_failure: None,
            is_excess: false,
            wrote: false,
            tenant: None,
            pool: None,
            settling: 0,
        });
        self.reserve_on(request, caller);
    }

    /// Tries a random shard of `account`. This and the following steps are the steps of
    /// `Ledger::reserve`.
    fn reserve_on(&mut self, request: usize, account: usize) {
        let shards = self.accounts[account].shards;
        let first = self.rng.u64(0..shards);
        let second = (shards > 1).then(|| (first + self.rng.u64(1..shards)) % shards);
        let state = self.requests.get_mut(request);
        (state.account, state.shard, state.second_shard, state.first_failure) = (account, first, second, None);
        self.try_shard(request);
    }

    pub(super) fn try_shard(&mut self, request: usize) {
        let state = self.requests.get(request);
        let (process, item) = (state.process, self.accounts[state.account].item(state.shard));
        if self.scenario.remembers_refusals {
            let (policy, charge) = self.wants(request);
            let now_ms = self.clock_ms(process);
            let process = self.processes.get(process);
            if process.recent_refusal(self.scenario.encoding, item, &policy, &charge, now_ms).is_some() {
                return self.handle_reply(request, Reply::Failed(Failure::Refused));
            }
        }
        self.requests.get_mut(request).wrote = true;
        self.enter_reserving(process, item, request);
    }

    /// Returns the policy and the charge of the reservation that `request` needs.
    pub(super) fn wants(&self, request: usize) -> (Policy, Charge) {
        let state = self.requests.get(request);
        let policy = self.policy_of(state.account, state.shard, state.is_excess);
        let unreserved_tokens = state.ask.unreserved_output;
        (policy, policy.fit(&Charge { unreserved_tokens, ..charge(state.ask.reserved_tokens()) }))
    }

    pub(super) fn policy_of(&self, account: usize, shard: u64, is_excess: bool) -> Policy {
        *self.accounts[account].policy(shard, is_excess && account >= self.scenario.callers.len())
    }

    /// Handles the reply of an item to `request`.
    pub(super) fn handle_reply(&mut self, request: usize, reply: Reply) {
        let state = self.requests.get_mut(request);
        let failure = match reply {
            Reply::Reserved(held, image) => return self.reserved(request, held, &image),
            Reply::Failed(failure) => failure,
        };
        match (state.first_failure, state.second_shard) {
            (None, Some(second)) => {
                (state.first_failure, state.shard) = (Some(failure), second);
                self.try_shard(request);
            }
            (None, None) if failure == Failure::Busy => {
                state.first_failure = Some(failure);
                self.after(BUSY_PAUSE_US, Event::RetryShard { request });
            }
            (None, None) => self.reservation_failed(request, failure),
            (Some(first), _) => {
                self.reservation_failed(request, if first == Failure::Refused { first } else { failure })
            }
        }
    }

    fn reserved(&mut self, request: usize, held: Held, image: &Image) {
        let state = self.requests.get(request);
        if state.account >= self.scenario.callers.len() {
            self.requests.get_mut(request).pool = Some(held);
            return self.admitted(request);
        }
        let tenant = &self.scenario.callers[state.caller].tenant;
        let used = quota::minute_tokens(image, UnixMs::from_ms(self.clock_ms(state.process)))
            * self.accounts[state.account].shards;
        let is_excess = tenant.committed_tokens_per_minute.is_some_and(|committed| used > committed);
        let state = self.requests.get_mut(request);
        (state.tenant, state.is_excess) = (Some(held), is_excess);
        if self.scenario.model.is_some() {
            self.reserve_on(request, self.scenario.callers.len());
        } else {
            self.admitted(request);
        }
    }

    fn reservation_failed(&mut self, request: usize, failure: Failure) {
        let state = self.requests.get(request);
        let (account, kind) = (state.account, self.scenario.callers[state.caller].kind as usize);
        if account < self.scenario.callers.len() {
            let from_memory = u64::from(!state.wrote);
            let tally = self.tally();
            match failure {
                Failure::Refused => tally.refused[kind] += 1,
                Failure::Busy => tally.busy += 1,
            }
            tally.from_memory += from_memory;
            return self.ends(request);
        }
        if account + 1 < self.accounts.len() {
            return self.reserve_on(request, account + 1);
        }
        self.tally().overflowed[kind] += 1;
        let held = self.requests.get_mut(request).tenant.take();
        self.settle(request, held.into_iter().collect(), Settled::refund());
    }

    fn admitted(&mut self, request: usize) {
        let state = self.requests.get(request);
        let (kind, service_us) = (self.scenario.callers[state.caller].kind as usize, state.ask.service_us);
        let waited_us = self.now_us - state.arrived_us;
        let tally = self.tally();
        tally.admitted[kind] += 1;
        tally.admit_us.saturating_record(waited_us);
        self.after(service_us, Event::Served { request });
    }

    pub(super) fn served(&mut self, request: usize) {
        let state = self.requests.get_mut(request);
        let held: Vec<Held> = [state.tenant.take(), state.pool.take()].into_iter().flatten().collect();
        if state.ask.dies {
            return self.dies(request, held);
        }
        let usage = state.ask.usage();
        let charge = charge(usage.input_tokens + usage.output_tokens);
        self.settle(request, held, Settled { charge, usage: Some(usage), ..Settled::default() });
    }

    /// Handles the death of the process that served `request`: its reservations are not settled,
    /// and its instance does not return.
    fn dies(&mut self, request: usize, held: Vec<Held>) {
        let request = self.requests.remove(request);
        for held in held {
            let account = &self.accounts[held.account];
            if account.limits.in_flight.is_some() {
                self.items[account.item(held.shard)].died(held.reservation.slot, self.now_us);
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

    /// Handles the end of a settlement of `request`.
    pub(super) fn settlement_ends(&mut self, request: usize) {
        let state = self.requests.get_mut(request);
        state.settling -= 1;
        if state.settling == 0 {
            self.ends(request);
        }
    }

    fn ends(&mut self, request: usize) {
        let request = self.requests.remove(request);
        self.processes.give_back(request.process);
    }
}

fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, ..Charge::ZERO }
}
