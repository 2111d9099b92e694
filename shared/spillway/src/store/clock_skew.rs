//! Clock skew: the difference between this machine's clock and the `Date` of every DynamoDB reply
//! (RFC 9110 §6.6.1).
//!
//! Writers name the ledger's windows by their own clocks, and the limits hold only while these
//! clocks are about right. So a process whose clock is certainly off by more than a second admits
//! nothing. A `Date` has whole seconds, so a clock may be off by up to two seconds before it is
//! certainly off by one. The check costs no request: a process reads the registry before its first
//! charge, and each later charge is a request too.

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
use crate::{
    clock::Clock,
    quota::MAX_CLOCK_SKEW,
    units::{Millis, UnixMs},
};

/// Maximum skew that a reply may prove. A `Date` has whole seconds, so the actual skew may be a
/// second larger.
const MAX_PROVEN_MS: u64 = MAX_CLOCK_SKEW.as_ms() - 1_000;

/// Measures the skew of a clock by DynamoDB's replies. Clones share the measurement.
#[derive(Debug, Clone)]
pub struct ClockSkew {
    clock: Clock,
    measured: Arc<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    /// Minimum lead of the clock according to the last reply, in milliseconds; negative if the
    /// clock is behind.
    last_ms: AtomicI64,
    /// The same according to the reply before it: a single odd `Date` proves nothing.
    before_ms: AtomicI64,
}

#[derive(Debug)]
struct SentAt(UnixMs);

impl Storable for SentAt {
    type Storer = StoreReplace<Self>;
}

impl ClockSkew {
    /// Creates a measurement of `clock`. It must be added to a client as an interceptor.
    pub fn new(clock: Clock) -> Self {
        Self { clock, measured: Arc::default() }
    }

    /// Checks that the clock is accurate enough to charge by.
    ///
    /// # Errors
    /// Returns an error with the skew if it is not.
    pub fn check(&self) -> Result<(), StoreError> {
        let (last_ms, before_ms) =
            (self.measured.last_ms.load(Ordering::Relaxed), self.measured.before_ms.load(Ordering::Relaxed));
        if last_ms.unsigned_abs().min(before_ms.unsigned_abs()) <= MAX_PROVEN_MS {
            return Ok(());
        }
        let direction = if last_ms > 0 { "ahead of" } else { "behind" };
        Err(StoreError::Clock(format!("this machine's clock is {} ms {direction} DynamoDB's", last_ms.unsigned_abs())))
    }

    /// Notes a request that was sent at `sent_at`, whose reply arrived at `received_at` and was
    /// stamped in the second that begins at `date`. The reply proves the part of the difference
    /// that the duration of the request and the length of the second do not explain.
    fn note(&self, sent_at: UnixMs, date: UnixMs, received_at: UnixMs) {
        let signed = |length: Millis| i64::try_from(length.as_ms()).unwrap_or(i64::MAX);
        let ahead_ms = signed(sent_at - (date + Millis::from_s(1)));
        let behind_ms = signed(date - received_at);
        let before_ms = self.measured.last_ms.swap(ahead_ms - behind_ms, Ordering::Relaxed);
        self.measured.before_ms.store(before_ms, Ordering::Relaxed);
    }
}

impl Intercept for ClockSkew {
    fn name(&self) -> &'static str {
        "ClockSkew"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut layer = Layer::new("ClockSkew");
        layer.store_put(SentAt(self.clock.now()));
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
        let date = date.and_then(|date| u64::try_from(date.secs()).ok());
        let date = date.map(|seconds| UnixMs::default() + Millis::from_s(seconds));
        if let (Some(SentAt(sent_at)), Some(date)) = (config.load::<SentAt>(), date) {
            self.note(*sent_at, date, self.clock.now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the error for a clock that reads `at_ms` when two replies are stamped with second
    /// 1,000.
    fn judged(at_ms: u64) -> Option<String> {
        let (skew, at) = (ClockSkew::new(Clock::default()), UnixMs::from_ms(at_ms));
        for _ in 0..2 {
            skew.note(at, UnixMs::from_ms(1_000_000), at + Millis::from_ms(10));
        }
        skew.check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_clock_within_a_second_is_accurate_enough() {
        for at_ms in [999_000, 1_000_000, 1_000_999, 1_002_000] {
            assert_eq!(judged(at_ms), None, "{at_ms}");
        }
    }

    #[test]
    fn an_error_names_the_skew_and_its_direction() {
        let (behind, ahead) = (judged(997_000).expect("behind"), judged(1_004_000).expect("ahead"));
        assert!(behind.contains("2990 ms behind"), "{behind}");
        assert!(ahead.contains("3000 ms ahead"), "{ahead}");
    }

    #[test]
    fn a_single_odd_date_proves_nothing_and_a_good_date_ends_the_error() {
        let (skew, now) = (ClockSkew::new(Clock::default()), UnixMs::from_ms(5_000_000));
        skew.note(now, UnixMs::from_ms(1_000_000), now);
        assert!(skew.check().is_ok());
        skew.note(now, UnixMs::from_ms(1_000_000), now);
        assert!(skew.check().is_err());
        skew.note(now, now, now);
        assert!(skew.check().is_ok());
    }
}
