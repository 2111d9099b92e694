//! Pending reservations on one item: one write makes all that fit together.

use tokio::sync::oneshot;

use super::{Writer, account::Shard, items::UpdateOutcome, nonce::NonceAttribute};
use crate::{
    quota::{self, Charge, Image, Refusal, Reservation, Verdict, Write},
    store::StoreError,
    units::UnixMs,
};

/// Maximum number of attempts to write a group while writes of other processes interfere.
const MAX_ATTEMPTS: u32 = 4;

/// Maximum number of reservations in one write. An account that needs more for long needs more
/// shards.
const MAX_GROUP: usize = 50;

/// A pending reservation.
pub(super) struct PendingReserve {
    pub shard: Shard,
    pub charge: Charge,
    pub expires_at: UnixMs,
    pub reply: oneshot::Sender<Result<ReserveReply, StoreError>>,
}

/// Reply of one item to a reservation.
pub(super) enum ReserveReply {
    Reserved(Reservation, Image),
    Refused(Refusal, Image),
    Stale,
    Busy,
}

impl Writer {
    /// Replies to all reservations in `pending`, all on the item `key`.
    pub(super) async fn reserve_group(&self, key: &str, mut pending: Vec<PendingReserve>) {
        let mut known = None;
        let mut attempts = 0;
        while !pending.is_empty() {
            let now = self.clock.now();
            let NextWrite { write, chosen, rest, only_frees } = next_write(pending, known.as_ref(), now);
            pending = rest;
            if chosen.is_empty() {
                continue;
            }
            match self.items.update(key, &write, NonceAttribute::Added).await {
                Ok(UpdateOutcome::Done(image)) => {
                    self.recent_refusals.changed(key, &image);
                    if only_frees {
                        pending.splice(0..0, chosen.into_iter().map(|(request, _)| request));
                    } else {
                        reply_reserved(chosen, &image);
                    }
                    (known, attempts) = (Some(image), 0);
                }
                Ok(UpdateOutcome::Refused(image)) => {
                    self.recent_refusals.refused(key, &image);
                    attempts += 1;
                    if attempts == MAX_ATTEMPTS {
                        chosen.into_iter().for_each(|(request, _)| request.send(Ok(ReserveReply::Busy)));
                        (known, attempts) = (None, 0);
                        continue;
                    }
                    pending.splice(0..0, chosen.into_iter().map(|(request, _)| request));
                    known = Some(image);
                }
                Ok(UpdateOutcome::Busy) => {
                    let requests = chosen.into_iter().map(|(request, _)| request).chain(pending);
                    return requests.for_each(|request| request.send(Ok(ReserveReply::Busy)));
                }
                Err(error) => chosen.into_iter().for_each(|(request, _)| request.send(Err(error.clone()))),
            }
        }
    }
}

impl PendingReserve {
    /// Sends the reply. If the caller was cancelled, its reservation expires.
    fn send(self, reply: Result<ReserveReply, StoreError>) {
        let _ = self.reply.send(reply);
    }
}

fn reply_reserved(chosen: Vec<(PendingReserve, Reservation)>, image: &Image) {
    let mut is_first = true;
    for (request, mut reservation) in chosen {
        // One settlement is enough to remove stale attributes.
        if std::mem::take(&mut is_first) {
            reservation.note_stale(image);
        }
        request.send(Ok(ReserveReply::Reserved(reservation, image.clone())));
    }
}

/// The next write to an item, and the reservations that it makes.
struct NextWrite {
    write: Write,
    chosen: Vec<(PendingReserve, Reservation)>,
    rest: Vec<PendingReserve>,
    /// The write only frees a slot for the chosen reservations, which must be chosen again.
    only_frees: bool,
}

/// Chooses the reservations that one write can make, first come, first served. If the image of the
/// item is `known`, it chooses only reservations that fit on top of each other, and replies to
/// reservations that do not fit at all.
fn next_write(pending: Vec<PendingReserve>, known: Option<&Image>, now: UnixMs) -> NextWrite {
    let mut next = NextWrite { write: Write::default(), chosen: Vec::new(), rest: Vec::new(), only_frees: false };
    let mut predicted = known.cloned();
    let mut is_closed = false;
    for request in pending {
        let is_first = next.chosen.is_empty();
        let (reservation, fit) = fit(&request, request.charge, known.zip(predicted.as_ref()), now);
        let write = match fit {
            Fit::Replied(reply) => {
                request.send(Ok(reply));
                continue;
            }
            Fit::Fits(write) | Fit::Later(write) if is_first => write,
            Fit::Fits(write) if !is_closed && next.takes(&request, &write) => write,
            // A write that frees a slot carries no other reservation.
            Fit::Alone { write, only_frees } if is_first => {
                (next.only_frees, is_closed) = (only_frees, true);
                write
            }
            Fit::Fits(_) | Fit::Alone { .. } | Fit::Later(_) => {
                next.rest.push(request);
                continue;
            }
        };
        if let Some(predicted) = &mut predicted {
            predicted.apply(&write);
        }
        if is_first {
            next.write = write;
        }
        next.chosen.push((request, reservation));
    }
    next
}

/// Fit of a reservation on an item.
enum Fit {
    Fits(Write),
    /// It fits once dead requests are gone. The write frees one of their slots, and makes the
    /// reservation unless it `only_frees`.
    Alone {
        write: Write,
        only_frees: bool,
    },
    /// It fits, but not on top of the reservations before it.
    Later(Write),
    Replied(ReserveReply),
}

/// Judges the reservation of `charge` for `request` by the known image of the item, and by the
/// predicted image after the reservations before it. Without a known image, the request goes to the
/// item.
fn fit(request: &PendingReserve, charge: Charge, images: Option<(&Image, &Image)>, now: UnixMs) -> (Reservation, Fit) {
    let policy = &request.shard.policy;
    let reservation = Reservation::new(policy, charge, now, request.expires_at);
    // It waited past its own deadline: another writer could free its slot immediately. Or its
    // caller has given up, and would not settle it.
    if reservation.is_dead(now) || request.reply.is_closed() {
        return (reservation, Fit::Replied(ReserveReply::Busy));
    }
    let write = quota::reserve(policy, &reservation, None);
    let Some((known, predicted)) = images.filter(|(_, predicted)| !predicted.admits(&write)) else {
        return (reservation, Fit::Fits(write));
    };
    let in_full = || fit(request, policy.fit(&charge.in_full()), images, now);
    let judged_by = |image| quota::explain(policy, &charge, image, now);
    let fit = match judged_by(known) {
        Verdict::InFull => return in_full(),
        Verdict::Retry if judged_by(predicted) == Verdict::InFull => return in_full(),
        Verdict::Retry => Fit::Later(write),
        Verdict::Refused(refusal) => Fit::Replied(ReserveReply::Refused(refusal, known.clone())),
        Verdict::Stale => Fit::Replied(ReserveReply::Stale),
        Verdict::Reap(slot, count) => {
            let write = quota::reserve(policy, &reservation, Some((slot, count)));
            match known.admits(&write) {
                true => Fit::Alone { write, only_frees: false },
                false => Fit::Alone { write: quota::free(slot, count), only_frees: true },
            }
        }
    };
    (reservation, fit)
}

impl NextWrite {
    /// Adds `write` to the chosen reservations' write, if the two compose. Returns whether it did.
    fn takes(&mut self, request: &PendingReserve, write: &Write) -> bool {
        let is_alike = self.chosen.first().is_some_and(|(first, _)| first.shard.policy == request.shard.policy);
        if !is_alike || self.chosen.len() == MAX_GROUP {
            return false;
        }
        let Some(composed) = self.write.then(write) else { return false };
        self.write = composed;
        true
    }
}
