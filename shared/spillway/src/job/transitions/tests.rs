use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    dialect::Api,
    job::{Obstruction, ObstructionKind, Priority, RESEND_AFTER, StoredCall, WaitReason},
    stored_headers::StoredHeaders,
    tenant::Class,
};

const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);
const LEASE: Millis = Millis::from_s(10);

/// `ms` milliseconds after `NOW`.
fn at(ms: u64) -> UnixMs {
    NOW + Millis::from_ms(ms)
}

fn job() -> Job {
    let new = NewJob {
        id: None,
        tenant: "acme".into(),
        call: StoredCall {
            api: Api::ChatCompletions,
            model: None,
            path: "/v1/chat/completions".into(),
            base_path: String::new(),
            headers: StoredHeaders::default(),
            stream: false,
        },
        body: Bytes::from_static(b"{}"),
        created_at: NOW,
        ready_at: at(5_000),
        expires_at: at(3_600_000),
        is_parked: false,
        priority: Priority::Normal,
        class: Class::Batch,
        member: None,
        wait: None,
    };
    Job::accepted("018f0000-0000-7000-8000-000000000000".into(), &new)
}

fn obstruction(reason: &str, kind: ObstructionKind) -> Obstruction {
    Obstruction { reasons: vec![WaitReason::named(reason)], kind }
}

fn waits_for_room() -> JobWait {
    JobWait::after(None, obstruction("in_flight", ObstructionKind::Other), NOW)
}

#[test]
fn a_queued_job_runs_from_the_time_it_is_ready() {
    assert_eq!(job().next_step(at(3_999)), NextStep::Wait { until: at(5_000) });
    assert_eq!(job().next_step(at(4_000)), NextStep::Run, "a message may be a second early");
    assert_eq!(job().next_step(at(3_600_000)), NextStep::Expire);
}

#[test]
fn a_running_job_is_left_alone_until_its_lease_ends() {
    let running = job().claimed(LEASE, at(5_000));
    assert_eq!(running.next_step(at(14_999)), NextStep::Wait { until: at(15_000) });
    assert_eq!(running.next_step(at(15_000)), NextStep::Run);
    let outlives_expiry = job().claimed(LEASE, at(3_599_999));
    assert_eq!(outlives_expiry.next_step(at(3_600_001)), NextStep::Wait { until: at(3_609_999) });
    assert_eq!(outlives_expiry.next_step(at(3_609_999)), NextStep::Expire);
}

#[test]
fn a_message_about_an_ended_job_is_dropped() {
    for status in [JobStatus::Succeeded, JobStatus::Failed, JobStatus::Cancelled, JobStatus::Expired] {
        assert!(status.is_final());
        assert_eq!(job().ended(status, None, NOW).next_step(at(9_999_999)), NextStep::Drop(status));
    }
}

#[test]
fn a_job_whose_every_drain_died_is_given_up() {
    let mut lost = job();
    for attempt in 1..=u64::from(MAX_ATTEMPTS) {
        assert_eq!(lost.next_step(at(attempt * 10_000)), NextStep::Run);
        lost = lost.claimed(LEASE, at(attempt * 10_000));
    }
    assert_eq!(lost.next_step(at(40_000)), NextStep::GiveUp);
}

#[test]
fn deferrals_are_not_failures() {
    let mut deferred = job();
    for _ in 0..50 {
        deferred = deferred.claimed(LEASE, NOW).deferred(&waits_for_room(), at(20_000));
    }
    assert_eq!((deferred.attempts, deferred.deferrals, deferred.fence), (0, 50, 50));
    assert_eq!(deferred.next_step(at(20_000)), NextStep::Run);
    assert_eq!(deferred.claimed(LEASE, NOW).retried(at(20_000)).attempts, 1);
}

#[test]
fn only_the_latest_claim_holds_the_job() {
    let first = job().claimed(LEASE, NOW);
    let second = first.claimed(LEASE, at(10_000));
    assert!(first.is_held_under(1) && !second.is_held_under(1) && second.is_held_under(2));
    assert!(!second.deferred(&waits_for_room(), at(20_000)).is_held_under(2));
    assert!(!second.ended(JobStatus::Succeeded, None, NOW).is_held_under(2));
}

#[test]
fn the_first_deferral_is_exact() {
    assert_eq!(job().deferred_until(Millis::from_ms(42_137), NOW), at(42_137));
    assert_eq!(job().deferred_until(Millis::ZERO, NOW), at(1_000));
}

#[test]
fn a_lost_message_is_sent_again_at_doubling_intervals() {
    let mut waiting = job();
    let mut now = waiting.redelivery.due_at;
    for minutes in [2, 4, 8, 16, 32, 64, 64] {
        let delay = Millis::from_s(minutes * 60);
        assert!(!waiting.is_overdue(now + delay - Millis::from_ms(1)), "{minutes}");
        assert!(waiting.is_overdue(now + delay), "{minutes}");
        now += delay;
        waiting = waiting.resent(now);
    }
    assert_eq!(waiting.ready_at, job().ready_at, "sending the message again delays no claim");
    assert_eq!(waiting.claimed(LEASE, now).redelivery.resends, 0);
    assert!(!waiting.ended(JobStatus::Cancelled, None, now).is_overdue(UnixMs::MAX));
}

#[test]
fn the_end_of_a_job_is_overdue_until_it_is_reported() {
    let ended = job().claimed(Millis::from_s(600), NOW).ended(JobStatus::Succeeded, None, at(7_000));
    assert!(!ended.clone().with_pending_event(None).is_open());
    let unreported = ended.with_pending_event(Some(EventType::JobSucceeded));
    let overdue_at = at(7_000) + RESEND_AFTER;
    assert!(!unreported.is_overdue(overdue_at - Millis::from_ms(1)), "its drain may be reporting it");
    assert!(unreported.is_overdue(overdue_at));
    assert_eq!(unreported.next_step(at(9_000)), NextStep::Drop(JobStatus::Succeeded), "it does not run again");
    assert!(!Job { pending_event: None, ..unreported }.is_overdue(UnixMs::MAX));
}

#[test]
fn a_stored_job_keeps_its_attribute_names() {
    let stored = serde_json::to_value(job()).expect("JSON");
    let mut names: Vec<_> = stored.as_object().expect("an object").keys().cloned().collect();
    names.sort_unstable();
    let expected = "answered_at_fence attempts call class created_ms deferrals due_ms error etag expires_ms fence \
                    finished_ms id is_deleted member priority reader ready_ms resends started_ms status tenant";
    assert_eq!(names.join(" "), expected);
    assert_eq!(serde_json::from_value::<Job>(stored).expect("a job"), job());
}

#[test]
fn a_stored_job_grows_only_if_it_has_waited() {
    let names = |job: &Job| serde_json::to_value(job).expect("JSON").as_object().expect("an object").len();
    let waited = job().claimed(LEASE, NOW).deferred(&waits_for_room(), at(20_000));
    assert_eq!(names(&waited), names(&job()) + 1);
    let answered = waited.claimed(LEASE, NOW).ended(JobStatus::Succeeded, None, NOW);
    assert_eq!((names(&answered), answered.wait), (names(&job()), None));
    let stored = serde_json::to_value(&waited).expect("JSON");
    assert_eq!(stored["wait"], serde_json::json!({ "for": [{ "reason": "in_flight" }], "times": 1 }));
    assert_eq!(serde_json::from_value::<Job>(stored).expect("a job"), waited);
    let failed = waited.ended(JobStatus::Failed, None, NOW);
    assert!(failed.wait.is_some() && failed.redriven(NOW).wait.is_none());
}

/// What an attempt meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    /// Calls that fail.
    Failure,
    /// Pools that are known to be out.
    Outage,
    /// Full limits, or a service of the broker that is unavailable.
    Other,
    /// A failure that may be billed.
    Billed,
    Answer,
}

/// The end of a job, and how it came to it.
#[derive(Debug, Default)]
struct Run {
    end: Option<&'static str>,
    billed: u32,
    ended_at: UnixMs,
    pauses: Vec<Millis>,
}

/// Runs a job whose attempts meet `met` in turn, and again from the start, each for `attempt`. It
/// has the steps of the drain.
fn run(mut job: Job, met: &[Met], bounds: &FailureBounds, retry_after: Millis, attempt: Millis) -> Run {
    let (mut now, mut run) = (job.ready_at, Run::default());
    for met in met.iter().copied().cycle().take(10_000) {
        if let NextStep::Wait { until } = job.next_step(now) {
            now = until;
        }
        let step = job.next_step(now);
        if step != NextStep::Run {
            (run.end, run.ended_at) = (Some(if step == NextStep::Expire { "expired" } else { "given up" }), now);
            return run;
        }
        job = job.claimed(attempt + LEASE, now);
        now += attempt;
        let kind = match met {
            Met::Answer => {
                (run.end, run.ended_at) = (Some("answered"), now);
                return run;
            }
            Met::Billed => {
                run.billed += 1;
                if job.attempts >= MAX_ATTEMPTS {
                    (run.end, run.ended_at) = (Some("out of attempts"), now);
                    return run;
                }
                job = job.retried(now + Millis::from_s(5));
                continue;
            }
            Met::Failure => ObstructionKind::Failure { is_called: true },
            Met::Outage => ObstructionKind::Failure { is_called: false },
            Met::Other => ObstructionKind::Other,
        };
        let wait = JobWait::after(job.wait.as_deref(), obstruction("reason", kind), now);
        let Some(ready_at) = job.next_try(&wait, bounds, retry_after, now) else {
            (run.end, run.ended_at) = (Some("failed"), now);
            return run;
        };
        run.pauses.push(ready_at - now);
        job = job.deferred(&wait, ready_at);
    }
    run
}

fn bounds(max_failures: u64, max_failing_s: u64) -> FailureBounds {
    FailureBounds { max_failures, max_failing: Millis::from_s(max_failing_s) }
}

/// A job with a day to live.
fn patient_job() -> Job {
    Job { expires_at: NOW + Millis::from_s(86_400), ready_at: NOW, ..job() }
}

#[test]
fn the_default_bounds_survive_an_outage_of_minutes() {
    let run = run(patient_job(), &[Met::Failure], &bounds(20, 3_600), Millis::from_s(2), Millis::ZERO);
    let lasted_s = (run.ended_at - NOW).as_ms() / 1_000;
    assert_eq!((run.end, run.pauses.len()), (Some("failed"), 19));
    assert!((840..=930).contains(&lasted_s), "{lasted_s} s");
    assert!(run.pauses.iter().all(|pause| *pause <= MAX_FAILURE_PAUSE + MAX_FAILURE_PAUSE / 10), "{:?}", run.pauses);
}

proptest! {
    /// The bounds hold to the length of an attempt, and a second.
    #[test]
    fn a_job_that_only_meets_failures_ends_within_its_bounds(
        max_failures in 1..50_u64,
        max_failing_s in 1..20_000_u64,
        retry_after_ms in 1..30_000_u64,
        attempt_ms in 0..60_000_u64,
        met in proptest::collection::vec(proptest::sample::select(vec![Met::Failure, Met::Outage]), 1..8),
    ) {
        let (retry_after, attempt) = (Millis::from_ms(retry_after_ms), Millis::from_ms(attempt_ms));
        let run = run(patient_job(), &met, &bounds(max_failures, max_failing_s), retry_after, attempt);
        prop_assert_eq!(run.end, Some("failed"));
        let first_failure = NOW + attempt;
        let slack = attempt + MIN_DEFERRAL;
        prop_assert!(run.ended_at <= first_failure + Millis::from_s(max_failing_s) + slack, "{:?}", run);
        if met == [Met::Failure] {
            prop_assert!((run.pauses.len() as u64) < max_failures, "{:?}", run);
        }
    }

    #[test]
    fn a_job_that_is_answered_before_its_bounds_succeeds(failures in 0..19_usize, outages in 0..19_usize) {
        let met = [vec![Met::Failure; failures], vec![Met::Outage; outages], vec![Met::Answer]].concat();
        let run = run(patient_job(), &met, &bounds(20, 80_000), Millis::from_s(1), Millis::from_s(1));
        prop_assert_eq!((run.end, run.billed), (Some("answered"), 0));
    }

    /// A wait for room does not end a job, however long it takes.
    #[test]
    fn only_failures_fail_a_job(
        met in proptest::collection::vec(proptest::sample::select(vec![Met::Other, Met::Other, Met::Failure]), 1..8),
        retry_after_ms in 1..3_000_000_u64,
    ) {
        let failures = met.iter().filter(|met| **met == Met::Failure).count() as u64;
        let met = [met, vec![Met::Other; 1_000]].concat();
        let retry_after = Millis::from_ms(retry_after_ms);
        let run = run(patient_job(), &met, &bounds(failures + 1, 80_000), retry_after, Millis::ZERO);
        prop_assert_ne!(run.end, Some("given up"));
        prop_assert!(run.end != Some("failed") || run.pauses.len() > 1_000, "{:?}", run);
    }

    #[test]
    fn a_job_makes_at_most_three_calls_that_may_be_billed(
        met in proptest::collection::vec(
            proptest::sample::select(vec![Met::Failure, Met::Outage, Met::Other, Met::Billed]), 1..20,
        ),
    ) {
        let run = run(patient_job(), &met, &bounds(20, 3_600), Millis::from_s(1), Millis::from_s(1));
        prop_assert!(run.billed <= MAX_ATTEMPTS && run.end.is_some(), "{:?}", run);
    }

    #[test]
    fn a_deferral_is_neither_early_nor_far_too_late(wait_ms in 0..10_000_000_u64, deferrals in 0..100_u32) {
        let job = Job { deferrals, expires_at: UnixMs::MAX, ..job() };
        let wait = Millis::from_ms(wait_ms);
        let waited = job.deferred_until(wait, NOW) - NOW;
        prop_assert!(waited >= wait.max(MIN_DEFERRAL));
        prop_assert!(waited <= wait.max(MIN_DEFERRAL * 8) + MAX_JITTER);
    }

    #[test]
    fn a_deferral_never_outlasts_the_job(wait_ms: u64, deferrals: u32, now_ms: u64, expires_ms: u64) {
        let (now, expires_at) = (UnixMs::from_ms(now_ms), UnixMs::from_ms(expires_ms));
        let until = Job { deferrals, expires_at, ..job() }.deferred_until(Millis::from_ms(wait_ms), now);
        prop_assert!(until <= expires_at.max(now));
    }

    /// Whatever the mix of crashes and deferrals, `next_step` ends the job by its expiry.
    #[test]
    fn a_job_always_has_an_end(
        lease_ms in 1..900_000_u64,
        deferred in proptest::collection::vec(any::<bool>(), 1..200),
    ) {
        let mut job = job();
        let mut now = NOW;
        let mut ended = None;
        for defers in deferred.into_iter().cycle().take(10_000) {
            match job.next_step(now) {
                NextStep::Run => {
                    job = job.claimed(Millis::from_ms(lease_ms), now);
                    if defers {
                        job = job.deferred(&waits_for_room(), job.deferred_until(Millis::ZERO, now));
                    }
                }
                NextStep::Wait { until } => {
                    prop_assert!(until > now);
                    now = until;
                }
                end => {
                    ended = Some(end);
                    break;
                }
            }
        }
        prop_assert!(matches!(ended, Some(NextStep::Expire | NextStep::GiveUp)), "{ended:?}");
        prop_assert!(now <= at(3_600_000 + lease_ms));
    }
}
