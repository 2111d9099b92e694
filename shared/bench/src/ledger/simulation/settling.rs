//! Settlements that wait for one item: those of one slot go in one write, as in `store::ledger::settling`.

use std::rc::Rc;

use spillway::quota::{Image, Settled, Write};

use super::{Event, Simulation, request::Held};
use crate::ledger::item::Landed;

/// How often a settlement is sent to a store that is busy.
const ATTEMPTS: u32 = 4;

/// The pause after a busy store's first refusal to settle; it doubles.
const BUSY_PAUSE_US: u64 = 25_000;

/// A reservation that is to be settled.
pub struct Debt {
    pub request: usize,
    pub held: Held,
    pub settled: Settled,
}

/// The settlements of one process on one item.
#[derive(Default)]
pub struct Settling {
    process: usize,
    item: usize,
    waiting: Vec<usize>,
    together: Vec<usize>,
    write: Write,
    landed: Option<(Landed, Rc<Image>)>,
    back_us: u64,
    attempts: u32,
}

impl Simulation {
    pub(super) fn enter_settling(&mut self, debt: Debt) {
        let process = self.requests.get(debt.request).process;
        let item = self.books[debt.held.account].item(debt.held.shard);
        let debt = self.debts.insert(debt);
        if self.scenario.batches {
            let lanes = &mut self.processes.get_mut(process).settling;
            if let Some(lane) = lanes.get_mut(&item) {
                return lane.push(debt);
            }
            lanes.insert(item, Vec::new());
        }
        self.settle_next(Settling { process, item, waiting: vec![debt], ..Settling::default() });
    }

    fn settle_next(&mut self, mut round: Settling) {
        if round.waiting.is_empty() {
            let lanes = &mut self.processes.get_mut(round.process).settling;
            let Some(lane) = lanes.get_mut(&round.item) else { return };
            round.waiting = std::mem::take(lane);
            if round.waiting.is_empty() {
                lanes.remove(&round.item);
                return;
            }
        }
        self.compose(&mut round);
        self.send(round);
    }

    /// One write for as many as can go together: those of the first one's slot.
    fn compose(&self, round: &mut Settling) {
        let now_ms = self.clock_ms(round.process);
        let slot = self.debts.get(round.waiting[0]).held.reservation.slot;
        round.together.clear();
        let mut rest = Vec::new();
        for debt in std::mem::take(&mut round.waiting) {
            let Debt { held, settled, .. } = self.debts.get(debt);
            if held.reservation.slot != slot {
                rest.push(debt);
                continue;
            }
            let policy = self.policy_of(held.account, held.shard, false);
            let write = self.scenario.encoding.settle(&policy, &held.reservation, settled, now_ms);
            let both = if round.together.is_empty() { Some(write) } else { round.write.then(&write) };
            match both {
                Some(both) => {
                    round.write = both;
                    round.together.push(debt);
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
        let landed = self.items[round.item].write(&round.write, self.now_us);
        round.landed = Some((landed, Rc::new(self.items[round.item].image().clone())));
        let back_us = round.back_us;
        if landed == Landed::Done {
            for debt in &round.together {
                let Debt { held, settled, .. } = self.debts.get(*debt);
                let charged = &mut self.books[held.account].charges[held.entry];
                (charged.requests, charged.tokens) = (settled.charge.requests, settled.charge.minute_tokens);
            }
        }
        let tally = self.tally();
        tally.write(landed, None, false);
        tally.slotless += u64::from(landed == Landed::Refused);
        self.after(back_us, Event::SettleReplies { round: id });
    }

    pub(super) fn settle_replies(&mut self, id: usize) {
        let mut round = self.settling.remove(id);
        let (landed, image) = round.landed.take().expect("a write that has landed");
        if landed == Landed::Throttled {
            round.attempts += 1;
            if round.attempts < ATTEMPTS {
                let pause_us = BUSY_PAUSE_US << (round.attempts - 1);
                let round = self.settling.insert(round);
                return self.after(pause_us, Event::SettleAgain { round });
            }
            self.tally().unsettled += round.together.len() as u64;
        }
        if landed == Landed::Done {
            self.note_settled(&round, &image);
        }
        for debt in std::mem::take(&mut round.together) {
            let debt = self.debts.remove(debt);
            self.settlement_ends(debt.request);
        }
        self.settle_next(round);
    }

    fn note_settled(&mut self, round: &Settling, image: &Rc<Image>) {
        let now_ms = self.clock_ms(round.process);
        let process = self.processes.get_mut(round.process);
        if self.scenario.remembers_denials {
            process.note_denied(round.item, image, false, now_ms);
        }
        if self.scenario.encoding.remembers() {
            process.known.insert(round.item, (Rc::clone(image), now_ms));
        }
    }

    pub(super) fn settle_again(&mut self, id: usize) {
        let round = self.settling.remove(id);
        self.send(round);
    }
}
