//! The course of a job: what a message about it means now, and what each step leaves behind.

use super::{Job, NewJob, Reader, Status};
use crate::tenant::EventType;

/// How many claims may end in a failure, or in the death of the drain that made them, before the job does.
///
/// As a claim makes one call at most that may be billed, so does a job that many. What a pool throttles or cannot take is not
/// billed and no failure; a claim makes one such call at most to each pool of the ladder.
pub const MAX_ATTEMPTS: u32 = 3;

/// How long after `due_ms` a job's message is taken for lost, in milliseconds.
pub const RESEND_AFTER_MS: u64 = 120_000;

/// SQS delays whole seconds and its clock is not ours: a message this early is not sent round again.
const EARLY_MS: u64 = 1_000;

/// Below this a deferral would only spin.
const SHORTEST_WAIT_MS: u64 = 1_000;

/// How often that doubles from deferral to deferral: a longer wait would leave room unused that has come free.
const MOST_DOUBLINGS: u32 = 3;

/// The most that a deferral is spread beyond the time it was given.
const WIDEST_SPREAD_MS: u64 = 30_000;

/// What is to be done about a job whose message has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Claim it and run it.
    Run,
    /// Too early: look again at this time, in milliseconds since 1970.
    Wait { until_ms: u64 },
    /// Its time is over: it ends expired.
    Expire,
    /// Every attempt was lost, with the drain that made it: it ends failed.
    GiveUp,
    /// Nothing: it has ended, and the message can go.
    Drop(Status),
}

impl Job {
    /// A job that was just accepted.
    pub fn accepted(id: String, new: &NewJob) -> Self {
        Self {
            id,
            tenant: new.tenant.clone(),
            call: new.call.clone(),
            status: Status::Queued,
            created_ms: new.created_ms,
            ready_ms: new.ready_ms,
            due_ms: new.ready_ms,
            started_ms: None,
            finished_ms: None,
            expires_ms: new.expires_ms,
            priority: new.priority,
            class: new.class,
            member: new.member.clone(),
            reader: Reader::Later,
            is_deleted: false,
            fence: 0,
            attempts: 0,
            deferrals: 0,
            resends: 0,
            error: None,
            answered_at_fence: None,
            announce: None,
            etag: String::new(),
        }
    }

    /// What a message about the job means at `now_ms`. A running job may outlive its expiry: its answer is on the way.
    pub fn next(&self, now_ms: u64) -> Next {
        match self.status {
            Status::Queued if now_ms >= self.expires_ms => Next::Expire,
            Status::Queued if now_ms.saturating_add(EARLY_MS) < self.ready_ms => Next::Wait { until_ms: self.ready_ms },
            Status::Running if now_ms < self.ready_ms => Next::Wait { until_ms: self.ready_ms },
            Status::Running if now_ms >= self.expires_ms => Next::Expire,
            Status::Queued | Status::Running if self.attempts >= MAX_ATTEMPTS => Next::GiveUp,
            Status::Queued | Status::Running => Next::Run,
            ended => Next::Drop(ended),
        }
    }

    /// The job under a new lease that ends `lease_ms` from now.
    pub fn claimed(&self, lease_ms: u64, now_ms: u64) -> Self {
        Self {
            status: Status::Running,
            ready_ms: now_ms.saturating_add(lease_ms),
            due_ms: now_ms.saturating_add(lease_ms),
            started_ms: Some(now_ms),
            fence: self.fence.saturating_add(1),
            attempts: self.attempts.saturating_add(1),
            resends: 0,
            ..self.clone()
        }
    }

    /// The job back in the queue because there was no room: no failure, so no attempt is counted.
    pub fn deferred(&self, ready_ms: u64) -> Self {
        Self {
            attempts: self.attempts.saturating_sub(1),
            deferrals: self.deferrals.saturating_add(1),
            ..self.retried(ready_ms)
        }
    }

    /// The queued job that is not to be claimed before `ready_ms`.
    pub fn postponed(&self, ready_ms: u64) -> Self {
        Self { deferrals: self.deferrals.saturating_add(1), ..self.retried(ready_ms) }
    }

    /// The failed job back in the queue with all its attempts before it, for as long as it had in the beginning. Its fence
    /// goes on, so that nobody who held it before is heard.
    pub fn redriven(&self, now_ms: u64) -> Self {
        let had_ms = self.expires_ms.saturating_sub(self.created_ms);
        Self {
            expires_ms: now_ms.saturating_add(had_ms),
            started_ms: None,
            finished_ms: None,
            attempts: 0,
            deferrals: 0,
            resends: 0,
            error: None,
            answered_at_fence: None,
            announce: None,
            ..self.retried(now_ms)
        }
    }

    /// The job back in the queue because the attempt failed.
    pub fn retried(&self, ready_ms: u64) -> Self {
        Self { status: Status::Queued, ready_ms, due_ms: ready_ms, ..self.clone() }
    }

    /// The job at its end.
    pub fn ended(&self, status: Status, error: Option<String>, now_ms: u64) -> Self {
        Self { status, error, finished_ms: Some(now_ms), ..self.clone() }
    }

    /// Whether whoever claimed the job under `fence` still holds it. A lease that ran out is held until another takes
    /// it.
    pub fn is_held_under(&self, fence: u64) -> bool {
        self.status == Status::Running && self.fence == fence
    }

    /// Whether something is still to be done about it.
    pub fn is_open(&self) -> bool {
        !self.status.is_final() || self.announce.is_some()
    }

    /// Whether the job's message, or what tells its end, has to be taken for lost.
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        self.is_open() && now_ms >= self.due_ms.saturating_add(RESEND_AFTER_MS)
    }

    /// An ended job whose end is to be told as `announce`, if it is. Whoever ended it does so at once.
    pub fn to_be_told(self, announce: Option<EventType>) -> Self {
        let due_ms = self.finished_ms.unwrap_or(self.due_ms);
        Self { announce, due_ms, resends: 0, ..self }
    }

    /// The job after its message was sent again. The time to the next one doubles, up to 64 minutes, because a message
    /// that only waits in a long queue is no less late than a lost one.
    pub fn resent(&self, now_ms: u64) -> Self {
        let resends = self.resends.saturating_add(1);
        let grace_ms = RESEND_AFTER_MS << resends.min(5);
        Self { resends, due_ms: now_ms.saturating_add(grace_ms - RESEND_AFTER_MS), ..self.clone() }
    }

    /// When to try again a job for which there will be room in `wait_ms`.
    ///
    /// The first time that is exact. Later the wait grows and is spread by up to a tenth, because others were given
    /// the same time and only some of them found room. Never after the job expires, so that its end is told in time.
    pub fn deferred_until(&self, wait_ms: u64, now_ms: u64) -> u64 {
        let wait_ms = wait_ms.max(SHORTEST_WAIT_MS << self.deferrals.min(MOST_DOUBLINGS));
        let spread_ms = match self.deferrals {
            0 => 0,
            _ => (wait_ms / 10).min(WIDEST_SPREAD_MS).saturating_mul(self.place_in_crowd()) / PLACES,
        };
        now_ms.saturating_add(wait_ms).saturating_add(spread_ms).min(self.expires_ms.max(now_ms))
    }

    /// A number below `PLACES` that differs from job to job and from one deferral to the next.
    fn place_in_crowd(&self) -> u64 {
        let hash = |hash: u64, byte: u8| hash.wrapping_mul(31).wrapping_add(u64::from(byte));
        self.id.bytes().fold(u64::from(self.deferrals), hash) % PLACES
    }
}

const PLACES: u64 = 1_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        dialect::Api,
        job::{Call, Priority},
        tenant::Class,
    };

    const NOW_MS: u64 = 1_800_000_000_000;

    fn job() -> Job {
        let new = NewJob {
            id: None,
            tenant: "acme".into(),
            call: Call {
                api: Api::ChatCompletions,
                model: None,
                path: "/v1/chat/completions".into(),
                headers: Vec::new(),
                stream: false,
            },
            body: Bytes::from_static(b"{}"),
            created_ms: NOW_MS,
            ready_ms: NOW_MS + 5_000,
            expires_ms: NOW_MS + 3_600_000,
            priority: Priority::Normal,
            class: Class::Batch,
            member: None,
        };
        Job::accepted("018f0000-0000-7000-8000-000000000000".into(), &new)
    }

    #[test]
    fn a_queued_job_runs_from_the_time_it_is_ready() {
        assert_eq!(job().next(NOW_MS + 3_999), Next::Wait { until_ms: NOW_MS + 5_000 });
        assert_eq!(job().next(NOW_MS + 4_000), Next::Run, "a message may be a second early");
        assert_eq!(job().next(NOW_MS + 3_600_000), Next::Expire);
    }

    #[test]
    fn a_running_job_is_left_alone_until_its_lease_ends() {
        let running = job().claimed(10_000, NOW_MS + 5_000);
        assert_eq!(running.next(NOW_MS + 14_999), Next::Wait { until_ms: NOW_MS + 15_000 });
        assert_eq!(running.next(NOW_MS + 15_000), Next::Run);
        let outlives_expiry = job().claimed(10_000, NOW_MS + 3_599_999);
        assert_eq!(outlives_expiry.next(NOW_MS + 3_600_001), Next::Wait { until_ms: NOW_MS + 3_609_999 });
        assert_eq!(outlives_expiry.next(NOW_MS + 3_609_999), Next::Expire);
    }

    #[test]
    fn a_message_about_an_ended_job_is_dropped() {
        for status in [Status::Succeeded, Status::Failed, Status::Cancelled, Status::Expired] {
            assert!(status.is_final());
            assert_eq!(job().ended(status, None, NOW_MS).next(NOW_MS + 9_999_999), Next::Drop(status));
        }
    }

    #[test]
    fn a_job_whose_every_drain_died_is_given_up() {
        let mut lost = job();
        for attempt in 1..=u64::from(MAX_ATTEMPTS) {
            assert_eq!(lost.next(NOW_MS + attempt * 10_000), Next::Run);
            lost = lost.claimed(10_000, NOW_MS + attempt * 10_000);
        }
        assert_eq!(lost.next(NOW_MS + 40_000), Next::GiveUp);
    }

    #[test]
    fn deferrals_are_no_failures() {
        let mut deferred = job();
        for _ in 0..50 {
            deferred = deferred.claimed(10_000, NOW_MS).deferred(NOW_MS + 20_000);
        }
        assert_eq!((deferred.attempts, deferred.deferrals, deferred.fence), (0, 50, 50));
        assert_eq!(deferred.next(NOW_MS + 20_000), Next::Run);
        assert_eq!(deferred.claimed(10_000, NOW_MS).retried(NOW_MS + 20_000).attempts, 1);
    }

    #[test]
    fn only_the_latest_claim_holds_the_job() {
        let first = job().claimed(10_000, NOW_MS);
        let second = first.claimed(10_000, NOW_MS + 10_000);
        assert!(first.is_held_under(1) && !second.is_held_under(1) && second.is_held_under(2));
        assert!(!second.deferred(NOW_MS + 20_000).is_held_under(2));
        assert!(!second.ended(Status::Succeeded, None, NOW_MS).is_held_under(2));
    }

    #[test]
    fn the_first_deferral_is_exact() {
        assert_eq!(job().deferred_until(42_137, NOW_MS), NOW_MS + 42_137);
        assert_eq!(job().deferred_until(0, NOW_MS), NOW_MS + 1_000);
    }

    #[test]
    fn a_lost_message_is_sent_again_at_doubling_distances() {
        let mut waiting = job();
        let mut now_ms = waiting.due_ms;
        for expected_minutes in [2, 4, 8, 16, 32, 64, 64] {
            let grace_ms = expected_minutes * 60_000;
            assert!(!waiting.is_overdue(now_ms + grace_ms - 1), "{expected_minutes}");
            assert!(waiting.is_overdue(now_ms + grace_ms), "{expected_minutes}");
            now_ms += grace_ms;
            waiting = waiting.resent(now_ms);
        }
        assert_eq!(waiting.ready_ms, job().ready_ms, "sending again delays no claim");
        assert_eq!(waiting.claimed(10_000, now_ms).resends, 0);
        assert!(!waiting.ended(Status::Cancelled, None, now_ms).is_overdue(u64::MAX));
    }

    #[test]
    fn an_end_is_overdue_until_it_is_told() {
        let ended = job().claimed(600_000, NOW_MS).ended(Status::Succeeded, None, NOW_MS + 7_000);
        assert!(!ended.clone().to_be_told(None).is_open());
        let untold = ended.to_be_told(Some(EventType::JobSucceeded));
        assert!(!untold.is_overdue(NOW_MS + 7_000 + RESEND_AFTER_MS - 1), "whoever ended it may be telling it");
        assert!(untold.is_overdue(NOW_MS + 7_000 + RESEND_AFTER_MS));
        assert_eq!(untold.next(NOW_MS + 9_000), Next::Drop(Status::Succeeded), "it does not run again");
        assert!(!Job { announce: None, ..untold }.is_overdue(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_deferral_is_neither_early_nor_far_too_late(wait_ms in 0..10_000_000_u64, deferrals in 0..100_u32) {
            let job = Job { deferrals, expires_ms: u64::MAX, ..job() };
            let waited_ms = job.deferred_until(wait_ms, NOW_MS) - NOW_MS;
            let least_ms = wait_ms.max(SHORTEST_WAIT_MS);
            prop_assert!(waited_ms >= least_ms);
            prop_assert!(waited_ms <= wait_ms.max(8_000) + WIDEST_SPREAD_MS);
        }

        #[test]
        fn a_deferral_never_outlasts_the_job(wait_ms: u64, deferrals: u32, now_ms: u64, expires_ms: u64) {
            let until_ms = Job { deferrals, expires_ms, ..job() }.deferred_until(wait_ms, now_ms);
            prop_assert!(until_ms <= expires_ms.max(now_ms));
        }

        #[test]
        fn a_job_always_has_an_end(lease_ms in 1..900_000_u64, deferred in proptest::collection::vec(any::<bool>(), 1..200)) {
            // Whatever mix of crashes and deferrals: following `next` at the times it names ends by expiry at the latest.
            let mut job = job();
            let mut now_ms = NOW_MS;
            let mut ended = None;
            for defers in deferred.into_iter().cycle().take(10_000) {
                match job.next(now_ms) {
                    Next::Run => {
                        job = job.claimed(lease_ms, now_ms);
                        if defers {
                            job = job.deferred(job.deferred_until(0, now_ms));
                        }
                    }
                    Next::Wait { until_ms } => {
                        prop_assert!(until_ms > now_ms);
                        now_ms = until_ms;
                    }
                    end => {
                        ended = Some(end);
                        break;
                    }
                }
            }
            prop_assert!(matches!(ended, Some(Next::Expire | Next::GiveUp)), "{ended:?}");
            prop_assert!(now_ms <= NOW_MS + 3_600_000 + lease_ms);
        }
    }
}
