//! Jobs whose pools fail: why they wait, when they end, and what does not end them.

use serde_json::{Value, json};
use spillway::{
    app::{App, Clients, Endpoints, loopback},
    config::{BedrockEndpoints, Config},
    dialect::Api,
    drain::handle,
    job::{Job, JobStatus},
    queue::Queue,
    telemetry::Telemetry,
    units::Millis,
};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::{Answer, deployment, pool},
    chat,
    jobs::{ONE_REQUEST, batch_of, new_job},
    recorded::Recorded,
};

const ROOMY: &str = "limits = { in_flight = 10 }";

/// Longest outage of a pool. A job that comes later does not wait for its end in the drain.
const MAX_OUTAGE_MS: u64 = 26_000;

/// Settings of the tenant `t` with `fields` and of the model `m` on one pool, `od`.
fn settings(fields: &str) -> String {
    deployment(fields, &pool("od", "on_demand", "sim.model", ""))
}

/// A deployment and a drain whose messages no other process receives.
struct Drain {
    deployment: Deployment,
    app: App,
    events: Recorded,
}

impl Drain {
    async fn start(settings: &str) -> Self {
        let events = Recorded::default();
        let deployment = Deployment::start_with(settings, Telemetry::to(events.clone())).await;
        deployment.advance_to_noon();
        let queue = Queue::create(deployment.sqs().await, "aside", Millis::from_s(30)).await.expect("a queue").0;
        let app = App { queue: Some(queue), ..deployment.world.app.clone() };
        Self { deployment, app, events }
    }

    /// Starts a drain whose model fails with `fault`.
    async fn with_fault(fields: &str, fault: Value) -> Self {
        let drain = Self::start(&settings(fields)).await;
        drain.deployment.set_model_faults(&[fault]).await;
        drain
    }

    /// Stores a job that is ready. Returns its id.
    async fn submit(&self) -> String {
        let new = new_job(Api::ChatCompletions, &chat(7, 7), self.app.clock.now());
        self.app.jobs.submit(&new).await.expect("a job").id
    }

    /// Attempts the job when it is ready, and no pool has an outage any more. Returns the job.
    async fn attempt(&self, id: &str) -> Job {
        let wait_ms = (self.deployment.stored(id).await.ready_at - self.app.clock.now()).as_ms();
        self.deployment.world.advance(wait_ms.max(MAX_OUTAGE_MS));
        handle(&self.app, batch_of(&[id]), None).await.expect("handled");
        self.deployment.stored(id).await
    }

    /// Attempts the job until it has ended. Returns the job and the number of attempts.
    async fn until_ended(&self, id: &str) -> (Job, u64) {
        for attempts in 1..200 {
            let job = self.attempt(id).await;
            if job.status.is_final() {
                return (job, attempts);
            }
        }
        panic!("the job has not ended: {:?}", self.deployment.stored(id).await);
    }

    async fn shown(&self, id: &str) -> Value {
        self.deployment.job("t", id).await.json()
    }

    async fn calls(&self) -> Value {
        self.deployment.simulator().await["total"]["requests"].clone()
    }

    /// Returns the events of attempts with this outcome.
    fn attempts(&self, outcome: &str) -> Vec<Value> {
        let is_one = |event: &Value| event["route"] == "drain" && event["outcome"] == outcome;
        self.events.requests().into_iter().filter(is_one).collect()
    }
}

#[tokio::test]
async fn a_job_whose_pool_always_fails_shows_why_it_waits_and_ends_with_the_reason() {
    let fields = format!("{ROOMY}\njob_max_failures = 4");
    let drain = Drain::with_fault(&fields, json!({ "error": "InternalServerException" })).await;
    let id = drain.submit().await;
    assert_eq!(drain.shown(&id).await.get("waits_for"), None, "it has not waited");
    for times in 1..4 {
        assert_eq!(drain.attempt(&id).await.status, JobStatus::Queued);
        let shown = drain.shown(&id).await;
        let reason = json!([{ "pool": "od", "reason": "error", "error": "InternalServerException" }]);
        assert_eq!((&shown["waits_for"], &shown["waits_times"]), (&reason, &json!(times)));
        let listed = Answer::to(drain.deployment.get("/v1/jobs?status=queued", "t")).await.json();
        assert_eq!(listed["data"][0]["waits_for"], reason);
    }
    let shown = drain.shown(&id).await;
    assert_eq!(shown["wait_reason"], "Waits for od: InternalServerException, 3 times.");
    assert!(!shown.to_string().contains("sim.model"), "{shown}");

    let job = drain.attempt(&id).await;
    let error = job.error.clone().unwrap_or_default();
    assert_eq!((job.status, drain.calls().await), (JobStatus::Failed, json!(4)), "{error}");
    assert!(error.ends_with(" s and 4 tries; od: InternalServerException."), "{error}");
    assert_eq!(drain.deployment.reasons().await, ["pools_failed"]);
    let shown = drain.shown(&id).await;
    assert_eq!((&shown["error"], &shown["waits_times"]), (&json!(error), &json!(4)));
    assert_eq!(shown["wait_reason"], "Waited for od: InternalServerException, 4 times.");
    let result = drain.deployment.result("t", &id).await;
    assert_eq!((result.status, &result.json()["error"]["message"]), (503, &json!(error)));
    let quota = drain.deployment.quota("t").await;
    assert_eq!((&quota["settled"]["requests"], &quota["limits"][0]["used"]), (&json!(0), &json!(0)), "{quota}");
}

#[tokio::test]
async fn each_deferral_is_an_event_and_no_server_error() {
    let fields = format!("{ROOMY}\njob_max_failures = 3");
    let drain = Drain::with_fault(&fields, json!({ "error": "InternalServerException" })).await;
    let id = drain.submit().await;
    drain.until_ended(&id).await;
    let deferred = drain.attempts("deferred");
    assert_eq!(deferred.iter().map(|event| event["deferrals"].clone()).collect::<Vec<_>>(), [json!(1), json!(2)]);
    for event in deferred {
        let found = ["job_id", "skipped", "error", "tenant", "model"].map(|name| event[name].clone());
        let skipped = "od: error (InternalServerException)";
        assert_eq!(found, [&*id, skipped, "unavailable", "t", "m"].map(Value::from));
        assert!(event["retry_after_ms"].as_u64() >= Some(1_000), "{event}");
        assert_eq!((event.get("server_errors"), event.get("failed_closed")), (None, None));
        let metrics = event["_aws"]["CloudWatchMetrics"].clone();
        assert_eq!(metrics[0]["Dimensions"], json!([["outcome"]]), "a deferral is no request: {metrics}");
    }
    let [failed] = &drain.attempts("failed")[..] else { panic!("one event for the end") };
    assert_eq!((&failed["server_errors"], &failed["job_id"]), (&json!(1), &json!(id)));
}

#[tokio::test]
async fn a_job_whose_model_is_denied_ends_with_the_name_of_the_error() {
    for error in ["AccessDeniedException", "ResourceNotFoundException"] {
        let drain = Drain::with_fault(&format!("{ROOMY}\njob_max_failures = 5"), json!({ "error": error })).await;
        let id = drain.submit().await;
        let (job, attempts) = drain.until_ended(&id).await;
        assert_eq!((job.status, job.attempts, attempts), (JobStatus::Failed, 1, 5), "a denied call is not billed");
        let text = drain.shown(&id).await.to_string();
        assert!(text.contains(&format!("od: {error}, 5 times")) && !text.contains("sim.model"), "{text}");
        assert_eq!(drain.deployment.reasons().await, ["pools_failed"]);
    }
}

#[tokio::test]
async fn a_job_whose_pool_is_unreachable_ends_when_its_time_is_over() {
    let mut drain = Drain::start(&settings(&format!("{ROOMY}\njob_max_failing_s = 300"))).await;
    let stand_ins = &drain.deployment.world.stand_ins;
    let endpoints = Endpoints {
        dynamodb: stand_ins.dynamodb_url(),
        sqs: stand_ins.sqs_url(),
        s3: stand_ins.s3_url(),
        bedrock_runtime: "http://127.0.0.1:1".into(),
    };
    let clients = Clients::new(&loopback().await, Some(&endpoints), BedrockEndpoints::default()).expect("clients");
    let config = Config::from_lookup(|_| None).expect("defaults");
    drain.app.models = App::new(&config, clients, Telemetry::off()).models;
    let id = drain.submit().await;
    let first = drain.attempt(&id).await;
    assert_eq!(drain.shown(&id).await["waits_for"], json!([{ "pool": "od", "reason": "unreachable" }]));
    let started = first.started_at.expect("a start");
    let (job, _) = drain.until_ended(&id).await;
    let failing = job.finished_at.expect("an end") - started;
    assert_eq!(job.status, JobStatus::Failed);
    assert!((300_000..=330_000).contains(&failing.as_ms()), "{failing}");
    let wait = job.wait.expect("a reason");
    assert!(wait.failures() < wait.times, "a pool that is known to be out is not called: {wait:?}");
    assert!(job.error.is_some_and(|error| error.contains("od: unreachable")));
}

#[tokio::test]
async fn a_job_survives_an_outage_that_ends_before_its_bounds() {
    let drain = Drain::with_fault(ROOMY, json!({ "status_5xx": 500, "times": 12 })).await;
    let id = drain.submit().await;
    let (job, attempts) = drain.until_ended(&id).await;
    assert_eq!((job.status, attempts, job.attempts, &job.wait), (JobStatus::Succeeded, 13, 1, &None));
    assert!(job.finished_at.expect("an end") - job.created_at > Millis::from_s(300), "an outage of minutes");
    let shown = drain.shown(&id).await;
    assert_eq!((shown.get("waits_for"), shown.get("waits_times"), shown.get("wait_reason")), (None, None, None));
    assert_eq!(drain.attempts("deferred").len(), 12);
}

#[tokio::test]
async fn full_limits_of_a_tenant_never_fail_its_job() {
    let fields = "limits = { in_flight = 1 }\njob_max_failures = 2\njob_max_failing_s = 60";
    let drain = Drain::with_fault(fields, json!({ "error": "InternalServerException", "times": 1 })).await;
    let id = drain.submit().await;
    drain.attempt(&id).await;
    let _running = drain.deployment.occupy("t", ONE_REQUEST, 1_000_000).await;
    for _ in 0..30 {
        drain.deployment.world.advance(MAX_OUTAGE_MS);
        // The message of a parked job may come at any time.
        handle(&drain.app, batch_of(&[&id]), None).await.expect("handled");
        let job = drain.deployment.stored(&id).await;
        assert_eq!((job.status, job.is_parked, job.attempts), (JobStatus::Queued, true, 0));
    }
    let shown = drain.shown(&id).await;
    assert_eq!((&shown["waits_for"], shown["status"].as_str()), (&json!([{ "reason": "in_flight" }]), Some("queued")));
    let parked = drain.attempts("deferred").pop().expect("an event");
    assert_eq!((&parked["limit"], &parked["error"]), (&json!("in_flight"), &json!("throttled")));
    assert!(drain.app.clock.now() - drain.deployment.stored(&id).await.created_at > Millis::from_s(600));
    drain.deployment.world.advance(1_000_000);
    let (job, _) = drain.until_ended(&id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_quota_of_the_day_that_is_used_up_is_no_failure_of_the_job() {
    let fields = format!("{ROOMY}\njob_max_failures = 2\njob_max_failing_s = 60");
    let drain = Drain::with_fault(&fields, json!({ "daily_quota": true })).await;
    // The first job finds out, and the second comes while the pool is known to be out.
    let (first, id) = (drain.submit().await, drain.submit().await);
    for _ in 0..20 {
        drain.deployment.world.advance(MAX_OUTAGE_MS);
        handle(&drain.app, batch_of(&[&first]), None).await.expect("handled");
        handle(&drain.app, batch_of(&[&id]), None).await.expect("handled");
    }
    let shown = drain.shown(&id).await;
    let reason = json!([{ "pool": "od", "reason": "daily_quota" }]);
    assert_eq!((&shown["status"], &shown["waits_for"]), (&json!("queued"), &reason));
    let job = drain.deployment.stored(&id).await;
    assert_eq!(job.wait.map(|wait| wait.failures()), Some(0));
}

#[tokio::test]
async fn a_store_that_fails_is_no_failure_of_the_job() {
    let drain = Drain::start(&settings(&format!("{ROOMY}\njob_max_failures = 1\njob_max_failing_s = 1"))).await;
    let id = drain.submit().await;
    drain.deployment.world.stand_ins.dynamodb_faults().inject(Fault::on("UpdateItem", Effect::Error500));
    for _ in 0..5 {
        assert_eq!(drain.attempt(&id).await.status, JobStatus::Queued);
    }
    let shown = drain.shown(&id).await;
    assert_eq!((&shown["waits_for"], &shown["waits_times"]), (&json!([{ "reason": "ledger" }]), &json!(5)));
    let event = drain.attempts("deferred").pop().expect("an event");
    assert_eq!((&event["unavailable_service"], &event["failed_closed"]), (&json!("ledger"), &json!(1)));
    drain.deployment.world.stand_ins.dynamodb_faults().clear();
    assert_eq!(drain.attempt(&id).await.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_job_that_expires_says_for_what_it_waited() {
    let drain = Drain::with_fault(ROOMY, json!({ "error": "InternalServerException" })).await;
    let new = new_job(Api::ChatCompletions, &chat(7, 7), drain.app.clock.now());
    let new = spillway::job::NewJob { expires_at: new.created_at + Millis::from_s(100), ..new };
    let id = drain.app.jobs.submit(&new).await.expect("a job").id;
    let (job, _) = drain.until_ended(&id).await;
    let error = job.error.unwrap_or_default();
    assert_eq!(job.status, JobStatus::Expired, "{error}");
    assert!(error.starts_with("no pool answered in time; the job waited for od: InternalServerException, "), "{error}");
}

#[tokio::test]
async fn a_background_response_ends_with_the_reason_why_it_waited() {
    let deployment = Deployment::start(&settings(&format!("{ROOMY}\njob_max_failures = 1"))).await;
    deployment.set_model_faults(&[json!({ "error": "ServiceUnavailableException" })]).await;
    let body = json!({ "model": "m", "input": "Hello", "background": true });
    let created = deployment.ask("/v1/responses", "t", &body).await.json();
    let id = created["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/responses/{id}");
    let ended = async {
        loop {
            let response = Answer::to(deployment.get(&path, "t")).await.json();
            if response["status"] == "failed" {
                return response;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let response = deployment.quickly(ended).await;
    let message = response["error"]["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("s and one try; od: ServiceUnavailableException."), "{response}");
}

#[tokio::test]
async fn a_job_whose_late_call_may_be_billed_makes_no_more_than_three_attempts() {
    let silent = "first_byte_timeout_ms = 1000\non_silence = \"next_pool\"";
    let pools = pool("silent", "on_demand", "sim.late", silent) + &pool("full", "on_demand", "sim.full", "");
    let drain = Drain::start(&deployment(ROOMY, &pools)).await;
    let late = json!({ "model_id": "sim.late", "silent_ms": 600_000 });
    drain.deployment.set_model_faults(&[late, json!({ "model_id": "sim.full", "throttle": true })]).await;
    let mut body = chat(5, 8);
    body["stream"] = json!(true);
    let new = new_job(Api::ChatCompletions, &body, drain.app.clock.now());
    let id = drain.app.jobs.submit(&new).await.expect("a job").id;
    let attempted = drain.deployment.quickly(handle(&drain.app, batch_of(&[&id]), None)).await;
    attempted.expect("handled");
    let job = drain.deployment.stored(&id).await;
    assert_eq!((job.attempts, job.deferrals), (1, 0), "a call that may be billed counts");
}
