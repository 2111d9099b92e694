//! Reservation rounds: the requests of a process that wait for the same item, and their writes.

use std::rc::Rc;

use spillway::quota::{EPOCH, Image, Reservation, Verdict, Write};

use super::{
    Event, Simulation,
    choice::{Known, Waiting, choose},
    request::{Failure, Held, Reply},
};
use crate::ledger::{
    accounts::Charged,
    encoding::{Encoding, Snapshot},
    item::WriteResult,
};

/// Maximum number of tries of a round under contention.
const MAX_ATTEMPTS: u32 = 4;

/// Maximum number of tries for compare and swap, which would otherwise admit almost no requests.
const MAX_SWAP_ATTEMPTS: u32 = 10;

/// Maximum pause of compare and swap after the first conflict; it doubles with each conflict.
const MAX_SWAP_PAUSE_US: u64 = 5_000;

/// A round: the requests of a process on an item. Some share the current write, the others wait.
#[derive(Default)]
pub struct Reserving {
    process: usize,
    item: usize,
    waiting: Vec<usize>,
    chosen: Vec<(usize, Reservation)>,
    /// Index in the account's charges for each chosen request.
    entries: Vec<usize>,
    write: Write,
    /// Time of the write by the process's clock.
    at_ms: u64,
    reap: Option<(u64, u64)>,
    result: Option<(WriteResult, Rc<Image>)>,
    back_us: u64,
    image: Option<Rc<Image>>,
    has_read: bool,
    attempts: u32,
}

impl Simulation {
    /// Adds `request` to the current round of `item`, or starts a round.
    pub(super) fn enter_reserving(&mut self, process: usize, item: usize, request: usize) {
        if self.scenario.batches {
            let groups = &mut self.processes.get_mut(process).reserving;
            if let Some(group) = groups.get_mut(&item) {
                return group.push(request);
            }
            groups.insert(item, Vec::new());
        }
        self.advance(Reserving { process, item, waiting: vec![request], ..Reserving::default() });
    }

    /// Sends the next write of `round`, or ends the round if no request waits.
    fn advance(&mut self, mut round: Reserving) {
        loop {
            if round.waiting.is_empty() {
                let Some(waiting) = self.take_pending(round.process, round.item) else { return };
                round = Reserving { process: round.process, item: round.item, waiting, ..Reserving::default() };
            }
            if self.must_read(&round) {
                self.tally().reads += 1;
                let (there_us, back_us) = self.there_and_back_us();
                let round = self.reserving.insert(round);
                return self.after(there_us + back_us, Event::ReadReplies { round });
            }
            let refused = self.choose_next(&mut round);
            for request in refused {
                self.handle_reply(request, Reply::Failed(Failure::Refused));
            }
            if !round.chosen.is_empty() {
                let (there_us, back_us) = self.there_and_back_us();
                round.back_us = back_us;
                let round = self.reserving.insert(round);
                return self.after(there_us, Event::ReserveLands { round });
            }
        }
    }

    /// Takes the requests that arrived for `item` during the round. Ends the group if there are
    /// none.
    fn take_pending(&mut self, process: usize, item: usize) -> Option<Vec<usize>> {
        let groups = &mut self.processes.get_mut(process).reserving;
        let pending = std::mem::take(groups.get_mut(&item)?);
        if pending.is_empty() {
            groups.remove(&item);
            return None;
        }
        Some(pending)
    }

    fn must_read(&self, round: &Reserving) -> bool {
        let encoding = self.scenario.encoding;
        if !encoding.reads_first() || round.has_read || round.image.is_some() {
            return false;
        }
        let (policy, charge) = self.wants(round.waiting[0]);
        let now_ms = self.clock_ms(round.process);
        let known = self.processes.get(round.process).known.get(&round.item);
        known.is_none_or(|(image, _)| encoding.explain(&policy, &charge, image, now_ms) != Verdict::Retry)
    }

    /// Composes the next write of `round`. Returns the refused requests.
    fn choose_next(&mut self, round: &mut Reserving) -> Vec<usize> {
        let now_ms = self.clock_ms(round.process);
        let waiting = std::mem::take(&mut round.waiting).into_iter().map(|request| {
            let (policy, charge) = self.wants(request);
            Waiting { request, policy, charge, expires_ms: self.requests.get(request).expires_ms }
        });
        let waiting = waiting.collect();
        // The product judges an image by the time of its next write, but a prediction must be
        // judged by the time of the failed write.
        let judged_ms = if self.scenario.encoding == Encoding::Gcra { round.at_ms } else { now_ms };
        let remembered = self.processes.get(round.process).known.get(&round.item);
        let known = Known {
            current: round.image.as_deref().map(|image| Snapshot { image, at_ms: judged_ms }),
            remembered: remembered.map(|(image, at_ms)| Snapshot { image, at_ms: *at_ms }),
        };
        let choice = choose(self.scenario.encoding, waiting, known, now_ms);
        if self.is_new_epoch(round, &choice.chosen) && choice.reap.is_none() {
            self.tally().epoch_retries += 1;
        }
        (round.write, round.chosen, round.waiting) = (choice.write, choice.chosen, choice.rest);
        (round.reap, round.at_ms) = (choice.reap, now_ms);
        choice.refused
    }

    /// Whether the item refuses the charge at the time of the last write, but not now.
    fn is_new_epoch(&self, round: &Reserving, chosen: &[(usize, Reservation)]) -> bool {
        let (Some((request, _)), Some(image)) = (chosen.first(), &round.image) else { return false };
        let (policy, charge) = self.wants(*request);
        let verdict = self.scenario.encoding.explain(&policy, &charge, image, round.at_ms);
        round.attempts > 0 && matches!(verdict, Verdict::Refused(_)) && !self.scenario.encoding.reads_first()
    }

    pub(super) fn reserve_lands(&mut self, id: usize) {
        let now_us = self.now_us;
        let round = self.reserving.get_mut(id);
        let result = self.items[round.item].write(&round.write, now_us);
        let image = Rc::new(self.items[round.item].image().clone());
        round.result = Some((result, Rc::clone(&image)));
        let (back_us, reap, at_ms) = (round.back_us, round.reap, round.at_ms);
        match result {
            WriteResult::Done => self.enter_charges(id),
            WriteResult::Refused | WriteResult::Throttled => {}
        }
        let verdict = (result == WriteResult::Refused).then(|| self.explain_refusal(id, &image, at_ms));
        self.tally().write(result, verdict.as_ref(), reap.is_some());
        self.after(back_us, Event::ReserveReplies { round: id });
    }

    /// Explains why the write of a round was refused: because a request of the round, or every
    /// request, does not fit.
    fn explain_refusal(&self, id: usize, image: &Image, at_ms: u64) -> Verdict {
        let encoding = self.scenario.encoding;
        let verdict = |(request, _): &(usize, Reservation)| {
            let (policy, charge) = self.wants(*request);
            encoding.explain(&policy, &charge, image, at_ms)
        };
        let verdicts: Vec<Verdict> = self.reserving.get(id).chosen.iter().map(verdict).collect();
        let refused = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Refused(_)));
        let in_full = verdicts.iter().find(|verdict| matches!(verdict, Verdict::InFull));
        match refused.or(in_full).or(verdicts.first()) {
            // The item had room in the known image, so another process wrote in between.
            Some(Verdict::Refused(_)) | None if encoding == Encoding::CompareAndSwap => Verdict::Retry,
            verdict => verdict.cloned().unwrap_or(Verdict::Retry),
        }
    }

    fn enter_charges(&mut self, id: usize) {
        let round = self.reserving.get_mut(id);
        for (request, reservation) in &round.chosen {
            let charges = &mut self.accounts[self.requests.get(*request).account].charges;
            round.entries.push(charges.len());
            let charge = reservation.charge;
            charges.push(Charged {
                at_us: self.now_us,
                epoch: reservation.at / EPOCH,
                requests: charge.requests,
                tokens: charge.minute_tokens,
            });
        }
        if let Some((slot, _)) = round.reap {
            let freed = self.items[round.item].freed(slot);
            freed.into_iter().for_each(|died_us| self.note_recovered(died_us));
        }
    }

    pub(super) fn reserve_replies(&mut self, id: usize) {
        let mut round = self.reserving.remove(id);
        let (result, image) = round.result.take().expect("a write that has result");
        let chosen = std::mem::take(&mut round.chosen);
        if result != WriteResult::Throttled {
            self.note_image(&round, &image, result);
        }
        match result {
            WriteResult::Done => {
                let entries = std::mem::take(&mut round.entries);
                self.reserved_all(chosen, entries, &image);
                (round.image, round.attempts) = (Some(image), 0);
            }
            WriteResult::Refused => {
                round.attempts += 1;
                if round.attempts == self.max_attempts() {
                    chosen
                        .into_iter()
                        .for_each(|(request, _)| self.handle_reply(request, Reply::Failed(Failure::Busy)));
                    (round.image, round.attempts) = (None, 0);
                } else {
                    round.waiting.splice(0..0, chosen.into_iter().map(|(request, _)| request));
                    round.image = Some(image);
                    if self.scenario.encoding == Encoding::CompareAndSwap {
                        return self.pause(round);
                    }
                }
            }
            WriteResult::Throttled => {
                let requests = chosen.into_iter().map(|(request, _)| request);
                requests
                    .chain(std::mem::take(&mut round.waiting))
                    .for_each(|request| self.handle_reply(request, Reply::Failed(Failure::Busy)));
            }
        }
        self.advance(round);
    }

    fn max_attempts(&self) -> u32 {
        if self.scenario.encoding == Encoding::CompareAndSwap { MAX_SWAP_ATTEMPTS } else { MAX_ATTEMPTS }
    }

    /// Pauses a round that lost a swap for a random time, so that the competitors do not collide
    /// again.
    fn pause(&mut self, round: Reserving) {
        let pause_us = self.rng.u64(0..MAX_SWAP_PAUSE_US << round.attempts);
        let round = self.reserving.insert(round);
        self.after(pause_us, Event::RetryReserve { round });
    }

    fn note_image(&mut self, round: &Reserving, image: &Rc<Image>, result: WriteResult) {
        let now_ms = self.clock_ms(round.process);
        let process = self.processes.get_mut(round.process);
        if self.scenario.remembers_refusals {
            process.note_refusal(round.item, image, result == WriteResult::Refused, now_ms);
        }
        if self.scenario.encoding.remembers() {
            process.known.insert(round.item, (Rc::clone(image), now_ms));
        }
    }

    fn reserved_all(&mut self, chosen: Vec<(usize, Reservation)>, entries: Vec<usize>, image: &Rc<Image>) {
        for (index, ((request, mut reservation), entry)) in chosen.into_iter().zip(entries).enumerate() {
            if index == 0 && self.scenario.encoding == Encoding::Staircase {
                reservation.note_stale(image);
            }
            let state = self.requests.get(request);
            let held = Held { account: state.account, shard: state.shard, reservation, entry };
            self.handle_reply(request, Reply::Reserved(held, Rc::clone(image)));
        }
    }

    pub(super) fn read_replies(&mut self, id: usize) {
        let mut round = self.reserving.remove(id);
        round.image = Some(Rc::new(self.items[round.item].image().clone()));
        round.has_read = true;
        self.advance(round);
    }

    pub(super) fn retry_reserve(&mut self, id: usize) {
        let round = self.reserving.remove(id);
        self.advance(round);
    }
}
