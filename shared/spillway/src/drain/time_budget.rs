//! The time budget of a process: which jobs can still start, and until when they may run.
//!
//! Pure: time is an argument.

use super::lease::AttemptTimes;
use crate::units::{Millis, UnixMs};

/// Maximum time that a job waits in this process for a concurrency permit.
///
/// The permits that it waits for are held by calls of the same process, which therefore keeps
/// running anyway. And while a deferral costs six requests to AWS (two writes and two reads of the
/// job, a message sent and one deleted), this wait costs none.
const MAX_PERMIT_WAIT: Millis = Millis::from_s(30);

/// The time of one invocation, or of a process without a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBudget {
    started: UnixMs,
    deadline: Option<UnixMs>,
}

impl TimeBudget {
    /// Creates a budget from `started` until `deadline`.
    pub fn new(started: UnixMs, deadline: Option<UnixMs>) -> Self {
        Self { started, deadline }
    }

    /// Returns the end of the budget.
    pub fn deadline(&self) -> Option<UnixMs> {
        self.deadline
    }

    /// Whether a job whose call takes up to `max_call` can still start. A job that would outlive
    /// the process cannot. If a call may take as long as the whole budget, a job can start in the
    /// first moments.
    pub fn can_start(&self, max_call: Millis, now: UnixMs) -> bool {
        now <= self.last_start(max_call)
    }

    /// Returns the times of an attempt that starts at `now`, with a call of up to `max_call`.
    pub fn attempt(&self, max_call: Millis, now: UnixMs) -> AttemptTimes {
        let permit_deadline = (now + MAX_PERMIT_WAIT).min(self.last_start(max_call)).max(now);
        let deadline = (permit_deadline + max_call).min(self.deadline.unwrap_or(UnixMs::MAX));
        AttemptTimes::new(permit_deadline, deadline)
    }

    fn last_start(&self, max_call: Millis) -> UnixMs {
        let Some(deadline) = self.deadline else { return UnixMs::MAX };
        (deadline - max_call).max(self.started + MAX_PERMIT_WAIT).min(deadline)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: UnixMs = UnixMs::from_ms(0);
    const DEADLINE: UnixMs = UnixMs::from_ms(900_000);

    fn can_start(budget: TimeBudget, max_call_ms: u64, now_ms: u64) -> bool {
        budget.can_start(Millis::from_ms(max_call_ms), UnixMs::from_ms(now_ms))
    }

    #[test]
    fn a_job_that_would_outlive_its_process_does_not_start() {
        let budget = TimeBudget::new(START, Some(DEADLINE));
        assert!(can_start(budget, 300_000, 600_000) && !can_start(budget, 300_000, 600_001));
        assert!(can_start(TimeBudget::new(START, None), 300_000, u64::MAX));
    }

    #[test]
    fn a_job_that_may_take_as_long_as_its_process_starts_immediately_or_not_at_all() {
        let budget = TimeBudget::new(START, Some(DEADLINE));
        let wait_ms = MAX_PERMIT_WAIT.as_ms();
        assert!(can_start(budget, 900_000, wait_ms) && !can_start(budget, 900_000, wait_ms + 1));
    }

    proptest! {
        #[test]
        fn a_lease_outlasts_the_wait_and_the_call(
            max_call_ms in 0..900_000_u64,
            now_ms in 0..900_000_u64,
            has_deadline: bool,
        ) {
            let budget = TimeBudget::new(START, has_deadline.then_some(DEADLINE));
            let max_call = Millis::from_ms(max_call_ms);
            let times = budget.attempt(max_call, UnixMs::from_ms(now_ms));
            let call_ends = times.permit_deadline + max_call;
            prop_assert!(times.deadline >= call_ends.min(budget.deadline.unwrap_or(UnixMs::MAX)));
            prop_assert!(times.deadline <= budget.deadline.unwrap_or(UnixMs::MAX));
            prop_assert!(times.lease_ends > times.deadline);
        }
    }
}
