//! How far this machine's clock is off: compared with the `Date` of every reply of DynamoDB (RFC 9110 §6.6.1).
//!
//! The ledger's windows are named by the clocks of those who write, and its bounds hold while those are about right. So a
//! process whose clock is off by more than a second for sure admits nothing. It costs no request of its own: a process reads the
//! registry before it first charges anything, and again every few seconds.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{
    DateTime,
    config_bag::{ConfigBag, Layer, Storable, StoreReplace},
    date_time::Format,
};

use super::StoreError;
use crate::{clock::Clock, quota::MOST_SKEW_MS};

/// How far the clock may be off for sure, in milliseconds. A `Date` has whole seconds, so it may be off by a second more.
const MOST_MS: u64 = MOST_SKEW_MS - 1_000;

/// A clock and what DynamoDB's replies say of it. Clones share the finding.
#[derive(Debug, Clone)]
pub struct Skew {
    clock: Clock,
    found: Arc<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By how much the clock is ahead at least, according to the last reply, in milliseconds; negative if it is behind.
    last_ms: AtomicI64,
    /// The same according to the reply before: one odd `Date` is nobody's clock.
    before_ms: AtomicI64,
}

#[derive(Debug)]
struct SentAtMs(u64);

impl Storable for SentAtMs {
    type Storer = StoreReplace<Self>;
}

impl Skew {
    /// Watches `clock`. It does so as an interceptor of a client.
    pub fn new(clock: Clock) -> Self {
        Self { clock, found: Arc::default() }
    }

    /// Whether the clock is good enough to charge by.
    ///
    /// # Errors
    /// By how much it is off.
    pub fn check(&self) -> Result<(), StoreError> {
        let (last_ms, before_ms) =
            (self.found.last_ms.load(Ordering::Relaxed), self.found.before_ms.load(Ordering::Relaxed));
        if last_ms.unsigned_abs().min(before_ms.unsigned_abs()) <= MOST_MS {
            return Ok(());
        }
        let direction = if last_ms > 0 { "ahead of" } else { "behind" };
        Err(StoreError::Clock(format!("this machine's clock is {} ms {direction} DynamoDB's", last_ms.unsigned_abs())))
    }

    /// A request was sent at `sent_ms`, and its reply, which is here at `received_ms`, was stamped in the second of
    /// `date_s`: whatever lies outside of what that allows is the clock's fault.
    fn note(&self, sent_ms: u64, date_s: u64, received_ms: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let (second_begins_ms, second_ends_ms) = (date_s.saturating_mul(1_000), (date_s + 1).saturating_mul(1_000));
        let ahead_ms = signed(sent_ms.saturating_sub(second_ends_ms));
        let behind_ms = signed(second_begins_ms.saturating_sub(received_ms));
        let before_ms = self.found.last_ms.swap(ahead_ms - behind_ms, Ordering::Relaxed);
        self.found.before_ms.store(before_ms, Ordering::Relaxed);
    }
}

impl Intercept for Skew {
    fn name(&self) -> &'static str {
        "Skew"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut layer = Layer::new("Skew");
        layer.store_put(SentAtMs(self.clock.now_ms()));
        config.push_layer(layer);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date =
            context.response().headers().get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        let date_s = date.and_then(|date| u64::try_from(date.secs()).ok());
        if let (Some(SentAtMs(sent_ms)), Some(date_s)) = (config.load::<SentAtMs>(), date_s) {
            self.note(*sent_ms, date_s, self.clock.now_ms());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two replies of the second 1,000 say of a clock that reads `at_ms`.
    fn judged(at_ms: u64) -> Option<String> {
        let skew = Skew::new(Clock::default());
        for _ in 0..2 {
            skew.note(at_ms, 1_000, at_ms + 10);
        }
        skew.check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_clock_within_a_second_is_good_enough() {
        for at_ms in [999_000, 1_000_000, 1_000_999, 1_002_000] {
            assert_eq!(judged(at_ms), None, "{at_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_further_off_is_told_with_how_far() {
        let (behind, ahead) = (judged(997_000).expect("behind"), judged(1_004_000).expect("ahead"));
        assert!(behind.contains("2990 ms behind"), "{behind}");
        assert!(ahead.contains("3000 ms ahead"), "{ahead}");
    }

    #[test]
    fn one_odd_date_is_nobodys_clock_and_a_good_one_ends_it() {
        let skew = Skew::new(Clock::default());
        skew.note(5_000_000, 1_000, 5_000_000);
        assert!(skew.check().is_ok());
        skew.note(5_000_000, 1_000, 5_000_000);
        assert!(skew.check().is_err());
        skew.note(5_000_000, 5_000, 5_000_000);
        assert!(skew.check().is_ok());
    }
}
