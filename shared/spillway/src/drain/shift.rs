//! How long a process has for jobs, and what that means for one of them. Pure: time is an argument.

/// How long a job may wait in this process for its turn at a pool, in milliseconds.
///
/// What it waits for are calls of the same process, which therefore goes on in any case; and while a deferral costs six
/// requests to AWS (two writes and two reads of the job, a message sent and one deleted), this wait costs none.
const PATIENCE_MS: u64 = 30_000;

/// What a lease has beyond the call, for settling and storing, in milliseconds.
const LEASE_MARGIN_MS: u64 = 15_000;

/// The time of one invocation, or of a process that nobody ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    began_ms: u64,
    deadline_ms: Option<u64>,
}

/// The times of one attempt at a job, in milliseconds since 1970. They are fixed when the attempt begins. The lease ends
/// after the deadline, and the call ends by it, so a lease needs no renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptTimes {
    /// How long the job may wait for its turn at a pool.
    pub patient_until_ms: u64,
    /// When the call, or its stream, is cut off.
    pub deadline_ms: u64,
    /// When another drain may claim the job.
    pub lease_ends_ms: u64,
}

impl Shift {
    /// A shift from now until `deadline_ms`, in milliseconds since 1970.
    pub fn new(began_ms: u64, deadline_ms: Option<u64>) -> Self {
        Self { began_ms, deadline_ms }
    }

    /// When it ends.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Whether a job whose call takes up to `call_ms` may still begin: one that the process would not survive may not.
    /// Where a call may take as long as the whole shift, it may in the first moments.
    pub fn may_begin(&self, call_ms: u64, now_ms: u64) -> bool {
        now_ms <= self.last_begin_ms(call_ms)
    }

    /// The times of an attempt at a job that begins at `now_ms` and whose call takes up to `call_ms`.
    pub fn attempt(&self, call_ms: u64, now_ms: u64) -> AttemptTimes {
        let patient_until_ms = now_ms.saturating_add(PATIENCE_MS).min(self.last_begin_ms(call_ms)).max(now_ms);
        let deadline_ms = patient_until_ms.saturating_add(call_ms).min(self.deadline_ms.unwrap_or(u64::MAX));
        AttemptTimes { patient_until_ms, deadline_ms, lease_ends_ms: deadline_ms.saturating_add(LEASE_MARGIN_MS) }
    }

    fn last_begin_ms(&self, call_ms: u64) -> u64 {
        let Some(deadline_ms) = self.deadline_ms else { return u64::MAX };
        deadline_ms.saturating_sub(call_ms).max(self.began_ms.saturating_add(PATIENCE_MS)).min(deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEADLINE_MS: u64 = 900_000;

    #[test]
    fn a_job_that_would_outlive_its_process_is_not_begun() {
        let shift = Shift::new(0, Some(DEADLINE_MS));
        assert!(shift.may_begin(300_000, 600_000) && !shift.may_begin(300_000, 600_001));
        assert!(Shift::new(0, None).may_begin(300_000, u64::MAX));
    }

    #[test]
    fn a_job_that_may_take_as_long_as_its_process_is_begun_at_once_or_not() {
        let shift = Shift::new(0, Some(DEADLINE_MS));
        assert!(shift.may_begin(900_000, PATIENCE_MS) && !shift.may_begin(900_000, PATIENCE_MS + 1));
    }

    proptest! {
        #[test]
        fn a_lease_outlasts_the_wait_and_the_call(
            call_ms in 0..900_000_u64,
            now_ms in 0..900_000_u64,
            has_deadline: bool,
        ) {
            let shift = Shift::new(0, has_deadline.then_some(DEADLINE_MS));
            let times = shift.attempt(call_ms, now_ms);
            let call_ends_ms = times.patient_until_ms + call_ms;
            prop_assert!(times.deadline_ms >= call_ends_ms.min(shift.deadline_ms.unwrap_or(u64::MAX)));
            prop_assert!(times.deadline_ms <= shift.deadline_ms.unwrap_or(u64::MAX));
            prop_assert_eq!(times.lease_ends_ms, times.deadline_ms + LEASE_MARGIN_MS);
        }
    }
}
