//! Settlement rounds: the settlements of a process that wait for the same item. As in the product,
//! settlements of the same slot share a write.

use std::rc::Rc;

use spillway::quota::{Image, Settled, Write};

use super::{Event, Simulation, request::Held};
use crate::ledger::item::WriteResult;

/// Maximum number of tries of a settlement on a busy item.
const MAX_ATTEMPTS: u32 = 4;

/// Pause after the first try on a busy item; it doubles with each try.
const BUSY_PAUSE_US: u64 = 25_000;

/// A reservation to settle.
pub struct Debt {
    pub request: usize,
    pub held: Held,
    pub settled: Settled,
}

/// A round: the settlements of a process on an item.
#[derive(Default)]
pub struct Settling {
    process: usize,
    item: usize,
    waiting: Vec<usize>,
    batch: Vec<usize>,
    write: Write,
    result: Option<(WriteResult, Rc<Image>)>,
    back_us: u64,
    attempts: u32,
}

impl Simulation {
    pub(super) fn enter_settling(&mut self, debt: Debt) {
        let process = self.requests.get(debt.request).process;
        let item = self.accounts[debt.held.account].item(debt.held.shard);
        let debt = self.debts.insert(debt);
        if self.scenario.batches {
            let groups = &mut self.processes.get_mut(process).settling;
            if let Some(group) = groups.get_mut(&item) {
                return group.push(debt);
            }
            groups.insert(item, Vec::new());
        }
        self.settle_next(Settling { process, item, waiting: vec![debt], ..Settling::default() });
    }

    fn settle_next(&mut self, mut round: Settling) {
        if round.waiting.is_empty() {
            let groups = &mut self.processes.get_mut(round.process).settling;
            let Some(group) = groups.get_mut(&round.item) else { return };
            round.waiting = std::mem::take(group);
            if round.waiting.is_empty() {
                groups.remove(&round.item);
                return;
            }
        }
        self.compose(&mut round);
        self.send(round);
    }

    /// Composes a write for all settlements that can share it: all with the slot of the first
    /// settlement.
    fn compose(&self, round: &mut Settling) {
        let now_ms = self.clock_ms(round.process);
        let slot = self.debts.get(round.waiting[0]).held.reservation.slot;
        round.batch.clear();
        let mut rest = Vec::new();
        for debt in std::mem::take(&mut round.waiting) {
            let Debt { held, settled, .. } = self.debts.get(debt);
            if held.reservation.slot != slot {
                rest.push(debt);
                continue;
            }
            let policy = self.policy_of(held.account, held.shard, false);
            let write = self.scenario.encoding.settle(&policy, &held.reservation, settled, now_ms);
            let combined = if round.batch.is_empty() { Some(write) } else { round.write.then(&write) };
            match combined {
                Some(combined) => {
                    round.write = combined;
                    round.batch.push(debt);
                }
                None => rest.push(debt),
            }
        }
        round.waiting = rest;
        round.attempts = 0;
    }

    fn send(&mut self, mut round: Settling) {
        let (there_us, back_us) = self.there_and_back_us();
        round.back_us = back_us;
        let round = self.settling.insert(round);
        self.after(there_us, Event::SettleLands { round });
    }

    pub(super) fn settle_lands(&mut self, id: usize) {
        let round = self.settling.get_mut(id);
        let result = self.items[round.item].write(&round.write, self.now_us);
        round.result = Some((result, Rc::new(self.items[round.item].image().clone())));
        let back_us = round.back_us;
        if result == WriteResult::Done {
            for debt in &round.batch {
                let Debt { held, settled, .. } = self.debts.get(*debt);
                let charged = &mut self.accounts[held.account].charges[held.entry];
                (charged.requests, charged.tokens) = (settled.charge.requests, settled.charge.minute_tokens);
            }
        }
        let tally = self.tally();
        tally.write(result, None, false);
        tally.without_slot += u64::from(result == WriteResult::Refused);
        self.after(back_us, Event::SettleReplies { round: id });
    }

    pub(super) fn settle_replies(&mut self, id: usize) {
        let mut round = self.settling.remove(id);
        let (result, image) = round.result.take().expect("a write that has result");
        if result == WriteResult::Throttled {
            round.attempts += 1;
            if round.attempts < MAX_ATTEMPTS {
                let pause_us = BUSY_PAUSE_US << (round.attempts - 1);
                let round = self.settling.insert(round);
                return self.after(pause_us, Event::RetrySettle { round });
            }
            self.tally().unsettled += round.batch.len() as u64;
        }
        if result == WriteResult::Done {
            self.note_settled(&round, &image);
        }
        for debt in std::mem::take(&mut round.batch) {
            let debt = self.debts.remove(debt);
            self.settlement_ends(debt.request);
        }
        self.settle_next(round);
    }

    fn note_settled(&mut self, round: &Settling, image: &Rc<Image>) {
        let now_ms = self.clock_ms(round.process);
        let process = self.processes.get_mut(round.process);
        if self.scenario.remembers_refusals {
            process.note_refusal(round.item, image, false, now_ms);
        }
        if self.scenario.encoding.remembers() {
            process.known.insert(round.item, (Rc::clone(image), now_ms));
        }
    }

    pub(super) fn retry_settle(&mut self, id: usize) {
        let round = self.settling.remove(id);
        self.send(round);
    }
}
