//! Transitions of a job: what to do when a message about it arrives, and the result of each step.

use super::{FailureBounds, Job, JobReader, JobStatus, JobWait, NewJob, RESEND_AFTER, Redelivery};
use crate::{
    tenant::EventType,
    units::{Millis, UnixMs},
};

/// Maximum of claims that end in a failure, or with the death of their drain, before the job
/// fails.
///
/// A claim makes at most one call that may be billed, and one for each silent pool that passes its
/// calls on to the next pool. Calls that a pool throttles, denies or fails without a bill are not
/// counted here, but [`FailureBounds`] bounds the failures. A claim makes at most one of them to
/// each pool of the ladder.
pub const MAX_ATTEMPTS: u32 = 3;

/// A message that arrives this early is not sent again: SQS delays whole seconds, and its clock
/// differs from ours.
const MAX_EARLY: Millis = Millis::from_s(1);

/// Shortest deferral. Shorter ones would only cost requests.
const MIN_DEFERRAL: Millis = Millis::from_s(1);

/// The shortest deferral doubles this often at most. Longer ones would leave free room unused.
const MAX_DOUBLINGS: u32 = 3;

/// The shortest deferral after failed calls doubles this often at most.
const MAX_FAILURE_DOUBLINGS: u64 = 6;

/// Maximum of the shortest deferral after failed calls. With it, the default number of failures
/// lasts for 14 minutes.
const MAX_FAILURE_PAUSE: Millis = Millis::from_s(60);

/// Maximum of the jitter of a deferral.
const MAX_JITTER: Millis = Millis::from_s(30);

/// Number of steps of the jitter.
const JITTER_STEPS: u64 = 1_000;

/// Time after which the sweep makes sure that a parked job still has a turn.
const PARKED_CHECK: Millis = Millis::from_s(6 * 60 * 60);

/// What to do with a job whose message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Claim the job and run it.
    Run,
    /// The job cannot be claimed yet: look again at this time.
    Wait { until: UnixMs },
    /// The job has expired.
    Expire,
    /// The drain of every attempt died: the job fails.
    GiveUp,
    /// The job has ended, so the message can be deleted.
    Drop(JobStatus),
}

impl Job {
    /// A job that was just accepted.
    pub fn accepted(id: String, new: &NewJob) -> Self {
        Self {
            id,
            tenant: new.tenant.clone(),
            call: new.call.clone(),
            status: JobStatus::Queued,
            created_at: new.created_at,
            ready_at: new.ready_at,
            redelivery: match new.is_parked {
                true => parked_redelivery(new.expires_at, new.created_at),
                false => Redelivery::new(new.ready_at),
            },
            started_at: None,
            finished_at: None,
            expires_at: new.expires_at,
            is_parked: new.is_parked,
            priority: new.priority,
            class: new.class,
            member: new.member.clone(),
            reader: JobReader::Later,
            is_deleted: false,
            fence: 0,
            attempts: 0,
            deferrals: 0,
            wait: new.wait.clone(),
            error: None,
            result_fence: None,
            pending_event: None,
            etag: String::new(),
        }
    }

    /// What to do when a message about the job arrives at `now`. A running job may outlive its
    /// expiry, because its answer is on the way. The message of a parked job comes when there is
    /// room, which may be before the time that the refusal named.
    pub fn next_step(&self, now: UnixMs) -> NextStep {
        match self.status {
            JobStatus::Queued if now >= self.expires_at => NextStep::Expire,
            JobStatus::Queued if !self.is_parked && now + MAX_EARLY < self.ready_at => {
                NextStep::Wait { until: self.ready_at }
            }
            JobStatus::Running if now < self.ready_at => NextStep::Wait { until: self.ready_at },
            JobStatus::Running if now >= self.expires_at => NextStep::Expire,
            JobStatus::Queued | JobStatus::Running if self.attempts >= MAX_ATTEMPTS => NextStep::GiveUp,
            JobStatus::Queued | JobStatus::Running => NextStep::Run,
            ended => NextStep::Drop(ended),
        }
    }

    /// The job under a new lease that ends `lease` from now.
    pub fn claimed(&self, lease: Millis, now: UnixMs) -> Self {
        Self {
            status: JobStatus::Running,
            ready_at: now + lease,
            redelivery: Redelivery::new(now + lease),
            is_parked: false,
            started_at: Some(now),
            fence: self.fence.saturating_add(1),
            attempts: self.attempts.saturating_add(1),
            ..self.clone()
        }
    }

    /// The job back in the queue because of `wait`. The attempt does not count.
    pub fn deferred(&self, wait: &JobWait, ready_at: UnixMs) -> Self {
        Self { attempts: self.attempts.saturating_sub(1), ..self.postponed(wait, ready_at) }
    }

    /// The job back in the queue because its tenant's limits have no room until `ready_at`. It
    /// waits for a turn of the tenant. The attempt does not count.
    pub fn parked(&self, wait: &JobWait, ready_at: UnixMs, now: UnixMs) -> Self {
        let redelivery = parked_redelivery(self.expires_at, now);
        Self { is_parked: true, redelivery, ..self.deferred(wait, ready_at) }
    }

    /// The queued job, not to be claimed before `ready_at` because of `wait`.
    pub fn postponed(&self, wait: &JobWait, ready_at: UnixMs) -> Self {
        Self {
            deferrals: self.deferrals.saturating_add(1),
            wait: Some(Box::new(wait.clone())),
            ..self.retried(ready_at)
        }
    }

    /// The failed job back in the queue, with all its attempts and its original lifetime. Its fence
    /// is kept, so drains that held the job before cannot change it.
    pub fn redriven(&self, now: UnixMs) -> Self {
        Self {
            expires_at: now + (self.expires_at - self.created_at),
            redelivery: Redelivery::new(now),
            started_at: None,
            finished_at: None,
            attempts: 0,
            deferrals: 0,
            wait: None,
            error: None,
            result_fence: None,
            pending_event: None,
            ..self.retried(now)
        }
    }

    /// The job back in the queue because the attempt failed.
    pub fn retried(&self, ready_at: UnixMs) -> Self {
        let redelivery = self.redelivery.moved_to(ready_at);
        Self { status: JobStatus::Queued, ready_at, is_parked: false, redelivery, ..self.clone() }
    }

    /// The job after its end. A job that was answered does not keep the reason why it waited.
    pub fn ended(&self, status: JobStatus, error: Option<String>, now: UnixMs) -> Self {
        let wait = self.wait.clone().filter(|_| status != JobStatus::Succeeded);
        Self { status, error, wait, is_parked: false, finished_at: Some(now), ..self.clone() }
    }

    /// Whether the drain that claimed the job under `fence` still holds it. It holds the job beyond
    /// the end of the lease, until another drain claims it.
    pub fn is_held_under(&self, fence: u64) -> bool {
        self.status == JobStatus::Running && self.fence == fence
    }

    /// Whether the job has work left: its run, or the report of its end.
    pub fn is_open(&self) -> bool {
        !self.status.is_final() || self.pending_event.is_some()
    }

    /// Whether the job's message, or the report of its end, may be lost.
    pub fn is_overdue(&self, now: UnixMs) -> bool {
        self.is_open() && self.redelivery.is_overdue(now)
    }

    /// The ended job with the event that reports its end, if one does. The process that ended the
    /// job sends the event immediately.
    pub fn with_pending_event(self, event: Option<EventType>) -> Self {
        let redelivery = Redelivery::new(self.finished_at.unwrap_or(self.redelivery.due_at));
        Self { pending_event: event, redelivery, ..self }
    }

    /// The job after the sweep sent its message again.
    pub fn resent(&self, now: UnixMs) -> Self {
        let redelivery = match self.is_parked {
            true => parked_redelivery(self.expires_at, now),
            false => self.redelivery.resent(now),
        };
        Self { redelivery, ..self.clone() }
    }

    /// When to try the job again if there will be room in `wait`.
    ///
    /// The first deferral is exact. Later ones are longer and have a jitter of up to a tenth,
    /// because other jobs were deferred to the same time and only some of them found room. If calls
    /// fail, the deferrals grow further, so that the tries last longer than a short outage. No
    /// deferral ends after the job expires, so that its end is reported in time.
    pub fn deferred_until(&self, wait: Millis, now: UnixMs) -> UnixMs {
        let failures = self.wait.as_ref().map_or(0, |wait| wait.failures()).min(MAX_FAILURE_DOUBLINGS);
        let for_room = MIN_DEFERRAL * (1 << self.deferrals.min(MAX_DOUBLINGS));
        let for_failures = (MIN_DEFERRAL * (1 << failures)).min(MAX_FAILURE_PAUSE);
        let wait = wait.max(for_room).max(for_failures);
        let jitter = match self.deferrals {
            0 => Millis::ZERO,
            _ => (wait / 10).min(MAX_JITTER) * self.jitter_step() / JITTER_STEPS,
        };
        (now + wait + jitter).min(self.expires_at.max(now))
    }

    /// When to try the job again after an attempt that ended at `now` with `wait`, if there may be
    /// room in `retry_after`. Returns `None` if failures of its pools have reached one of the
    /// `bounds`, so that the job fails. The last try comes when the time of the bounds is over.
    pub fn next_try(&self, wait: &JobWait, bounds: &FailureBounds, retry_after: Millis, now: UnixMs) -> Option<UnixMs> {
        let last_try = wait.last_try(bounds, now).max(now + MIN_DEFERRAL);
        (!wait.is_over(bounds, now)).then(|| self.deferred_until(retry_after, now).min(last_try))
    }

    /// A number below `JITTER_STEPS` that differs between jobs and between deferrals.
    fn jitter_step(&self) -> u64 {
        let hash = |hash: u64, byte: u8| hash.wrapping_mul(31).wrapping_add(u64::from(byte));
        self.id.bytes().fold(u64::from(self.deferrals), hash) % JITTER_STEPS
    }
}

/// When the sweep looks at a job that was parked at `now`: when it expires, or to check that it has
/// a turn.
fn parked_redelivery(expires_at: UnixMs, now: UnixMs) -> Redelivery {
    Redelivery::new(expires_at.min(now + PARKED_CHECK) - RESEND_AFTER)
}

#[cfg(test)]
mod tests;
