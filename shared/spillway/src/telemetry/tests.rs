//! The contents of events and logs.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Value, json};

use super::*;
use crate::{
    problem::{Kind, Problem},
    quota::{Charge, Charged},
    units::{Millis, UnixMs},
};

/// A writer whose clones write to the same place.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn recorded(event: RequestEvent) -> Value {
    let captured = Captured::default();
    Telemetry::to(captured.clone()).record(event);
    let text = captured.text();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    serde_json::from_str(&text).unwrap()
}

fn full_event() -> RequestEvent {
    RequestEvent {
        request_id: "r-1".into(),
        answer_of: Some("r-0".into()),
        job_id: Some("j-1".into()),
        tenant: Some("a \"quoted\" tenant".into()),
        key_id: Some("demo-team-a".into()),
        dialect: Some("anthropic"),
        route: Some("POST /v1/messages"),
        model: Some("sonnet".into()),
        pool: Some("provisioned".into()),
        substitute: None,
        tier: Some("flex".into()),
        class: Some("standard"),
        outcome: RequestOutcome::Answered,
        status: Some(200),
        error: Some("timeout"),
        limit: Some("tokens_per_minute".into()),
        limit_of: Some("organisation".into()),
        used: Some(90),
        cap: Some(100),
        retry_after_ms: Some(Millis::from_ms(700)),
        unavailable_service: Some("ledger"),
        server_errors: Some(1),
        failed_closed: Some(1),
        stream: true,
        input_tokens: Some(11),
        cache_read_tokens: Some(4),
        cache_write_tokens: Some(5),
        output_tokens: Some(22),
        tokens: None,
        reserved_tokens: Some(4107),
        cost_microusd: Some(363),
        admit_ms: Some(Millis::from_ms(4)),
        time_to_first_token_ms: Some(Millis::from_ms(310)),
        duration_ms: Millis::from_ms(900),
        hold_ms: Some(Millis::ZERO),
        attempts: Some(1),
        skipped: Some("pt: tokens_per_minute".into()),
        deferrals: Some(3),
        regained_tokens: Some(300),
        parent: Some("organisation".into()),
        tenant_charged: Some(CHARGED.into()),
        parent_charged: Some(CHARGED.into()),
        pool_charged: Some(CHARGED.into()),
    }
}

const CHARGED: Charged = Charged {
    at: UnixMs::from_ms(1_764_000_000_000),
    charge: Charge { requests: 3, minute_tokens: 121, day_tokens: 122, cost_microusd: 363, ..Charge::ZERO },
    carries_over: true,
};

#[test]
fn a_caller_cannot_add_metrics() {
    let event = recorded(full_event());
    assert_eq!(event["tenant"], "a \"quoted\" tenant");
    let directives = event["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    let dimensions: Vec<&Value> = directives.iter().map(|directive| &directive["Dimensions"]).collect();
    assert_eq!(dimensions, [&json!([[]]), &json!([["outcome"]]), &json!([["model"]])]);
}

#[test]
fn an_event_has_the_named_fields_and_nothing_else() {
    let event = recorded(full_event());
    let fields: BTreeSet<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "_aws request_id answer_of job_id tenant key_id dialect route model pool tier class outcome status \
                    error limit limit_of used cap retry_after_ms unavailable_service server_errors failed_closed \
                    stream input_tokens cache_read_tokens cache_write_tokens output_tokens tokens reserved_tokens \
                    cost_microusd admit_ms time_to_first_token_ms duration_ms hold_ms \
                    attempts skipped deferrals regained_tokens parent";
    let charged = ["tenant", "parent", "pool"].map(|payer| {
        ["at_ms", "requests", "minute_tokens", "day_tokens", "microusd", "carries_over"]
            .map(|field| format!("{payer}_charged_{field}"))
    });
    let expected: BTreeSet<&str> = expected.split(' ').chain(charged.iter().flatten().map(String::as_str)).collect();
    assert_eq!(fields, expected);
    assert_eq!(event["pool_charged_day_tokens"], Value::from(122));
    assert_eq!(event["stream"], Value::from(1));
    assert_eq!((&event["cost_microusd"], &event["outcome"]), (&Value::from(363), &Value::from("answered")));
}

#[test]
fn unknown_fields_are_left_out() {
    let event = recorded(RequestEvent { request_id: "r-2".into(), ..RequestEvent::default() });
    let fields: BTreeSet<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, "_aws request_id outcome stream duration_ms".split(' ').collect());
    assert_eq!(event["outcome"], "failed");
}

/// Returns the numbers that operators watch, of a request that ended with `problem`.
fn watched(problem: &Problem) -> [Option<u32>; 2] {
    let mut event = RequestEvent::default();
    event.fail(problem);
    [event.server_errors, event.failed_closed]
}

#[test]
fn only_a_failure_that_the_caller_did_not_cause_is_a_server_error() {
    for kind in [Kind::Model, Kind::Unavailable, Kind::Timeout, Kind::Internal] {
        assert_eq!(watched(&Problem::new(kind, "")), [Some(1), None], "{kind:?}");
    }
    for kind in [Kind::Invalid, Kind::Unauthenticated, Kind::Throttled, Kind::BudgetExhausted, Kind::TooLarge] {
        assert_eq!(watched(&Problem::new(kind, "")), [None, None], "{kind:?}");
    }
    assert_eq!(watched(&Problem::unavailable("ledger")), [Some(1), Some(1)]);
}

#[test]
fn the_outcome_separates_faults_of_the_caller_from_faults_of_the_service() {
    let outcome = |kind| {
        let mut event = RequestEvent::default();
        event.fail(&Problem::new(kind, ""));
        (event.outcome, event.server_errors)
    };
    let callers = [Kind::Invalid, Kind::NotFound, Kind::MethodNotAllowed, Kind::Conflict, Kind::TooLarge];
    for kind in callers.into_iter().chain([Kind::UnsupportedEncoding]) {
        assert_eq!(outcome(kind), (RequestOutcome::Invalid, None), "{kind:?}");
    }
    for kind in [Kind::Unauthenticated, Kind::Forbidden] {
        assert_eq!(outcome(kind), (RequestOutcome::Denied, None), "{kind:?}");
    }
    for kind in [Kind::Throttled, Kind::BudgetExhausted] {
        assert_eq!(outcome(kind), (RequestOutcome::Refused, None), "{kind:?}");
    }
    for kind in [Kind::Model, Kind::Unavailable, Kind::Timeout, Kind::Internal] {
        assert_eq!(outcome(kind), (RequestOutcome::Failed, Some(1)), "{kind:?}");
    }
}

#[test]
fn a_failed_request_has_the_kind_of_its_problem_and_the_service_that_is_unavailable() {
    let mut event = RequestEvent::default();
    event.fail(&Problem::unavailable("registry"));
    let event = recorded(event);
    assert_eq!([&event["error"], &event["unavailable_service"]], ["unavailable", "registry"]);
}

#[test]
fn concurrent_events_do_not_mix() {
    let captured = Captured::default();
    let telemetry = Telemetry::to(captured.clone());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let telemetry = telemetry.clone();
            scope.spawn(move || (0..50).for_each(|_| telemetry.record(full_event())));
        }
    });
    let text = captured.text();
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(), 400);
}

#[test]
fn a_broken_output_harms_no_request() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Telemetry::to(Broken).record(full_event());
    Telemetry::off().record(full_event());
}

fn logged(filter: &str, format: LogFormat) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing::subscriber::with_default(subscriber(filter, format, move || writer.clone()), || {
        tracing::info!("ours at info");
        tracing::debug!("ours at debug");
        tracing::info!(target: "aws_smithy_runtime", "theirs at info");
        tracing::trace!(target: "aws_smithy_runtime", "a whole request");
    });
    captured.text()
}

fn check_logged(filter: &str, ours_info: bool, ours_debug: bool, theirs_info: bool) {
    let text = logged(filter, LogFormat::Text);
    let found = ["ours at info", "ours at debug", "theirs at info"].map(|line| text.contains(line));
    assert_eq!(found, [ours_info, ours_debug, theirs_info], "{filter} logged {text}");
    assert!(!text.contains("a whole request"), "{filter} logged {text}");
}

#[test]
fn the_filter_decides_what_is_logged() {
    check_logged("info", true, false, true);
    check_logged("warn,spillway=debug", true, true, false);
    check_logged("error", false, false, false);
}

#[test]
fn no_filter_lets_the_sdk_print_requests() {
    check_logged("trace", true, true, true);
    check_logged("aws_smithy_runtime=trace", false, false, true);
}

#[test]
fn logs_are_json_if_configured() {
    let text = logged("info", LogFormat::Json);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["fields"]["message"], "ours at info");
}
