//! Alarms: each is raised by the metrics of the situation that it is for, and by no other.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{LocalBoxFuture, join_all};
use serde_json::{Value, json};
use spillway::{
    app::App,
    dialect::Api,
    drain::{DrainEvent, handle},
    telemetry::Telemetry,
    units::Millis,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    alarms::{Alarm, Minutes, namespace, service_metric},
    chat,
    jobs::{ONE_REQUEST, new_job, two_tenants},
    metrics::data_points,
    recorded::Recorded,
    template::Template,
    time::eventually,
};

const MINUTE_MS: u64 = 60_000;

/// A deployment, and the data points that its events make.
struct Watched {
    deployment: Deployment,
    events: Recorded,
    seen: usize,
    minutes: Minutes,
}

impl Watched {
    /// Starts a deployment whose first sweep is over.
    async fn start(settings: &str) -> Self {
        let events = Recorded::default();
        let telemetry = Telemetry::new(&namespace(&Template::read()), events.clone());
        let deployment = Deployment::start_with(settings, telemetry).await;
        eventually("the first sweep", async || !events.events().is_empty()).await;
        Self { deployment, seen: events.events().len(), events, minutes: Minutes::new() }
    }

    fn app(&self) -> &App {
        &self.deployment.world.app
    }

    /// Lets a minute pass: `chats` calls of the tenant `u`, and then a sweep of `sweeper`, if there
    /// is one.
    async fn minute(&mut self, chats: usize, sweeper: Option<&App>) {
        let mut points = Vec::new();
        for _ in 0..chats {
            let status = self.deployment.chat("u", 5, 5).await.status();
            let metric = service_metric("AWS/ApiGateway", "5XXError", "ApiName", "!Ref AWS::StackName");
            points.push((metric, if status.is_server_error() { 1.0 } else { 0.0 }));
        }
        if let Some(app) = sweeper {
            let _ = handle(app, DrainEvent::Sweep { sweep: true }, None).await;
        }
        let events = self.events.events();
        points.extend(events[self.seen..].iter().flat_map(data_points));
        self.seen = events.len();
        self.minutes.push(points);
        self.deployment.world.advance(MINUTE_MS);
    }

    /// Lets some minutes pass with two calls and a sweep in each. Returns all data points.
    async fn minutes(mut self, count: usize) -> Minutes {
        let app = self.app().clone();
        for _ in 0..count {
            self.minute(2, Some(&app)).await;
        }
        self.minutes
    }
}

fn settings() -> String {
    two_tenants("limits = { in_flight = 5 }")
}

async fn all_is_well() -> Minutes {
    Watched::start(&settings()).await.minutes(8).await
}

/// The tenant `t` has a job that waits for its own limit for a quarter of an hour.
async fn a_job_waits_for_its_tenants_limit() -> Minutes {
    let watched = Watched::start(&two_tenants("limits = { in_flight = 1 }")).await;
    let _held = watched.deployment.occupy("t", ONE_REQUEST, 60 * MINUTE_MS).await;
    let id = watched.deployment.submit("/v1/chat/completions", "t", &chat(5, 5)).await;
    let app = watched.app().clone();
    let mut watched = watched;
    for _ in 0..16 {
        watched.minute(1, Some(&app)).await;
    }
    assert_eq!(watched.deployment.job("t", &id).await.json()["status"], "queued");
    watched.minutes
}

async fn the_ledger_fails() -> Minutes {
    let watched = Watched::start(&settings()).await;
    watched.deployment.world.stand_ins.dynamodb_faults().inject(Fault::on("UpdateItem", Effect::Error500));
    watched.minutes(6).await
}

async fn a_table_is_gone(table: &str) -> Minutes {
    let watched = Watched::start(&settings()).await;
    let dynamodb = watched.deployment.clients().await.dynamodb;
    dynamodb.delete_table().table_name(table).send().await.expect("deleted");
    watched.deployment.world.advance(2 * MINUTE_MS);
    watched.minutes(6).await
}

async fn dynamodb_is_down() -> Minutes {
    let watched = Watched::start(&settings()).await;
    let down = Fault { operation: None, ..Fault::on("any", Effect::Throttle) };
    watched.deployment.world.stand_ins.dynamodb_faults().inject(down);
    watched.deployment.world.advance(2 * MINUTE_MS);
    watched.minutes(6).await
}

async fn the_clock_is_off() -> Minutes {
    let watched = Watched::start(&settings()).await;
    watched.app().clock.advance(Millis::from_s(5));
    watched.minutes(6).await
}

async fn bedrock_fails() -> Minutes {
    let watched = Watched::start(&settings()).await;
    watched.deployment.set_model_faults(&[json!({ "unavailable": true })]).await;
    watched.minutes(6).await
}

/// Bedrock fails once. No operator has to get up.
async fn bedrock_fails_once() -> Minutes {
    let mut watched = Watched::start(&settings()).await;
    let app = watched.app().clone();
    watched.deployment.set_model_faults(&[json!({ "unavailable": true })]).await;
    watched.minute(1, Some(&app)).await;
    watched.deployment.set_model_faults(&[]).await;
    watched.minutes(6).await
}

/// The first pool fails, and the second answers. `fault` strikes the calls of the first.
async fn a_pool_is_out(fault: Value) -> Minutes {
    let first = "model_id = \"sim.model\"\n";
    let second = "[[models.ladder]]\nname = \"second\"\nkind = \"on_demand\"\nmodel_id = \"sim.second\"\n";
    let mut watched = Watched::start(&settings().replace(first, &format!("{first}{second}"))).await;
    let mut fault = fault;
    fault["model_id"] = json!("sim.model");
    watched.deployment.set_model_faults(&[fault]).await;
    let app = watched.app().clone();
    for _ in 0..8 {
        watched.minute(2, Some(&app)).await;
    }
    watched.minutes
}

async fn a_model_is_denied() -> Minutes {
    let mut watched = Watched::start(&settings().replace("sim.model", "sim.denied")).await;
    let app = watched.app().clone();
    watched.minute(1, Some(&app)).await;
    watched.minutes
}

async fn the_sweep_does_not_run() -> Minutes {
    let mut watched = Watched::start(&settings()).await;
    for _ in 0..6 {
        watched.minute(1, None).await;
    }
    watched.minutes
}

/// A job is ready, and no drain receives its messages.
async fn a_job_is_overdue() -> Minutes {
    let mut watched = Watched::start(&settings()).await;
    let new = new_job(Api::ChatCompletions, &chat(7, 7), watched.app().clock.now());
    watched.app().jobs.submit(&new).await.expect("a job");
    let app = App { queue: watched.app().dead_letters.clone(), ..watched.app().clone() };
    for _ in 0..16 {
        watched.minute(1, Some(&app)).await;
    }
    watched.minutes
}

/// Returns `value` of a metric of an AWS service in each of six minutes that are well otherwise.
fn service(well: &Minutes, namespace: &str, name: &str, dimension: &str, of: &str, value: f64) -> Minutes {
    let point = (service_metric(namespace, name, dimension, of), value);
    well[..6].iter().map(|minute| [minute.as_slice(), std::slice::from_ref(&point)].concat()).collect()
}

/// A situation, the alarms that it must raise, and its data points.
type Situation = (&'static str, &'static [&'static str], Minutes);

const CLOSED: &[&str] = &["ApiGatewayErrorsAlarm", "FailedClosedAlarm", "ServerErrorsAlarm"];

/// Returns the situations of a deployment, which run at the same time.
async fn situations_of_events() -> Vec<Situation> {
    let closed_and_no_sweep = &["ApiGatewayErrorsAlarm", "FailedClosedAlarm", "ServerErrorsAlarm", "SweepAlarm"];
    let situations: [(_, &[_], LocalBoxFuture<'_, Minutes>); 14] = [
        ("all is well", &[], Box::pin(all_is_well())),
        ("a job waits for its tenant's limit", &[], Box::pin(a_job_waits_for_its_tenants_limit())),
        ("Bedrock fails once", &[], Box::pin(bedrock_fails_once())),
        ("the ledger fails", CLOSED, Box::pin(the_ledger_fails())),
        ("the ledger is gone", CLOSED, Box::pin(a_table_is_gone("spillway-ledger"))),
        ("the registry is gone", CLOSED, Box::pin(a_table_is_gone("spillway-registry"))),
        ("the clock is off", CLOSED, Box::pin(the_clock_is_off())),
        ("DynamoDB is down", closed_and_no_sweep, Box::pin(dynamodb_is_down())),
        (
            "Bedrock fails",
            &["ApiGatewayErrorsAlarm", "PoolOutagesAlarm", "ServerErrorsAlarm"],
            Box::pin(bedrock_fails()),
        ),
        ("a pool fails", &["PoolOutagesAlarm"], Box::pin(a_pool_is_out(json!({ "unavailable": true })))),
        (
            "the quota of a day is used up",
            &["PoolOutagesAlarm"],
            Box::pin(a_pool_is_out(json!({ "daily_quota": true }))),
        ),
        ("a model is denied", &["DeniedModelsAlarm"], Box::pin(a_model_is_denied())),
        ("the sweep does not run", &["SweepAlarm"], Box::pin(the_sweep_does_not_run())),
        ("a job is overdue", &["OverdueJobsAlarm"], Box::pin(a_job_is_overdue())),
    ];
    join_all(situations.map(|(situation, alarms, minutes)| async move { (situation, alarms, minutes.await) })).await
}

/// Returns the situations that only AWS sees.
fn situations_of_services(well: &Minutes) -> Vec<Situation> {
    let lambda = |name, function| service(well, "AWS/Lambda", name, "FunctionName", function, 1.0);
    let queue = |name, queue, value| service(well, "AWS/SQS", name, "QueueName", queue, value);
    let (messages, age) = ("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage");
    let (api, drain) = ("!Ref ApiFunction", "!Ref DrainFunction");
    let dead_webhooks = "!GetAtt WebhookDeadLetterQueue.QueueName";
    vec![
        ("api crashes", &["ApiErrorsAlarm"], lambda("Errors", api)),
        ("api is throttled", &["ApiThrottlesAlarm"], lambda("Throttles", api)),
        ("the drain crashes", &["DrainErrorsAlarm"], lambda("Errors", drain)),
        ("the drain is throttled", &["DrainThrottlesAlarm"], lambda("Throttles", drain)),
        ("jobs are dropped", &["RecursiveInvocationsAlarm"], lambda("RecursiveInvocationsDropped", drain)),
        ("a dead letter", &["DeadLettersAlarm"], queue(messages, "!GetAtt DeadLetterQueue.QueueName", 1.0)),
        ("a dead webhook", &["WebhookDeadLettersAlarm"], queue(messages, dead_webhooks, 1.0)),
        ("late webhooks", &["WebhookQueueAgeAlarm"], queue(age, "!GetAtt WebhookQueue.QueueName", 1801.0)),
    ]
}

/// Returns the situations in which other alarms are raised than the ones that must be.
fn faults(template: &Template, situations: &[Situation]) -> BTreeMap<&'static str, Vec<String>> {
    let alarms = Alarm::all(template);
    let mut found = BTreeMap::new();
    for (situation, expected, minutes) in situations {
        let raised = alarms.iter().filter(|(_, alarm)| alarm.is_raised(minutes)).map(|(name, _)| name.clone());
        let raised: Vec<String> = raised.collect();
        if raised != *expected {
            found.insert(*situation, raised);
        }
    }
    found
}

/// Mistakes in the template: a text, its replacement, and a situation that must show the mistake.
const MISTAKES: [(&str, &str, &str); 11] = [
    ("MetricName: failed_closed", "MetricName: failed_close", "the ledger fails"),
    (
        "MetricName: server_errors",
        "MetricName: server_errors\n      Dimensions: [{Name: model, Value: m}]",
        "Bedrock fails",
    ),
    (
        "Namespace: !Sub Spillway/${AWS::StackName}\n      MetricName: denied",
        "Namespace: Spillway\n      MetricName: denied",
        "a model is denied",
    ),
    ("Threshold: 60000", "Threshold: 600000", "a pool fails"),
    ("MetricName: sweeps", "MetricName: sweep", "all is well"),
    ("TreatMissingData: breaching", "TreatMissingData: notBreaching", "the sweep does not run"),
    ("DatapointsToAlarm: 1\n", "", "a job is overdue"),
    (
        "Statistic: Maximum\n      ComparisonOperator: GreaterThanThreshold\n      Threshold: !Ref Over",
        "Statistic: Maximum\n      ComparisonOperator: LessThanThreshold\n      Threshold: !Ref Over",
        "all is well",
    ),
    ("Default: 600", "Default: 600000", "a job is overdue"),
    ("Name: ApiName, Value: !Ref AWS::StackName", "Name: ApiId, Value: !Ref Api", "Bedrock fails"),
    ("ComparisonOperator: LessThanThreshold", "ComparisonOperator: GreaterThanOrEqualToThreshold", "all is well"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_alarm_is_raised_by_what_it_is_for_and_by_nothing_else() {
    let template = Template::read();
    let mut situations = situations_of_events().await;
    let well = situations[0].2.clone();
    situations.extend(situations_of_services(&well));
    assert_eq!(faults(&template, &situations), BTreeMap::new());
    let raised: BTreeSet<_> = situations.iter().flat_map(|(_, alarms, _)| alarms.iter().copied()).collect();
    let alarms = Alarm::all(&template);
    assert_eq!(alarms.keys().map(String::as_str).collect::<BTreeSet<_>>(), raised, "an alarm has no situation");
    for (text, replacement, shown_by) in MISTAKES {
        let mistaken = Template(template.0.replace(text, replacement));
        assert_ne!(mistaken.0, template.0, "{text}");
        let faults = faults(&mistaken, &situations);
        assert!(faults.contains_key(shown_by), "{text}: {faults:?}");
    }
}
