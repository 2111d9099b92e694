//! Replay of traffic in virtual time.

use std::{cmp::Reverse, collections::BinaryHeap};

use spillway::units::Millis;

use super::{
    ledger::PoolLedger,
    outcome::{Fate, Outcome},
    quota::Quota,
    traffic::{Arrival, Traffic},
};

/// Replays `traffic` on a pool with `limit` tokens per minute that enforces `quota`. With a
/// `ledger`, only requests that it admits are sent to the pool. A request waits for room in the
/// ledger for up to `hold`, as `broker::serve` does.
pub fn replay(
    name: &'static str,
    traffic: &Traffic,
    limit: u64,
    mut ledger: Option<PoolLedger>,
    mut quota: Quota,
    hold: Millis,
) -> Outcome {
    let mut outcome = Outcome::new(name, limit, traffic.length_ms());
    let mut waiting: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut arrivals = traffic.arrivals.iter().enumerate().peekable();
    loop {
        let first_waits_until = waiting.peek().map(|Reverse((at_ms, _))| *at_ms);
        let is_next = |(_, arrival): &(usize, &Arrival)| first_waits_until.is_none_or(|at_ms| arrival.at_ms < at_ms);
        let (now_ms, index) = match arrivals.next_if(is_next) {
            Some((index, arrival)) => (arrival.at_ms, index),
            None => match waiting.pop() {
                Some(Reverse(next)) => next,
                None => return outcome,
            },
        };
        let Arrival { at_ms, tokens } = traffic.arrivals[index];
        let fate = match offer(ledger.as_mut(), &mut quota, tokens, now_ms) {
            Ok(fate) => fate,
            Err(retry_after) => {
                let retry_at_ms = now_ms + retry_after.as_ms();
                if retry_at_ms <= at_ms + hold.as_ms() {
                    waiting.push(Reverse((retry_at_ms, index)));
                    continue;
                }
                Fate::Spilled
            }
        };
        outcome.add(tokens, fate, now_ms);
    }
}

/// Offers a request to the pool. Returns the time of the next try if the ledger has no room.
fn offer(ledger: Option<&mut PoolLedger>, quota: &mut Quota, tokens: u64, now_ms: u64) -> Result<Fate, Millis> {
    let Some(ledger) = ledger else {
        return Ok(if quota.takes(tokens, now_ms) { Fate::Served } else { Fate::Throttled });
    };
    if ledger.never_fits(tokens) {
        return Ok(Fate::Spilled);
    }
    let reservation = ledger.reserve(tokens, now_ms)?;
    let is_served = quota.takes(tokens, now_ms);
    ledger.settle(&reservation, is_served);
    Ok(if is_served { Fate::Served } else { Fate::Throttled })
}
