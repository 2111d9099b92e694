//! The lease of a job: how long other drains leave it alone.

use crate::units::{Millis, UnixMs};

/// Length of a lease beyond the deadline of the call, for settling and storing.
const LEASE_MARGIN: Millis = Millis::from_s(15);

/// The times of one attempt at a job. They are fixed when the attempt starts. The call ends by the
/// deadline and the lease ends after it, so a lease needs no renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptTimes {
    /// End of the wait for a concurrency permit.
    pub permit_deadline: UnixMs,
    /// Time when the call, or its stream, is cut off.
    pub deadline: UnixMs,
    /// Time when another drain can claim the job.
    pub lease_ends: UnixMs,
}

impl AttemptTimes {
    /// Returns the times of an attempt whose call ends by `deadline`.
    pub fn new(permit_deadline: UnixMs, deadline: UnixMs) -> Self {
        Self { permit_deadline, deadline, lease_ends: deadline + LEASE_MARGIN }
    }
}
