//! Who goes with the next write of a lane: the rule of `store::ledger::reserving`. Limits do not change here and nobody waits
//! past its deadline, so to free one dead slot always makes room for one request.

use spillway::quota::{Charge, Policy, Reservation, Verdict, Write};

use crate::ledger::encoding::{Encoding, Sight};

/// The most reservations in one write.
const MOST_AT_ONCE: usize = 50;

/// One request that waits for an item.
pub struct Waiting {
    pub request: usize,
    pub policy: Policy,
    pub charge: Charge,
    pub expires_ms: u64,
}

/// What a writer knows of an item.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// What it held when this round was last refused, or was read; with the clock to judge it by.
    pub seen: Option<Sight<'a>>,
    /// What it held when this process last saw it.
    pub remembered: Option<Sight<'a>>,
}

/// Who goes with the next write.
#[derive(Default)]
pub struct Choice {
    pub write: Write,
    pub chosen: Vec<(usize, Reservation)>,
    pub rest: Vec<usize>,
    pub refused: Vec<usize>,
    /// The dead slot that the write frees.
    pub reap: Option<(u64, u64)>,
}

/// Chooses, first come first served, those whose reservations one write can make. If the item was seen, only those that fit
/// on it, one on top of the other; those that do not fit at all are refused.
pub fn choose(encoding: Encoding, waiting: Vec<Waiting>, known: Known<'_>, now_ms: u64) -> Choice {
    let mut choice = Choice::default();
    let mut predicted = known.seen.map(|sight| sight.image.clone());
    let mut first_policy = None;
    for one in waiting {
        let reservation = Reservation::new(one.charge, now_ms, one.expires_ms);
        let last_seen = known.seen.or(known.remembered);
        let mut write = encoding.reserve(&one.policy, &reservation, last_seen, None);
        let is_first = choice.chosen.is_empty();
        if let (Some(sight), Some(predicted)) = (known.seen, &predicted)
            && (encoding != Encoding::Staircase || !predicted.admits(&write))
        {
            match encoding.explain(&one.policy, &one.charge, sight.image, sight.at_ms) {
                Verdict::Refused(_) | Verdict::Stale => {
                    choice.refused.push(one.request);
                    continue;
                }
                Verdict::Reap(slot, count) if is_first => {
                    choice.reap = Some((slot, count));
                    write = encoding.reserve(&one.policy, &reservation, last_seen, choice.reap);
                }
                Verdict::Retry if is_first => {}
                Verdict::Reap(..) | Verdict::Retry => {
                    choice.rest.push(one.request);
                    continue;
                }
            }
        }
        let is_alike = *first_policy.get_or_insert(one.policy) == one.policy;
        if !(is_first || is_alike && choice.takes(&write)) {
            choice.rest.push(one.request);
            continue;
        }
        if is_first {
            choice.write = write.clone();
        }
        if let Some(predicted) = &mut predicted {
            predicted.apply(&write);
        }
        choice.chosen.push((one.request, reservation));
    }
    choice
}

impl Choice {
    /// Whether `write` can go along with those that are chosen.
    fn takes(&mut self, write: &Write) -> bool {
        if self.reap.is_some() || self.chosen.len() == MOST_AT_ONCE {
            return false;
        }
        let Some(both) = self.write.then(write) else { return false };
        self.write = both;
        true
    }
}
