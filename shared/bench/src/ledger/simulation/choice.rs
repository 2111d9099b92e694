//! Chooses the requests of the next write, by the product's rule for group commit. In the
//! simulation limits do not change and no request waits past its deadline, so freeing a slot of a
//! dead request always makes room for a request.

use spillway::{
    quota::{Charge, Image, Policy, Reservation, Verdict, Write},
    units::UnixMs,
};

use crate::ledger::encoding::{Encoding, Snapshot};

/// Maximum number of reservations in a write.
const MAX_BATCH: usize = 50;

/// A request that waits for an item.
pub struct Waiting {
    pub request: usize,
    pub policy: Policy,
    pub charge: Charge,
    pub expires_ms: u64,
}

/// Images of an item that a writer knows.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Image from the last refusal or read of this round, with the time to judge it by.
    pub current: Option<Snapshot<'a>>,
    /// Last image that this process knows.
    pub remembered: Option<Snapshot<'a>>,
}

/// The next write and its requests.
#[derive(Default)]
pub struct Choice {
    pub write: Write,
    pub chosen: Vec<(usize, Reservation)>,
    pub rest: Vec<usize>,
    pub refused: Vec<usize>,
    /// Slot of dead requests that the write frees, with its count.
    pub reap: Option<(u64, u64)>,
}

/// Chooses the requests that share the next write, in the order of arrival. If the current image is
/// known, it chooses only requests that fit on top of each other, and refuses requests that do not
/// fit at all.
pub fn choose(encoding: Encoding, waiting: Vec<Waiting>, known: Known<'_>, now_ms: u64) -> Choice {
    let mut choice = Choice::default();
    let mut predicted = known.current.map(|snapshot| snapshot.image.clone());
    let mut first_policy = None;
    for candidate in waiting {
        let candidate = candidate.sized(encoding, known.current, predicted.as_ref());
        let (now, expires_at) = (UnixMs::from_ms(now_ms), UnixMs::from_ms(candidate.expires_ms));
        let reservation = Reservation::new(&candidate.policy, candidate.charge, now, expires_at);
        let last_seen = known.current.or(known.remembered);
        let mut write = encoding.reserve(&candidate.policy, &reservation, last_seen, None);
        let is_first = choice.chosen.is_empty();
        if let (Some(snapshot), Some(predicted)) = (known.current, &predicted)
            && (encoding != Encoding::Staircase || !predicted.admits(&write))
        {
            match encoding.explain(&candidate.policy, &candidate.charge, snapshot.image, snapshot.at_ms) {
                Verdict::Refused(_) | Verdict::Stale => {
                    choice.refused.push(candidate.request);
                    continue;
                }
                Verdict::Reap(slot, count) if is_first => {
                    choice.reap = Some((slot, count));
                    write = encoding.reserve(&candidate.policy, &reservation, last_seen, choice.reap);
                }
                Verdict::Retry if is_first => {}
                Verdict::Reap(..) | Verdict::InFull | Verdict::Retry => {
                    choice.rest.push(candidate.request);
                    continue;
                }
            }
        }
        let is_alike = *first_policy.get_or_insert(candidate.policy) == candidate.policy;
        if !(is_first || is_alike && choice.add(&write)) {
            choice.rest.push(candidate.request);
            continue;
        }
        if is_first {
            choice.write = write.clone();
        }
        if let Some(predicted) = &mut predicted {
            predicted.apply(&write);
        }
        choice.chosen.push((candidate.request, reservation));
    }
    choice
}

impl Waiting {
    /// Charges this request in full if its unreserved tokens do not fit their bound in the known
    /// image, or in the predicted one.
    fn sized(self, encoding: Encoding, current: Option<Snapshot<'_>>, predicted: Option<&Image>) -> Self {
        let Some((current, predicted)) = current.zip(predicted) else { return self };
        let judged = |image| encoding.explain(&self.policy, &self.charge, image, current.at_ms);
        let is_beyond = match judged(current.image) {
            Verdict::Retry => judged(predicted) == Verdict::InFull,
            verdict => verdict == Verdict::InFull,
        };
        if is_beyond { Self { charge: self.policy.fit(&self.charge.in_full()), ..self } } else { self }
    }
}

impl Choice {
    /// Adds `write` to the batch. Returns whether that is possible.
    fn add(&mut self, write: &Write) -> bool {
        if self.reap.is_some() || self.chosen.len() == MAX_BATCH {
            return false;
        }
        let Some(combined) = self.write.then(write) else { return false };
        self.write = combined;
        true
    }
}
