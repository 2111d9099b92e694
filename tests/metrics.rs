//! The metrics of events: their number, which CloudWatch bills, and what they count.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use spillway::{
    problem::{Kind, Problem},
    telemetry::{DenialEvent, LateCallEvent, PoolOutageEvent, RequestEvent, RequestOutcome, SweepEvent, Telemetry},
    units::Millis,
};

use crate::support::{
    Deployment, answer::Answer, jobs::two_tenants, metrics::data_points, recorded::Recorded, time::eventually,
};

const MAX_METRICS: usize = 40;

const OUTCOMES: [RequestOutcome; 8] = [
    RequestOutcome::Answered,
    RequestOutcome::Queued,
    RequestOutcome::Invalid,
    RequestOutcome::Denied,
    RequestOutcome::Refused,
    RequestOutcome::Failed,
    RequestOutcome::Cancelled,
    RequestOutcome::Replayed,
];

const PROBLEMS: [Kind; 7] =
    [Kind::Forbidden, Kind::Invalid, Kind::Throttled, Kind::Model, Kind::Unavailable, Kind::Timeout, Kind::Internal];

/// Returns an event with all numbers.
fn event(dialect: &'static str, model: Option<String>, outcome: RequestOutcome) -> RequestEvent {
    RequestEvent {
        request_id: "r".into(),
        dialect: Some(dialect),
        model,
        outcome,
        input_tokens: Some(5),
        output_tokens: Some(7),
        reserved_tokens: Some(12),
        cost_microusd: Some(3),
        admit_ms: Some(Millis::from_ms(4)),
        time_to_first_token_ms: Some(Millis::from_ms(90)),
        hold_ms: Some(Millis::ZERO),
        attempts: Some(1),
        regained_tokens: Some(2),
        ..RequestEvent::default()
    }
}

fn record_everything(telemetry: &Telemetry) {
    let models = (0..10).map(|number| Some(format!("model-{number}"))).chain([None]);
    for model in models {
        for dialect in ["openai", "anthropic", "bedrock"] {
            for outcome in OUTCOMES {
                telemetry.record(event(dialect, model.clone(), outcome));
                let uncharged = RequestEvent { cost_microusd: None, ..event(dialect, model.clone(), outcome) };
                telemetry.record(uncharged);
            }
            let mut problems: Vec<Problem> = PROBLEMS.iter().map(|kind| Problem::new(*kind, "")).collect();
            problems.extend(["ledger", "registry", "job store", "file store"].map(Problem::unavailable));
            for problem in problems {
                let mut failed = event(dialect, model.clone(), RequestOutcome::Answered);
                failed.fail(&problem);
                telemetry.record(failed);
            }
        }
        telemetry.record_outage(PoolOutageEvent {
            pool_outage_ms: Millis::from_s(5),
            model: format!("{model:?}"),
            pool: "first".into(),
            cause: "silent",
            outages_in_a_row: 2,
        });
        telemetry.record_late_call(LateCallEvent {
            late_calls: 1,
            request_id: "r".into(),
            model: format!("{model:?}"),
            pool: "first".into(),
            pool_charged: None,
        });
        telemetry.record_denial(DenialEvent { denied: 1, model_id: format!("{model:?}") });
    }
    telemetry.record_sweep(SweepEvent { sweeps: 1, oldest_overdue_s: 0, overdue: 3, resent: 2, unhandled: 1 });
}

#[test]
fn ten_models_and_three_dialects_make_at_most_forty_metrics() {
    let recorded = Recorded::default();
    record_everything(&Telemetry::to(recorded.clone()));
    let points = recorded.events().iter().flat_map(data_points).collect::<Vec<_>>();
    let metrics: BTreeSet<_> = points.into_iter().map(|(metric, _)| metric).collect();
    assert!(metrics.len() <= MAX_METRICS, "{} metrics: {metrics:#?}", metrics.len());
    assert_eq!(metrics.len(), 38, "docs/cost.md has the number of metrics");
    let names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let expected = "admit_ms cost_microusd denied duration_ms failed_closed late_calls oldest_overdue_s pool_outage_ms \
                    server_errors sweeps time_to_first_token_ms tokens";
    assert_eq!(names, expected.split(' ').collect());
}

#[test]
fn tokens_and_cost_are_counted_by_model() {
    let recorded = Recorded::default();
    let telemetry = Telemetry::new("Spillway/a", recorded.clone());
    telemetry.record(event("openai", Some("haiku".into()), RequestOutcome::Answered));
    let points = recorded.events().iter().flat_map(data_points).collect::<Vec<_>>();
    let of_model = |name: &str| {
        let found = points.iter().find(|(metric, _)| metric.name == name).expect("a data point");
        assert_eq!((found.0.namespace.as_str(), found.0.dimensions["model"].as_str()), ("Spillway/a", "haiku"));
        found.1.to_string()
    };
    assert_eq!([of_model("tokens"), of_model("cost_microusd")], ["12", "3"]);
}

/// A deployment without limits whose model is `model_id`, and its events.
async fn start(model_id: &str) -> (Deployment, Recorded) {
    let events = Recorded::default();
    let settings = two_tenants("").replace("sim.model", model_id);
    (Deployment::start_with(&settings, Telemetry::to(events.clone())).await, events)
}

/// Returns the number of denied calls so far.
fn denied(events: &Recorded) -> usize {
    events.events().iter().filter(|event| event["denied"] == 1).count()
}

#[tokio::test]
async fn a_failure_of_the_broker_is_recorded_on_routes_without_events() {
    let (deployment, events) = start("sim.model").await;
    assert_eq!(Answer::to(deployment.get("/v1/jobs", "t")).await.status, 200);
    assert_eq!(Answer::to(deployment.get("/v1/jobs?limit=0", "t")).await.status, 400);
    let dynamodb = deployment.clients().await.dynamodb;
    dynamodb.delete_table().table_name("spillway-jobs").send().await.expect("deleted");
    assert_eq!(Answer::to(deployment.get("/v1/jobs", "t")).await.status, 503);
    let [event] = &events.requests()[..] else { panic!("{:?}", events.requests()) };
    let found = ["route", "outcome", "error", "unavailable_service"].map(|name| &event[name]);
    assert_eq!(found, ["GET /v1/jobs", "failed", "unavailable", "job store"]);
    assert_eq!([&event["failed_closed"], &event["server_errors"]], [1, 1].map(Value::from).each_ref());
}

#[tokio::test]
async fn a_denied_call_is_counted_whatever_the_caller_gets() {
    let (deployment, events) = start("sim.denied").await;
    let body = json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": "Hello" }] });
    let statuses = ["/v1/messages/count_tokens", "/v1/messages"].map(|path| deployment.ask(path, "t", &body));
    let mut found = Vec::new();
    for answer in statuses {
        found.push((answer.await.status, denied(&events)));
    }
    assert_eq!(found, [(200, 1), (502, 2)]);
    let denial = events.events().into_iter().find(|event| event["denied"] == 1).expect("an event");
    assert_eq!(denial["model_id"], "sim.denied");
}

#[tokio::test]
async fn a_failed_attempt_at_a_job_is_recorded_with_its_error() {
    let (deployment, events) = start("sim.denied").await;
    let body = json!({ "model": "m", "input": "Hello", "background": true });
    assert_eq!(deployment.ask("/v1/responses", "t", &body).await.status, 200);
    let attempts = || events.requests().into_iter().filter(|event| event["route"] == "drain").collect::<Vec<_>>();
    eventually("the attempt is recorded", async || !attempts().is_empty()).await;
    let attempt = &attempts()[0];
    let found = ["outcome", "error", "tenant", "model"].map(|name| &attempt[name]);
    assert_eq!(found, ["failed", "model", "t", "m"]);
    assert_eq!((&attempt["server_errors"], attempt.get("failed_closed")), (&Value::from(1), None));
    assert!(denied(&events) > 0);
}
