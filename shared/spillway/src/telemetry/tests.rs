//! The contents of events and logs.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use super::*;
use crate::{quota::Charge, units::UnixMs};

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
        tenant: Some("a \"quoted\" tenant".into()),
        dialect: Some("anthropic"),
        route: Some("POST /v1/messages"),
        model: Some("sonnet".into()),
        pool: Some("provisioned".into()),
        class: Some("standard"),
        outcome: RequestOutcome::Answered,
        limit: Some("tokens_per_minute".into()),
        stream: true,
        input_tokens: Some(11),
        output_tokens: Some(22),
        reserved_tokens: Some(4107),
        cost_microusd: Some(363),
        admit_ms: Some(Millis::from_ms(4)),
        time_to_first_token_ms: Some(Millis::from_ms(310)),
        duration_ms: Millis::from_ms(900),
        hold_ms: Some(Millis::ZERO),
        attempts: Some(1),
        regained_tokens: Some(300),
        parent: Some("organisation".into()),
        tenant_charged: Some(CHARGED.into()),
        parent_charged: Some(CHARGED.into()),
        pool_charged: Some(CHARGED.into()),
    }
}

const CHARGED: Charged = Charged {
    at: UnixMs::from_ms(1_764_000_000_000),
    charge: Charge { requests: 1, minute_tokens: 121, day_tokens: 122, cost_microusd: 363 },
};

fn names(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|entry| entry.get("Name").unwrap_or(entry).as_str().unwrap()).collect()
}

#[test]
fn an_event_is_one_line_of_valid_embedded_metric_format() {
    let event = recorded(full_event());
    assert!(event["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    let directives = event["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    let [directive] = directives.as_slice() else { panic!("{directives:?}") };
    assert_eq!(directive["Namespace"], "Spillway");
    // Every metric and dimension in the directive exists and has the right type.
    for metric in names(&directive["Metrics"]) {
        assert!(event[metric].is_number(), "{metric}");
    }
    for set in directive["Dimensions"].as_array().unwrap() {
        for dimension in names(set) {
            assert!(event[dimension].as_str().is_some_and(|value| !value.is_empty()), "{dimension}");
        }
    }
    let metrics = names(&directive["Metrics"]);
    let expected = "admit_ms cost_microusd duration_ms input_tokens output_tokens time_to_first_token_ms";
    assert_eq!(metrics, expected.split(' ').collect());
}

#[test]
fn the_tenant_is_a_property_and_not_a_dimension() {
    let event = recorded(full_event());
    assert_eq!(event["tenant"], "a \"quoted\" tenant");
    let dimensions = event["_aws"]["CloudWatchMetrics"][0]["Dimensions"].as_array().unwrap();
    let allowed = BTreeSet::from(["dialect", "model", "outcome"]);
    assert!(!dimensions.is_empty());
    assert!(dimensions.iter().all(|set| names(set).is_subset(&allowed)), "{dimensions:?}");
}

#[test]
fn an_event_has_the_named_fields_and_nothing_else() {
    let event = recorded(full_event());
    let fields: BTreeSet<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "_aws request_id answer_of tenant dialect route model pool class outcome limit stream input_tokens \
                    output_tokens reserved_tokens cost_microusd admit_ms time_to_first_token_ms duration_ms hold_ms \
                    attempts regained_tokens parent";
    let charged = ["tenant", "parent", "pool"].map(|payer| {
        ["at_ms", "minute_tokens", "day_tokens", "microusd"].map(|field| format!("{payer}_charged_{field}"))
    });
    let expected: BTreeSet<&str> = expected.split(' ').chain(charged.iter().flatten().map(String::as_str)).collect();
    assert_eq!(fields, expected);
    assert_eq!(event["pool_charged_day_tokens"], Value::from(122));
    assert_eq!(event["stream"], Value::from(1));
    assert_eq!((&event["cost_microusd"], &event["outcome"]), (&Value::from(363), &Value::from("answered")));
}

#[test]
fn unknown_fields_are_left_out_but_dimensions_are_not() {
    let event = recorded(RequestEvent { request_id: "r-2".into(), ..RequestEvent::default() });
    let fields: BTreeSet<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, "_aws request_id dialect model outcome stream duration_ms".split(' ').collect());
    assert_eq!([&event["dialect"], &event["model"], &event["outcome"]], ["none", "none", "failed"]);
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
