//! Reservations that wait for one item: those that fit together are made in one write.

use tokio::sync::oneshot;

use super::{Desk, account::Shard, items::Updated};
use crate::{
    quota::{self, Charge, Image, Refusal, Reservation, Verdict, Write},
    store::StoreError,
};

/// How often the reservations of a round are tried when others keep getting in between.
const ATTEMPTS: u32 = 4;

/// The most reservations in one write: what one write cannot carry for long, the shards must.
const MOST_AT_ONCE: usize = 50;

/// One reservation that waits for its turn.
pub(super) struct Reserving {
    pub shard: Shard,
    pub charge: Charge,
    pub expires_ms: u64,
    pub reply: oneshot::Sender<Result<Answer, StoreError>>,
}

/// What one item says.
pub(super) enum Answer {
    Reserved(Reservation, Image),
    Refused(Refusal, Image),
    Stale,
    Busy,
}

impl Desk {
    /// Answers everyone in `waiting`, all of whom want the item `key`.
    pub(super) async fn answer_all(&self, key: &str, mut waiting: Vec<Reserving>) {
        let mut seen = None;
        let mut attempts = 0;
        while !waiting.is_empty() {
            let now_ms = self.clock.now_ms();
            let Choice { write, chosen, rest, only_frees } = choose(waiting, seen.as_ref(), now_ms);
            waiting = rest;
            if chosen.is_empty() {
                continue;
            }
            match self.items.update(key, &write).await {
                Ok(Updated::Done(image)) => {
                    self.denials.changed(key, &image);
                    if only_frees {
                        waiting.splice(0..0, chosen.into_iter().map(|(one, _)| one));
                    } else {
                        reserved(chosen, &image);
                    }
                    (seen, attempts) = (Some(image), 0);
                }
                Ok(Updated::Refused(image)) => {
                    self.denials.refused(key, &image);
                    attempts += 1;
                    if attempts == ATTEMPTS {
                        chosen.into_iter().for_each(|(one, _)| one.answer(Ok(Answer::Busy)));
                        (seen, attempts) = (None, 0);
                        continue;
                    }
                    waiting.splice(0..0, chosen.into_iter().map(|(one, _)| one));
                    seen = Some(image);
                }
                Ok(Updated::Busy) => {
                    let all = chosen.into_iter().map(|(one, _)| one).chain(waiting);
                    return all.for_each(|one| one.answer(Ok(Answer::Busy)));
                }
                Err(error) => chosen.into_iter().for_each(|(one, _)| one.answer(Err(error.clone()))),
            }
        }
    }
}

impl Reserving {
    /// A caller that has gone away learns nothing; what was reserved for it expires by itself.
    fn answer(self, answer: Result<Answer, StoreError>) {
        let _ = self.reply.send(answer);
    }
}

fn reserved(chosen: Vec<(Reserving, Reservation)>, image: &Image) {
    let mut is_first = true;
    for (one, mut reservation) in chosen {
        // What is to be forgotten needs to be forgotten once.
        if std::mem::take(&mut is_first) {
            reservation.note_stale(image);
        }
        one.answer(Ok(Answer::Reserved(reservation, image.clone())));
    }
}

/// Who goes with the next write.
struct Choice {
    write: Write,
    chosen: Vec<(Reserving, Reservation)>,
    rest: Vec<Reserving>,
    /// The write makes room for those that are chosen and nothing else: they are to be chosen again.
    only_frees: bool,
}

/// Chooses, first come first served, those whose reservations one write can make. If the item was `seen`, only those that
/// fit on it, one on top of the other, and those that do not fit at all are refused.
fn choose(waiting: Vec<Reserving>, seen: Option<&Image>, now_ms: u64) -> Choice {
    let mut choice = Choice { write: Write::default(), chosen: Vec::new(), rest: Vec::new(), only_frees: false };
    let mut predicted = seen.cloned();
    let mut is_closed = false;
    for one in waiting {
        let reservation = Reservation::new(one.charge, now_ms, one.expires_ms);
        let is_first = choice.chosen.is_empty();
        let write = match fit(&one, &reservation, seen.zip(predicted.as_ref())) {
            Fit::Answered(answer) => {
                one.answer(Ok(answer));
                continue;
            }
            Fit::Fits(write) | Fit::Later(write) if is_first => write,
            Fit::Fits(write) if !is_closed && choice.takes(&one, &write) => write,
            // What frees a slot goes with nobody else.
            Fit::Alone { write, only_frees } if is_first => {
                (choice.only_frees, is_closed) = (only_frees, true);
                write
            }
            Fit::Fits(_) | Fit::Alone { .. } | Fit::Later(_) => {
                choice.rest.push(one);
                continue;
            }
        };
        if let Some(predicted) = &mut predicted {
            predicted.apply(&write);
        }
        if is_first {
            choice.write = write;
        }
        choice.chosen.push((one, reservation));
    }
    choice
}

/// How a reservation fits on an item.
enum Fit {
    Fits(Write),
    /// It does once the dead are gone. The write frees a slot of theirs, and makes the reservation unless it `only_frees`.
    Alone {
        write: Write,
        only_frees: bool,
    },
    /// It fits, but not on top of those before it.
    Later(Write),
    Answered(Answer),
}

/// Judges `one` by the image of the item that was seen, and by the same as those before it will leave it. An item that was
/// not seen is asked.
fn fit(one: &Reserving, reservation: &Reservation, seen: Option<(&Image, &Image)>) -> Fit {
    let (policy, now_ms) = (&one.shard.policy, reservation.at_ms);
    // It waited past its own deadline: others may free its slot at once.
    if reservation.is_dead(now_ms) {
        return Fit::Answered(Answer::Busy);
    }
    let write = quota::reserve(policy, reservation, None);
    let Some((image, _)) = seen.filter(|(_, predicted)| !predicted.admits(&write)) else {
        return Fit::Fits(write);
    };
    match quota::explain(policy, &one.charge, image, now_ms) {
        Verdict::Refused(refusal) => Fit::Answered(Answer::Refused(refusal, image.clone())),
        Verdict::Stale => Fit::Answered(Answer::Stale),
        Verdict::Reap(slot, count) => {
            let write = quota::reserve(policy, reservation, Some((slot, count)));
            match image.admits(&write) {
                true => Fit::Alone { write, only_frees: false },
                false => Fit::Alone { write: quota::free(slot, count), only_frees: true },
            }
        }
        Verdict::Retry => Fit::Later(write),
    }
}

impl Choice {
    /// Whether `write` can go along with those that are chosen.
    fn takes(&mut self, one: &Reserving, write: &Write) -> bool {
        let is_alike = self.chosen.first().is_some_and(|(first, _)| first.shard.policy == one.shard.policy);
        if !is_alike || self.chosen.len() == MOST_AT_ONCE {
            return false;
        }
        let both = self.write.then(write);
        let can = both.is_some();
        self.write = both.unwrap_or_else(|| std::mem::take(&mut self.write));
        can
    }
}
