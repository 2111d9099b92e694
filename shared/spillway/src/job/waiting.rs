//! Why a job waits, and when failures of its pools end it.

use serde::{Deserialize, Serialize};

use crate::{
    problem::{Problem, RefusedBy, SkippedPool},
    tenant::Tenant,
    units::{Millis, UnixMs},
};

/// What kept the last attempt at a job from an answer. It has names of pools, limits and errors
/// only, so the tenant may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitReason {
    /// Name of the pool that did not take the request; `None` if no pool is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The limit that is reached, the outage of the pool, the service of the broker that is
    /// unavailable, or another reason in one word.
    pub reason: String,
    /// Code of the error with which Bedrock answered, if it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl WaitReason {
    /// A limit or a service, which is no pool.
    pub fn named(reason: impl Into<String>) -> Self {
        Self { pool: None, reason: reason.into(), error: None }
    }

    fn for_pool(skipped: &SkippedPool) -> Self {
        let error = skipped.error.as_ref().map(|error| error.as_str().to_owned());
        Self { pool: Some(skipped.pool.clone()), reason: skipped.reason.to_owned(), error }
    }

    /// Whether the reason is the same, whatever error Bedrock named.
    fn is_like(&self, reason: &Self) -> bool {
        (&self.pool, &self.reason) == (&reason.pool, &reason.reason)
    }

    fn text(&self) -> String {
        let reason = self.error.as_ref().unwrap_or(&self.reason);
        self.pool.as_ref().map_or_else(|| reason.clone(), |pool| format!("{pool}: {reason}"))
    }
}

/// What an attempt that ended without an answer, and without a call that may be billed, means for
/// its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstruction {
    /// The reasons: pools in the order in which they were tried, or limits, most binding first.
    pub reasons: Vec<WaitReason>,
    /// Whether it counts as a failure.
    pub kind: ObstructionKind,
}

/// Whether an obstruction is a failure of the pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstructionKind {
    /// No pool that the request may use works. `is_called` if at least one of them was called.
    Failure { is_called: bool },
    /// Limits of the tenant or pools have no room, or a service of the broker is unavailable. If
    /// one pool is full and the others fail, the job waits for room.
    Other,
}

impl Obstruction {
    /// A limit without room that is not checked by the broker.
    pub fn for_limit(name: &str) -> Self {
        Self { reasons: vec![WaitReason::named(name)], kind: ObstructionKind::Other }
    }

    /// Reads the reasons from the problem of an attempt that is not billed.
    pub fn from_problem(problem: &Problem) -> Self {
        let skipped = problem.skipped.as_deref().filter(|skipped| !skipped.pools.is_empty());
        let limit_names = problem.refused_by.iter().flat_map(RefusedBy::limit_names);
        let reasons = match (&problem.refused_by, problem.unavailable_service, skipped) {
            (_, Some(service), _) => vec![WaitReason::named(service)],
            (None | Some(RefusedBy::Pools), None, Some(skipped)) => {
                skipped.pools.iter().map(WaitReason::for_pool).collect()
            }
            (None, None, None) => vec![WaitReason::named(problem.kind.name())],
            (Some(_), None, _) => limit_names.map(|name| WaitReason::named(name.to_string())).collect(),
        };
        let failed = skipped.filter(|skipped| {
            skipped.is_whole_ladder && problem.refused_by.is_none() && problem.unavailable_service.is_none()
        });
        let kind = match failed {
            Some(failed) => {
                ObstructionKind::Failure { is_called: failed.pools.iter().any(|skipped| skipped.is_called) }
            }
            None => ObstructionKind::Other,
        };
        Self { reasons, kind }
    }
}

/// Bounds of the failures of a job's pools. A job that reaches either of them fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureBounds {
    /// Maximum number of attempts that called pools, all of which failed.
    pub max_failures: u64,
    /// Maximum time from the first failure on.
    pub max_failing: Millis,
}

impl FailureBounds {
    /// No bounds.
    pub const NONE: Self = Self { max_failures: u64::MAX, max_failing: Millis::from_ms(u64::MAX) };

    /// Returns the bounds that hold for jobs of `tenant`.
    pub fn for_tenant(tenant: &Tenant) -> Self {
        Self { max_failures: tenant.job_max_failures(), max_failing: tenant.job_max_failing() }
    }
}

/// Why a job waits or waited, as of its last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobWait {
    /// The last reasons.
    #[serde(rename = "for")]
    pub reasons: Vec<WaitReason>,
    /// Number of times in a row that the request was refused, or its job put back, for these
    /// reasons. Bedrock may have named different errors.
    pub times: u64,
    /// The failures of its pools; `None` if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing: Option<Failing>,
}

/// Failures of a job's pools that no answer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Failing {
    /// Number of attempts that called pools, all of which failed.
    failures: u64,
    /// Time of the first failure, later by the time for which the job waited for something else.
    #[serde(rename = "since_ms")]
    since: UnixMs,
    /// Time from which the job has waited for something else.
    #[serde(rename = "paused_ms", default, skip_serializing_if = "Option::is_none")]
    paused_at: Option<UnixMs>,
}

impl Failing {
    /// The failures after an attempt that ended at `now`.
    ///
    /// An attempt that found no room, or met an unavailable service of the broker, proves nothing
    /// about the pools. So it neither counts as a failure nor makes the earlier ones undone: the
    /// number stays, and the time stands still until the next failure. Otherwise a tenant's full
    /// limits could end a job that has failed once, or keep a job alive that always fails.
    fn after(earlier: Option<Self>, kind: ObstructionKind, now: UnixMs) -> Option<Self> {
        let ObstructionKind::Failure { is_called } = kind else {
            return earlier.map(|failing| Self { paused_at: failing.paused_at.or(Some(now)), ..failing });
        };
        let earlier = earlier.unwrap_or(Self { failures: 0, since: now, paused_at: None });
        let paused = earlier.paused_at.map_or(Millis::ZERO, |paused_at| now - paused_at);
        Some(Self {
            failures: earlier.failures.saturating_add(u64::from(is_called)),
            since: earlier.since + paused,
            paused_at: None,
        })
    }

    fn time(self, now: UnixMs) -> Millis {
        self.paused_at.unwrap_or(now) - self.since
    }
}

impl JobWait {
    /// The wait after an attempt that ended at `now` with `obstruction`.
    ///
    /// A pool that is passed over has no error of its outage. It keeps the error that Bedrock named
    /// when the pool was last called for this job.
    pub fn after(earlier: Option<&Self>, obstruction: Obstruction, now: UnixMs) -> Self {
        let Obstruction { mut reasons, kind } = obstruction;
        let known = earlier.map(|earlier| &earlier.reasons[..]).unwrap_or_default();
        for reason in reasons.iter_mut().filter(|reason| reason.error.is_none()) {
            reason.error = known.iter().find(|known| known.is_like(reason)).and_then(|known| known.error.clone());
        }
        let is_same = known.len() == reasons.len() && known.iter().zip(&reasons).all(|(a, b)| a.is_like(b));
        let times = earlier.filter(|_| is_same).map_or(1, |earlier| earlier.times.saturating_add(1));
        let failing = Failing::after(earlier.and_then(|earlier| earlier.failing), kind, now);
        Self { reasons, times, failing }
    }

    /// Number of attempts that called pools, all of which failed.
    pub fn failures(&self) -> u64 {
        self.failing.map_or(0, |failing| failing.failures)
    }

    /// Whether the last attempt ended because no pool works.
    pub fn is_failing(&self) -> bool {
        self.failing.is_some_and(|failing| failing.paused_at.is_none())
    }

    /// Time for which the pools have failed, without the time for which the job waited for
    /// something else.
    pub fn failing_time(&self, now: UnixMs) -> Millis {
        self.failing.map_or(Millis::ZERO, |failing| failing.time(now))
    }

    /// Whether the failures have reached one of the `bounds`. A job that waits for something else
    /// is not ended by earlier failures.
    pub fn is_over(&self, bounds: &FailureBounds, now: UnixMs) -> bool {
        let is_reached = self.failures() >= bounds.max_failures || self.failing_time(now) >= bounds.max_failing;
        self.is_failing() && is_reached
    }

    /// Time of the last attempt that `bounds` leave to a job whose pools fail.
    pub fn last_try(&self, bounds: &FailureBounds, now: UnixMs) -> UnixMs {
        match self.is_failing() {
            true => now + (bounds.max_failing - self.failing_time(now)),
            false => UnixMs::MAX,
        }
    }

    /// Returns the failures in a sentence, for a job that ends with them at `now`.
    pub fn failure_text(&self, now: UnixMs) -> String {
        let seconds = self.failing_time(now).as_s_rounded_up();
        let tries = match self.failures() {
            0 => String::new(),
            1 => " and one try".to_owned(),
            failures => format!(" and {failures} tries"),
        };
        format!("No pool answered in {seconds} s{tries}; {}.", self.reasons_text())
    }

    /// Returns the reasons in words, such as `od: InternalServerException`.
    fn reasons_text(&self) -> String {
        self.reasons.iter().map(WaitReason::text).collect::<Vec<_>>().join(", ")
    }

    /// Returns the reasons and their number, such as `od: InternalServerException, 12 times`.
    pub fn text(&self) -> String {
        match self.times {
            1 => format!("{}, once", self.reasons_text()),
            times => format!("{}, {times} times", self.reasons_text()),
        }
    }
}

#[cfg(test)]
mod tests;
