//! The clock of a process, in the form that a pool of connections needs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::{
    rt::sleep::{AsyncSleep, Sleep},
    time::TimeSource,
};

use crate::{clock::Clock, units::Millis};

/// A [`Clock`] for a pool of connections.
#[derive(Debug)]
pub(super) struct PoolClock(pub Clock);

impl TimeSource for PoolClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now().as_ms())
    }
}

impl AsyncSleep for PoolClock {
    fn sleep(&self, duration: Duration) -> Sleep {
        let clock = self.0.clone();
        let wakes_at = clock.now() + Millis::from(duration);
        Sleep::new(async move { clock.sleep_until(wakes_at).await })
    }
}
