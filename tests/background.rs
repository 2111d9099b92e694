//! OpenAI's background responses: retrieving, cancelling, deleting and streaming them from any
//! event.

mod attempts;

use serde_json::{Value, json};
use spillway::job::Job;

use crate::support::{
    Deployment,
    answer::{Answer, Events},
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, ONE_REQUEST, two_tenants},
    key,
    time::eventually,
};

const PATH: &str = "/v1/responses";
const ROOM: &str = "limits = { requests_per_minute = 100, tokens_per_minute = 100000, in_flight = 10 }";
const ONE_A_MINUTE: &str = "limits = { requests_per_minute = 1 }";

/// Returns the body of a background response that is answered with `output_tokens` tokens.
fn ask(output_tokens: u64, extra: &Value) -> Value {
    let prompt = format!("[[output_tokens={output_tokens}]]");
    let mut body = json!({ "model": "m", "input": prompt, "max_output_tokens": 500, "background": true });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("members").clone());
    body
}

/// Starts a deployment with a model that generates tokens slowly.
async fn slow(tokens_per_second: u64) -> Deployment {
    let simulator = format!("[simulator]\ntime_to_first_token_ms = 1000\ntokens_per_second = {tokens_per_second}");
    let deployment = Deployment::start(&format!("{}\n{simulator}", two_tenants(ROOM))).await;
    deployment.advance_to_noon();
    deployment
}

/// Returns the id of a response's job.
fn job_id(response: &Value) -> String {
    let id = response["id"].as_str().and_then(|id| id.strip_prefix("resp_")).expect("an id");
    assert_eq!(id.len(), 32, "a UUID without hyphens: {id}");
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
}

fn id(response: &Value) -> &str {
    response["id"].as_str().expect("an id")
}

/// Returns the sequence number of an event.
fn number(event: &(String, String)) -> u64 {
    let data: Value = serde_json::from_str(&event.1).expect("JSON");
    data["sequence_number"].as_u64().expect("a number")
}

fn names(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

impl Deployment {
    /// Creates a background response and returns it.
    async fn create(&self, body: &Value) -> Value {
        let answer = self.ask(PATH, "t", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn retrieve(&self, tenant: &str, id: &str, query: &str) -> Answer {
        Answer::to(self.get(&format!("{PATH}/{id}{query}"), tenant)).await
    }

    async fn cancel_response(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.post(&format!("{PATH}/{id}/cancel"), tenant, &json!({}))).await
    }

    async fn delete_response(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.http.delete(format!("{}{PATH}/{id}", self.world.url)).bearer_auth(key(tenant))).await
    }

    /// Returns the remaining events of a response after event number `after`.
    async fn events(&self, id: &str, after: Option<u64>) -> Vec<(String, String)> {
        let after = after.map(|after| format!("&starting_after={after}")).unwrap_or_default();
        let request = self.get(&format!("{PATH}/{id}?stream=true{after}"), "t");
        Events::of(request.send().await.expect("an answer")).rest().await
    }

    async fn ended(&self, response: &Value) -> Job {
        self.stored_when(&job_id(response), |job| job.status.is_final()).await
    }
}

#[tokio::test]
async fn a_background_response_is_queued_immediately_and_can_be_retrieved_when_it_is_done() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let created = deployment.create(&ask(12, &json!({ "instructions": "Be brief.", "metadata": { "a": "b" } }))).await;
    assert_eq!((&created["object"], &created["status"]), (&json!("response"), &json!("queued")));
    assert_eq!(
        (&created["background"], &created["output"], &created["usage"]),
        (&json!(true), &json!([]), &json!(null))
    );
    assert_eq!(created["metadata"], json!({ "a": "b" }));
    deployment.ended(&created).await;

    let answer = deployment.retrieve("t", id(&created), "").await;
    let retrieved = answer.json();
    assert_eq!((answer.status, &retrieved["status"]), (200, &json!("completed")), "{retrieved}");
    assert_eq!(retrieved["usage"]["output_tokens"], 12);
    for name in ["id", "created_at", "background", "instructions", "metadata", "model"] {
        assert_eq!(retrieved[name], created[name], "{name}");
    }
    let called = deployment.ask(PATH, "t", &ask(12, &json!({ "background": false }))).await.json();
    assert_eq!(retrieved["output"][0]["content"], called["output"][0]["content"]);
    assert_eq!(deployment.quota("t").await["settled"]["requests"], 2);
}

#[tokio::test]
async fn a_background_response_stays_queued_until_there_is_room() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    let deferred = deployment.stored_when(&job_id(&created), |job| job.deferrals > 0).await;
    assert_eq!(deferred.attempts, 0);
    assert_eq!(deployment.retrieve("t", id(&created), "").await.json(), created);
    assert_eq!(deployment.final_status(&deferred.id).await, "succeeded");
    assert_eq!(deployment.retrieve("t", id(&created), "").await.json()["status"], "completed");
}

#[tokio::test]
async fn only_background_responses_are_stored_and_only_for_their_tenant() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    deployment.ended(&created).await;
    let called = deployment.ask(PATH, "t", &ask(5, &json!({ "background": false }))).await.json();
    let hyphenated = format!("resp_{}", job_id(&created));
    let unknown = "resp_018f00000000700080000000000000ff";
    for (tenant, id) in
        [("u", id(&created)), ("t", id(&called)), ("t", unknown), ("t", &hyphenated), ("t", "resp_"), ("t", "nothing")]
    {
        for answer in [
            deployment.retrieve(tenant, id, "").await,
            deployment.retrieve(tenant, id, "?stream=true").await,
            deployment.cancel_response(tenant, id).await,
            deployment.delete_response(tenant, id).await,
        ] {
            assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("not_found")), "{tenant} {id}");
        }
    }
    assert_eq!(deployment.retrieve("t", id(&created), "").await.json()["status"], "completed");
}

#[tokio::test]
async fn a_background_response_that_can_never_run_is_refused_immediately() {
    let settings = format!(
        "{}\n[[tenants]]\nname = \"r\"\noverflow = \"refuse\"",
        two_tenants("limits = { tokens_per_minute = 100 }")
    );
    let settings = settings.replace("[keys]\n", &format!("[keys]\nr = \"{}\"\n", key("r")));
    let deployment = Deployment::start(&settings).await;
    for (tenant, extra, param) in [
        ("t", json!({}), "max_tokens"),
        ("t", json!({ "model": "none" }), "model"),
        ("t", json!({ "store": false }), "store"),
        ("t", json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
        ("r", json!({}), "background"),
    ] {
        let answer = deployment.ask(PATH, tenant, &ask(5, &extra)).await;
        assert!(answer.status == 400 || answer.status == 404, "{}", answer.text());
        assert_eq!(answer.json()["error"]["param"], param, "{}", answer.text());
    }
    assert_eq!(deployment.messages_in(JOB_QUEUE).await, 0);
}

#[tokio::test]
async fn a_queued_response_that_is_cancelled_never_runs() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    deployment.stored_when(&job_id(&created), |job| job.deferrals > 0).await;
    for _ in 0..2 {
        let cancelled = deployment.cancel_response("t", id(&created)).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    }
    assert_eq!(deployment.retrieve("t", id(&created), "").await.json()["status"], "cancelled");
    let events = deployment.events(id(&created), None).await;
    assert_eq!(names(&events), ["response.created", "response.queued", "response.incomplete"]);
    deployment.world.advance(61_000);
    eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_response_that_is_cancelled_ends_cancelled_and_its_call_is_charged() {
    let deployment = slow(10).await;
    let created = deployment.create(&ask(50, &json!({}))).await;
    deployment.stored_when(&job_id(&created), |job| job.status.name() == "running").await;
    eventually("the model runs", async || deployment.simulator().await["total"]["requests"] == 1).await;
    let cancelled = deployment.cancel_response("t", id(&created)).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    let settled = deployment.quota_when("t", |quota| quota["settled"]["requests"] == 1);
    assert_eq!(deployment.quickly(settled).await["settled"]["output_tokens"], 50);
    let deletion =
        async { eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await };
    deployment.quickly(deletion).await;
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
    let retrieved = deployment.retrieve("t", id(&created), "").await.json();
    assert_eq!((&retrieved["status"], &retrieved["output"]), (&json!("cancelled"), &json!([])));
    assert_eq!(deployment.cancel_response("t", id(&created)).await.status, 200);
}

#[tokio::test]
async fn cancelling_a_completed_response_changes_nothing() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    deployment.ended(&created).await;
    let retrieved = deployment.retrieve("t", id(&created), "").await.json();
    assert_eq!(deployment.cancel_response("t", id(&created)).await.json(), retrieved);
}

#[tokio::test]
async fn deleting_a_response_deletes_its_request_and_its_answer() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let created = deployment.create_and_read(&ask(5, &json!({ "stream": true }))).await;
    deployment.ended(&created).await;
    let rows = async || {
        let dynamodb = deployment.clients().await.dynamodb;
        let scanned = dynamodb.scan().table_name("spillway-jobs").send().await.expect("the jobs");
        let keys = scanned.items().iter().filter_map(|item| item.get("pk")?.as_s().ok().cloned());
        keys.filter(|key| key.starts_with(&job_id(&created))).count()
    };
    assert!(rows().await > 2, "the job, its request, its answer and its stream");
    let deleted = deployment.delete_response("t", id(&created)).await;
    assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &json!(true)));
    assert_eq!(rows().await, 1, "the job");
    assert_eq!(deployment.retrieve("t", id(&created), "").await.status, 404);
    assert_eq!(deployment.delete_response("t", id(&created)).await.status, 404);
    assert_eq!(deployment.result("t", &job_id(&created)).await.status, 409);
}

#[tokio::test]
async fn a_queued_response_that_is_deleted_never_runs() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    deployment.stored_when(&job_id(&created), |job| job.deferrals > 0).await;
    assert_eq!(deployment.delete_response("t", id(&created)).await.status, 200);
    deployment.world.advance(61_000);
    eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_stream_sends_its_events_as_they_come_from_queued_to_completed() {
    let deployment = slow(10).await;
    let response = deployment.post(PATH, "t", &ask(40, &json!({ "stream": true }))).send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = Events::of(response);
    let first = events.next().await.expect("an event");
    let created: Value = serde_json::from_str(&first.1).expect("JSON");
    let created = created["response"].clone();
    let mut received = vec![first];
    while received.last().is_some_and(|(name, _)| name != "response.output_text.delta") {
        received.push(deployment.quickly(events.next()).await.expect("an event"));
    }
    assert_eq!(deployment.stored(&job_id(&created)).await.status.name(), "running", "it has not ended yet");
    received.extend(deployment.quickly(events.rest()).await);
    assert_eq!(names(&received)[..3], ["response.created", "response.queued", "response.in_progress"]);
    assert_eq!(names(&received).last(), Some(&"response.completed"));
    for (expected, event) in received.iter().enumerate() {
        assert_eq!(number(event), expected as u64);
    }
    let last: Value = serde_json::from_str(&received[received.len() - 1].1).expect("JSON");
    assert_eq!(deployment.retrieve("t", id(&created), "").await.json(), last["response"]);
    assert_eq!(deployment.events(id(&created), None).await, received, "it can be read again");
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_stream_resumes_after_any_event() {
    let deployment = Deployment::with_tenants(ROOM).await;
    for stream in [true, false] {
        let body = ask(15, &json!({ "stream": stream }));
        let created = if stream { deployment.create_and_read(&body).await } else { deployment.create(&body).await };
        deployment.ended(&created).await;
        let events = deployment.events(id(&created), None).await;
        assert!(events.len() > 10);
        for after in 0..events.len() + 2 {
            let missing = deployment.events(id(&created), Some(after as u64)).await;
            assert_eq!(missing, events[events.len().min(after + 1)..], "{after}");
        }
    }
    for query in ["?stream=true&starting_after=x", "?starting_after=1", "?stream=maybe"] {
        assert_eq!(deployment.retrieve("t", "resp_1", query).await.status, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_while_its_response_runs() {
    let deployment = slow(20).await;
    let response = deployment.post(PATH, "t", &ask(200, &json!({ "stream": true }))).send().await.expect("an answer");
    let mut events = Events::of(response);
    let mut received = vec![events.next().await.expect("an event")];
    let created: Value = serde_json::from_str(&received[0].1).expect("JSON");
    let created = created["response"].clone();
    // Successive connections, each closed after a few events.
    for count in [4, 2, 3] {
        for _ in 0..count {
            received.push(deployment.quickly(events.next()).await.expect("an event"));
        }
        let path = format!("{PATH}/{}?stream=true&starting_after={}", id(&created), received.len() - 1);
        events = Events::of(deployment.get(&path, "t").send().await.expect("an answer"));
    }
    received.extend(deployment.quickly(events.rest()).await);
    deployment.ended(&created).await;
    assert_eq!(received, deployment.events(id(&created), None).await);
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_stream_of_a_queued_response_sends_keep_alives() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let request = deployment.post(PATH, "t", &ask(5, &json!({ "stream": true })));
    let text = deployment.quickly(Answer::to(request)).await.text();
    let (waiting, rest) = text.split_once("event: response.in_progress").expect("a start");
    assert!((3..=5).contains(&waiting.matches(": keep-alive\n\n").count()), "{waiting}");
    assert!(rest.contains("response.completed") && !rest.contains("keep-alive"));
}

#[tokio::test]
async fn a_failed_response_reports_its_error() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let created = deployment.create(&ask(5, &json!({ "model": "refuses" }))).await;
    assert_eq!(deployment.ended(&created).await.status.name(), "failed");
    let failed = deployment.retrieve("t", id(&created), "").await.json();
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("invalid_prompt")));
    assert!(failed["error"]["message"].as_str().is_some_and(|message| message.starts_with("Bedrock: ")), "{failed}");
    let events = deployment.events(id(&created), None).await;
    assert_eq!(names(&events), ["response.created", "response.queued", "response.failed"]);
    let last: Value = serde_json::from_str(&events[2].1).expect("JSON");
    assert_eq!(last["response"], failed);
}

#[tokio::test]
async fn a_response_that_finds_no_room_before_its_deadline_fails() {
    let deployment = Deployment::with_tenants("limits = { in_flight = 1 }\njob_ttl_s = 60").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
    let created = deployment.create(&ask(5, &json!({}))).await;
    deployment.stored_when(&job_id(&created), |job| job.deferrals > 0).await;
    deployment.world.advance(61_000);
    assert_eq!(deployment.ended(&created).await.status.name(), "expired");
    let failed = deployment.retrieve("t", id(&created), "").await.json();
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("rate_limit_exceeded")));
}

#[tokio::test]
async fn a_retry_with_an_idempotency_key_gets_the_same_response() {
    let deployment = Deployment::with_tenants(ROOM).await;
    let create = async |body: &Value| {
        let request = deployment.post("/openai/v1/responses", "t", body);
        Answer::to(request.header("idempotency-key", "once-and-only-once")).await
    };
    let body = ask(5, &json!({}));
    let (first, second) = (create(&body).await, create(&body).await);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(create(&ask(6, &json!({}))).await.status, 400, "the key belongs to another request");
    deployment.ended(&first.json()).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

impl Deployment {
    /// Creates a background response and reads its stream. Returns the response in its first event.
    async fn create_and_read(&self, body: &Value) -> Value {
        let events = Events::of(self.post(PATH, "t", body).send().await.expect("an answer"));
        let events = self.quickly(events.rest()).await;
        let created: Value = serde_json::from_str(&events[0].1).expect("JSON");
        created["response"].clone()
    }
}
