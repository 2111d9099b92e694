//! Reservations that wait for one item, and the writes that make them.

use std::rc::Rc;

use spillway::quota::{Image, Reservation, Verdict, Write};

use super::{
    Event, Simulation,
    choice::{Known, Waiting, choose},
    request::{Answer, Held, No},
};
use crate::ledger::{
    books::Charged,
    encoding::{Encoding, Sight},
    item::Landed,
};

/// How often the reservations of a round are tried when others keep getting in between.
const ATTEMPTS: u32 = 4;

/// The same for compare and swap, which would hardly admit anything otherwise.
const SWAP_ATTEMPTS: u32 = 10;

/// The longest pause of compare and swap after its first conflict; it doubles.
const SWAP_PAUSE_US: u64 = 5_000;

/// The reservations of one process on one item: those that go with the write that is under way, and those that wait.
#[derive(Default)]
pub struct Reserving {
    process: usize,
    item: usize,
    waiting: Vec<usize>,
    chosen: Vec<(usize, Reservation)>,
    /// For each that is chosen, its entry in the account's charges.
    entries: Vec<usize>,
    write: Write,
    /// The clock that the write was made by.
    at_ms: u64,
    reap: Option<(u64, u64)>,
    landed: Option<(Landed, Rc<Image>)>,
    back_us: u64,
    seen: Option<Rc<Image>>,
    has_read: bool,
    attempts: u32,
}

impl Simulation {
    /// `request` wants to reserve on `item`: it waits for the round that is under way, or begins one.
    pub(super) fn enter_reserving(&mut self, process: usize, item: usize, request: usize) {
        if self.scenario.batches {
            let lanes = &mut self.processes.get_mut(process).reserving;
            if let Some(lane) = lanes.get_mut(&item) {
                return lane.push(request);
            }
            lanes.insert(item, Vec::new());
        }
        self.advance(Reserving { process, item, waiting: vec![request], ..Reserving::default() });
    }

    /// Sends the next write of `round`, or ends it when nobody waits any more.
    fn advance(&mut self, mut round: Reserving) {
        loop {
            if round.waiting.is_empty() {
                let Some(waiting) = self.those_who_came(round.process, round.item) else { return };
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
                self.answered(request, Answer::No(No::Refused));
            }
            if !round.chosen.is_empty() {
                let (there_us, back_us) = self.there_and_back_us();
                round.back_us = back_us;
                let round = self.reserving.insert(round);
                return self.after(there_us, Event::ReserveLands { round });
            }
        }
    }

    /// Those who came for `item` while a round was under way; closes the lane if nobody did.
    fn those_who_came(&mut self, process: usize, item: usize) -> Option<Vec<usize>> {
        let lanes = &mut self.processes.get_mut(process).reserving;
        let came = std::mem::take(lanes.get_mut(&item)?);
        if came.is_empty() {
            lanes.remove(&item);
            return None;
        }
        Some(came)
    }

    fn must_read(&self, round: &Reserving) -> bool {
        let encoding = self.scenario.encoding;
        if !encoding.reads_first() || round.has_read || round.seen.is_some() {
            return false;
        }
        let (policy, charge) = self.wants(round.waiting[0]);
        let now_ms = self.clock_ms(round.process);
        let known = self.processes.get(round.process).known.get(&round.item);
        known.is_none_or(|(image, _)| encoding.explain(&policy, &charge, image, now_ms) != Verdict::Retry)
    }

    /// Puts the next write of `round` together; gives those that it refuses.
    fn choose_next(&mut self, round: &mut Reserving) -> Vec<usize> {
        let now_ms = self.clock_ms(round.process);
        let waiting = std::mem::take(&mut round.waiting).into_iter().map(|request| {
            let (policy, charge) = self.wants(request);
            Waiting { request, policy, charge, expires_ms: self.requests.get(request).expires_ms }
        });
        let waiting = waiting.collect();
        // The product judges by the clock of its next write; a guess must be judged by the clock of the one that failed.
        let judged_ms = if self.scenario.encoding == Encoding::Gcra { round.at_ms } else { now_ms };
        let remembered = self.processes.get(round.process).known.get(&round.item);
        let known = Known {
            seen: round.seen.as_deref().map(|image| Sight { image, at_ms: judged_ms }),
            remembered: remembered.map(|(image, at_ms)| Sight { image, at_ms: *at_ms }),
        };
        let choice = choose(self.scenario.encoding, waiting, known, now_ms);
        if self.has_turned(round, &choice.chosen) && choice.reap.is_none() {
            self.tally().turned += 1;
        }
        (round.write, round.chosen, round.waiting) = (choice.write, choice.chosen, choice.rest);
        (round.reap, round.at_ms) = (choice.reap, now_ms);
        choice.refused
    }

    /// Whether the write that comes was refused by the clock of the last one and is not by that of now.
    fn has_turned(&self, round: &Reserving, chosen: &[(usize, Reservation)]) -> bool {
        let (Some((request, _)), Some(image)) = (chosen.first(), &round.seen) else { return false };
        let (policy, charge) = self.wants(*request);
        let verdict = self.scenario.encoding.explain(&policy, &charge, image, round.at_ms);
        round.attempts > 0 && matches!(verdict, Verdict::Refused(_)) && !self.scenario.encoding.reads_first()
    }

    pub(super) fn reserve_lands(&mut self, id: usize) {
        let now_us = self.now_us;
        let round = self.reserving.get_mut(id);
        let landed = self.items[round.item].write(&round.write, now_us);
        let image = Rc::new(self.items[round.item].image().clone());
        round.landed = Some((landed, Rc::clone(&image)));
        let (back_us, reap, at_ms) = (round.back_us, round.reap, round.at_ms);
        match landed {
            Landed::Done => self.enter_charges(id),
            Landed::Refused | Landed::Throttled => {}
        }
        let verdict = (landed == Landed::Refused).then(|| self.why(id, &image, at_ms));
        self.tally().write(landed, verdict.as_ref(), reap.is_some());
        self.after(back_us, Event::ReserveReplies { round: id });
    }

    /// Why the write of a round was refused: because one of those that it was for has no room, or none of them.
    fn why(&self, id: usize, image: &Image, at_ms: u64) -> Verdict {
        let encoding = self.scenario.encoding;
        let verdict = |(request, _): &(usize, Reservation)| {
            let (policy, charge) = self.wants(*request);
            encoding.explain(&policy, &charge, image, at_ms)
        };
        let verdicts: Vec<Verdict> = self.reserving.get(id).chosen.iter().map(verdict).collect();
        let refused = verdicts.iter().find(|verdict| matches!(verdict, Verdict::Refused(_)));
        match refused.or(verdicts.first()) {
            // It knew of room when it wrote, so somebody else wrote in between.
            Some(Verdict::Refused(_)) | None if encoding == Encoding::CompareAndSwap => Verdict::Retry,
            verdict => verdict.cloned().unwrap_or(Verdict::Retry),
        }
    }

    fn enter_charges(&mut self, id: usize) {
        let round = self.reserving.get_mut(id);
        for (request, reservation) in &round.chosen {
            let charges = &mut self.books[self.requests.get(*request).account].charges;
            round.entries.push(charges.len());
            let charge = reservation.charge;
            charges.push(Charged { at_us: self.now_us, requests: charge.requests, tokens: charge.minute_tokens });
        }
        if let Some((slot, _)) = round.reap {
            let freed = self.items[round.item].freed(slot);
            freed.into_iter().for_each(|died_us| self.note_recovered(died_us));
        }
    }

    pub(super) fn reserve_replies(&mut self, id: usize) {
        let mut round = self.reserving.remove(id);
        let (landed, image) = round.landed.take().expect("a write that has landed");
        let chosen = std::mem::take(&mut round.chosen);
        if landed != Landed::Throttled {
            self.note_image(&round, &image, landed);
        }
        match landed {
            Landed::Done => {
                let entries = std::mem::take(&mut round.entries);
                self.all_reserved(chosen, entries, &image);
                (round.seen, round.attempts) = (Some(image), 0);
            }
            Landed::Refused => {
                round.attempts += 1;
                if round.attempts == self.most_attempts() {
                    chosen.into_iter().for_each(|(request, _)| self.answered(request, Answer::No(No::Busy)));
                    (round.seen, round.attempts) = (None, 0);
                } else {
                    round.waiting.splice(0..0, chosen.into_iter().map(|(request, _)| request));
                    round.seen = Some(image);
                    if self.scenario.encoding == Encoding::CompareAndSwap {
                        return self.pause(round);
                    }
                }
            }
            Landed::Throttled => {
                let all = chosen.into_iter().map(|(request, _)| request).chain(std::mem::take(&mut round.waiting));
                all.for_each(|request| self.answered(request, Answer::No(No::Busy)));
            }
        }
        self.advance(round);
    }

    fn most_attempts(&self) -> u32 {
        if self.scenario.encoding == Encoding::CompareAndSwap { SWAP_ATTEMPTS } else { ATTEMPTS }
    }

    /// Those who lost a swap come back after a while, drawn at random, lest they meet again.
    fn pause(&mut self, round: Reserving) {
        let pause_us = self.chance.u64(0..SWAP_PAUSE_US << round.attempts);
        let round = self.reserving.insert(round);
        self.after(pause_us, Event::ReserveAgain { round });
    }

    fn note_image(&mut self, round: &Reserving, image: &Rc<Image>, landed: Landed) {
        let now_ms = self.clock_ms(round.process);
        let process = self.processes.get_mut(round.process);
        if self.scenario.remembers_denials {
            process.note_denied(round.item, image, landed == Landed::Refused, now_ms);
        }
        if self.scenario.encoding.remembers() {
            process.known.insert(round.item, (Rc::clone(image), now_ms));
        }
    }

    fn all_reserved(&mut self, chosen: Vec<(usize, Reservation)>, entries: Vec<usize>, image: &Rc<Image>) {
        for (index, ((request, mut reservation), entry)) in chosen.into_iter().zip(entries).enumerate() {
            if index == 0 && self.scenario.encoding == Encoding::Staircase {
                reservation.note_stale(image);
            }
            let one = self.requests.get(request);
            let held = Held { account: one.account, shard: one.shard, reservation, entry };
            self.answered(request, Answer::Reserved(held, Rc::clone(image)));
        }
    }

    pub(super) fn read_replies(&mut self, id: usize) {
        let mut round = self.reserving.remove(id);
        round.seen = Some(Rc::new(self.items[round.item].image().clone()));
        round.has_read = true;
        self.advance(round);
    }

    pub(super) fn reserve_again(&mut self, id: usize) {
        let round = self.reserving.remove(id);
        self.advance(round);
    }
}
