//! Ledger item of a pool, in memory.

use serde_json::json;
use spillway::{
    broker,
    pool::{Model, Pool, PoolKind},
    quota::{Charge, Image, Policy, Reservation, Settled, Verdict, explain, reserve, settle, too_large},
    units::{Millis, UnixMs},
};

/// Start of every replay: the beginning of an epoch.
const START: UnixMs = UnixMs::from_ms(1_764_000_000_000);

/// Duration of a call.
const CALL: Millis = Millis::from_s(5);

/// The ledger item of a pool with the default burst of its kind.
pub struct PoolLedger {
    policy: Policy,
    image: Image,
    start: UnixMs,
}

impl PoolLedger {
    /// Creates the item of a pool with `limit` tokens per minute. The replay starts `start_ms`
    /// after the beginning of an epoch.
    pub fn new(limit: u64, kind: PoolKind, start_ms: u64) -> Self {
        let pool = json!({"name": "pool", "kind": kind, "model_id": "m", "limits": {"tokens_per_minute": limit}});
        let pool: Pool = serde_json::from_value(pool).expect("a pool");
        let model: Model =
            serde_json::from_value(json!({"name": "model", "version": 1, "ladder": [pool]})).expect("a model");
        let account = broker::account_for_pool(&model, &pool, 100);
        let policy = account.policy.slice(0, account.shards);
        Self { policy, image: Image::default(), start: START + Millis::from_ms(start_ms) }
    }

    /// Returns whether a request of `tokens` is larger than the limit.
    pub fn never_fits(&self, tokens: u64) -> bool {
        !too_large(&self.policy.limits, &charge(tokens)).is_empty()
    }

    /// Reserves `tokens` at `at_ms` after the start.
    ///
    /// # Errors
    /// Returns the time until they fit if they do not.
    pub fn reserve(&mut self, tokens: u64, at_ms: u64) -> Result<Reservation, Millis> {
        let at = self.start + Millis::from_ms(at_ms);
        let charge = self.policy.fit(&charge(tokens));
        let mut reservation = Reservation::new(&self.policy, charge, at, at + CALL);
        if self.image.apply(&reserve(&self.policy, &reservation, None)) {
            reservation.note_stale(&self.image);
            return Ok(reservation);
        }
        match explain(&self.policy, &charge, &self.image, at) {
            Verdict::Refused(refusal) => Err(refusal.retry_after()),
            verdict => unreachable!("{verdict:?} without another writer or a limit of requests in flight"),
        }
    }

    /// Settles a reservation with what it reserved, or refunds it if the pool did not take it.
    pub fn settle(&mut self, reservation: &Reservation, is_served: bool) {
        let charge = if is_served { reservation.charge } else { Charge::ZERO };
        let settled = Settled { charge, ..Settled::default() };
        assert!(self.image.apply(&settle(reservation, &settled, reservation.at)), "its slot is in the item");
    }
}

fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, ..Charge::ZERO }
}
