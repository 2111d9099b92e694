//! The numbers of the SAM template match the numbers in the code.

use spillway::{
    drain::{DEFAULT_CONCURRENCY, TimeBudget},
    job::MAX_ATTEMPTS,
    pool::MAX_TIMEOUT,
    queue::MAX_RECEIVES,
    retention,
    tenant::MAX_JOB_TTL_S,
    units::{Millis, UnixMs},
};

use crate::support::template::Template;

#[test]
fn a_message_stays_hidden_while_its_job_runs_and_long_enough_for_lambda() {
    let template = Template::read();
    let timeout_s = template.below("Globals:").number("Timeout");
    assert_eq!(timeout_s * 1_000, MAX_TIMEOUT.as_ms(), "a model call may take as long as a function");
    for queue in ["JobsQueue:", "WebhookQueue:"] {
        let hidden_s = template.below(queue).number("VisibilityTimeout");
        assert!(hidden_s >= 6 * timeout_s, "{queue} hides for {hidden_s} s");
        let start = UnixMs::default();
        let budget = TimeBudget::new(start, Some(start + Millis::from_s(timeout_s)));
        let lease = budget.attempt(MAX_TIMEOUT, start).lease_ends - start;
        assert!(Millis::from_s(hidden_s) >= lease, "{queue} hides for {hidden_s} s, and a lease lasts {lease} ms");
    }
}

#[test]
fn a_message_outlives_the_attempts_of_its_job_and_two_throttled_receives() {
    let template = Template::read();
    assert_eq!(MAX_RECEIVES, MAX_ATTEMPTS + 2);
    for queue in ["JobsQueue:", "WebhookQueue:"] {
        assert_eq!(template.below(queue).number("maxReceiveCount"), u64::from(MAX_RECEIVES), "{queue}");
    }
}

#[test]
fn a_batch_is_as_large_as_the_concurrency_of_the_drain() {
    let jobs = Template::read().below("DrainFunction:").below("Jobs:");
    assert_eq!(usize::try_from(jobs.number("BatchSize")), Ok(DEFAULT_CONCURRENCY));
    assert!(
        jobs.number("MaximumBatchingWindowInSeconds") > 0,
        "Lambda requires a batching window for more than ten messages"
    );
}

#[test]
fn messages_and_bodies_are_kept_while_jobs_need_them() {
    let template = Template::read();
    for queue in ["JobsQueue:", "DeadLetterQueue:"] {
        let kept_s = template.below(queue).number("MessageRetentionPeriod");
        assert!(kept_s >= MAX_JOB_TTL_S, "{queue} keeps messages for {kept_s} s");
    }
    let kept_s = template.below("Bodies:").number("ExpirationInDays") * 24 * 60 * 60;
    let needed_s = MAX_JOB_TTL_S + retention::JOB.as_s_rounded_up();
    assert!(kept_s >= needed_s, "bodies are kept for {kept_s} s of {needed_s} s");
}
