//! Limits for what calls no model: waiting jobs, stored bytes, other requests, and made-up keys.

use std::time::Instant;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use spillway::{config::Config, store::ledger::HeldReservation};
use spillway_stand_ins::faults::{Effect, Fault};

use crate::support::{
    Deployment,
    answer::{Answer, ask},
    chat,
    jobs::{ONE_REQUEST, two_tenants},
    key,
};

const CHAT: &str = "/v1/chat/completions";

/// How the error of each dialect says that a request may be repeated: the path of a request, its
/// body, and a pointer to the member of the error with its value.
fn calls() -> [(&'static str, Value, &'static str, &'static str); 3] {
    let converse = json!({
        "messages": [{ "role": "user", "content": [{ "text": "[[output_tokens=5]]" }] }],
        "inferenceConfig": { "maxTokens": 5 },
    });
    [
        (CHAT, chat(5, 5), "/error/code", "rate_limit_exceeded"),
        ("/v1/messages", chat(5, 5), "/error/type", "rate_limit_error"),
        ("/model/m/converse", converse, "/message", ""),
    ]
}

/// A deployment in which tenant `t` has `limits` and its only slot is taken, so that all of its
/// calls find no room. Tenant `u` has the defaults.
struct Flooded {
    deployment: Deployment,
    _slot: HeldReservation,
}

impl Flooded {
    async fn start(limits: &str) -> Self {
        let settings = two_tenants("");
        let limited = format!("name = \"t\"\nlimits = {{ in_flight = 1 }}\n{limits}\n");
        let deployment = Deployment::start(&settings.replacen("name = \"t\"\n", &limited, 1)).await;
        deployment.advance_to_noon();
        let slot = deployment.occupy("t", ONE_REQUEST, 3_600_000).await;
        Self { deployment, _slot: slot }
    }

    async fn respond_async(&self, path: &str, body: &Value) -> Answer {
        self.deployment.ask_respond_async(path, "t", body).await
    }

    async fn listed(&self, path: &str) -> usize {
        let listed = Answer::to(self.deployment.get(path, "t")).await;
        assert_eq!(listed.status, 200, "{}", listed.text());
        listed.json()["data"].as_array().expect("a list").len()
    }

    /// Uploads a file with `content`.
    async fn upload(&self, content: &str) -> Answer {
        let part =
            |name: &str, value: &str| format!("--b\r\ncontent-disposition: form-data; name={name}\r\n\r\n{value}\r\n");
        let file = part("file; filename=\"batch.jsonl\"", content);
        Answer::to(self.form("/v1/files", format!("{}{file}--b--\r\n", part("purpose", "batch")))).await
    }

    fn form(&self, path: &str, form: String) -> RequestBuilder {
        let request = self.deployment.http.post(format!("{}{path}", self.deployment.world.url)).bearer_auth(key("t"));
        request.header("content-type", "multipart/form-data; boundary=b").body(form)
    }

    /// Uploads a file of `lines` chats and begins a batch of it.
    async fn openai_batch(&self, lines: usize) -> Answer {
        let line = |number| {
            let line = json!({ "custom_id": format!("{number}"), "method": "POST", "url": CHAT, "body": chat(5, 5) });
            line.to_string() + "\n"
        };
        let file = self.upload(&(0..lines).map(line).collect::<String>()).await;
        assert_eq!(file.status, 200, "{}", file.text());
        let body = json!({ "input_file_id": file.json()["id"], "endpoint": CHAT, "completion_window": "24h" });
        self.deployment.ask("/v1/batches", "t", &body).await
    }

    async fn anthropic_batch(&self, lines: usize) -> Answer {
        let request = |number| json!({ "custom_id": format!("{number}"), "params": chat(5, 5) });
        let body = json!({ "requests": (0..lines).map(request).collect::<Vec<_>>() });
        self.deployment.ask("/v1/messages/batches", "t", &body).await
    }

    async fn dynamodb_requests(&self) -> u64 {
        let operations = self.deployment.dynamodb_operations().await;
        operations.as_object().expect("operations").values().filter_map(Value::as_u64).sum()
    }
}

/// Fails unless `answer` is a refusal by `limit`.
fn assert_refused(answer: &Answer, status: u16, limit: &str) {
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (status, limit), "{}", answer.text());
    assert!(answer.text().contains(limit), "{}", answer.text());
}

/// Returns the time until the next try, in milliseconds.
fn wait_ms(answer: &Answer) -> u64 {
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    answer.header("retry-after-ms").parse().expect("milliseconds")
}

#[tokio::test]
async fn jobs_above_the_limit_on_waiting_jobs_are_refused_in_each_dialect() {
    let flooded = Flooded::start("max_waiting_jobs = 3").await;
    for (path, body, ..) in calls() {
        assert_eq!(flooded.respond_async(path, &body).await.status, 202);
    }
    let before = flooded.deployment.dynamodb_operations().await["PutItem"].clone();
    for (path, body, pointer, value) in calls() {
        let refused = flooded.respond_async(path, &body).await;
        assert_refused(&refused, 429, "max_waiting_jobs");
        assert!(wait_ms(&refused) <= 10_000);
        let said = refused.json().pointer(pointer).expect(pointer).clone();
        assert!(value.is_empty() || said == value, "{said}");
        assert_eq!(refused.header("x-amzn-errortype"), if value.is_empty() { "ThrottlingException" } else { "" });
    }
    let background = json!({ "model": "m", "background": true, "input": "[[output_tokens=5]]" });
    assert_refused(&flooded.deployment.ask("/v1/responses", "t", &background).await, 429, "max_waiting_jobs");
    assert_eq!(flooded.deployment.dynamodb_operations().await["PutItem"], before, "a refusal stores nothing");
    assert_eq!(flooded.listed("/v1/jobs").await, 3);
}

#[tokio::test]
async fn jobs_and_objects_are_refused_while_the_ledger_fails_and_polls_are_not() {
    let limits = "max_waiting_jobs = 3\nmax_stored_bytes = 400_000\nother_requests_per_minute = 7";
    let flooded = Flooded::start(limits).await;
    assert_eq!(flooded.respond_async(CHAT, &chat(5, 5)).await.status, 202);
    let faults = flooded.deployment.world.stand_ins.dynamodb_faults();
    for effect in [Effect::Error500, Effect::TimeoutAfter] {
        faults.inject(Fault::on("UpdateItem", effect));
        for (path, body, ..) in calls() {
            let refused = flooded.respond_async(path, &body).await;
            assert_eq!(refused.status, 503, "{path}: {}", refused.text());
            assert!(refused.text().contains("The ledger cannot be reached"), "{path}: {}", refused.text());
        }
        let refused = flooded.upload("1").await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(flooded.listed("/v1/jobs").await, 1);
        faults.clear();
    }
    assert_eq!(flooded.upload("1").await.status, 200);
}

#[tokio::test]
async fn a_cancelled_job_makes_room_for_another() {
    let flooded = Flooded::start("max_waiting_jobs = 2").await;
    let first = flooded.deployment.submit(CHAT, "t", &chat(5, 5)).await;
    flooded.deployment.submit(CHAT, "t", &chat(5, 5)).await;
    let refused = flooded.respond_async(CHAT, &chat(5, 5)).await;
    assert_refused(&refused, 429, "max_waiting_jobs");
    assert_eq!(flooded.deployment.cancel("t", &first).await.status, 200);
    flooded.deployment.world.advance(wait_ms(&refused));
    assert_eq!(flooded.respond_async(CHAT, &chat(5, 5)).await.status, 202);
    assert_refused(&flooded.respond_async(CHAT, &chat(5, 5)).await, 429, "max_waiting_jobs");
}

#[tokio::test]
async fn a_call_that_waits_for_room_counts_as_a_waiting_job() {
    let flooded = Flooded::start("max_waiting_jobs = 1\noverflow = \"wait\"").await;
    let waiting = tokio::spawn(flooded.deployment.post(CHAT, "t", &chat(5, 5)).send());
    crate::support::time::eventually("a waiting job", async || flooded.listed("/v1/jobs").await == 1).await;
    assert_refused(&flooded.deployment.ask(CHAT, "t", &chat(5, 5)).await, 429, "max_waiting_jobs");
    waiting.abort();
}

#[tokio::test]
async fn the_lines_of_a_batch_count_as_waiting_jobs_from_the_start() {
    for (batch, others) in [("openai", "anthropic"), ("anthropic", "openai")] {
        let flooded = Flooded::start("max_waiting_jobs = 20").await;
        let begin = async |api: &str, lines| match api {
            "openai" => flooded.openai_batch(lines).await,
            _ => flooded.anthropic_batch(lines).await,
        };
        let too_large = begin(batch, 21).await;
        assert_refused(&too_large, 413, "max_waiting_jobs");
        for _ in 0..2 {
            let begun = begin(batch, 10).await;
            assert_eq!(begun.status, 200, "{}", begun.text());
        }
        let lists = ["/v1/batches", "/v1/messages/batches"];
        let begun = [flooded.listed(lists[0]).await, flooded.listed(lists[1]).await];
        for api in [batch, others] {
            let refused = begin(api, 10).await;
            assert_refused(&refused, 429, "max_waiting_jobs");
            assert!(wait_ms(&refused) <= 10_000);
            assert_eq!(refused.json()["error"]["type"], "rate_limit_error", "{}", refused.text());
        }
        assert_eq!([flooded.listed(lists[0]).await, flooded.listed(lists[1]).await], begun);
        // A count has the lines that are jobs and the lines that are not jobs yet.
        flooded.deployment.world.advance(10_000);
        assert_refused(&flooded.respond_async(CHAT, &chat(5, 5)).await, 429, "max_waiting_jobs");
    }
}

#[tokio::test]
async fn what_is_stored_in_the_bucket_is_limited() {
    // Three objects of at most 128 KiB.
    let flooded = Flooded::start("max_stored_bytes = 400_000").await;
    let first = flooded.upload("1").await.json();
    let upload = json!({ "filename": "a", "bytes": 11, "purpose": "batch", "mime_type": "application/jsonl" });
    let created = flooded.deployment.ask("/v1/uploads", "t", &upload).await;
    assert_eq!((created.status, flooded.upload("2").await.status), (200, 200));
    let refused = flooded.upload("3").await;
    assert_refused(&refused, 400, "max_stored_bytes");
    assert_eq!(refused.json()["error"]["code"], "invalid_request");
    assert!(refused.headers.get("retry-after").is_none(), "waiting alone does not help");
    assert_refused(&flooded.deployment.ask("/v1/uploads", "t", &upload).await, 400, "max_stored_bytes");
    let part = "--b\r\ncontent-disposition: form-data; name=data; filename=upload\r\n\r\nhello\r\n--b--\r\n".to_owned();
    let parts = format!("/v1/uploads/{}/parts", created.json()["id"].as_str().expect("an id"));
    assert_refused(&Answer::to(flooded.form(&parts, part)).await, 400, "max_stored_bytes");
    let batch = flooded.anthropic_batch(1).await;
    assert_refused(&batch, 400, "max_stored_bytes");
    assert_eq!(batch.json()["error"]["type"], "invalid_request_error");
    assert_eq!(flooded.listed("/v1/files").await, 2, "a refusal stores nothing");

    let path = format!("{}/v1/files/{}", flooded.deployment.world.url, first["id"].as_str().expect("an id"));
    assert_eq!(Answer::to(flooded.deployment.http.delete(path).bearer_auth(key("t"))).await.status, 200);
    flooded.deployment.world.advance(10_000);
    assert_eq!(flooded.upload("3").await.status, 200);
    assert_refused(&flooded.upload("4").await, 400, "max_stored_bytes");
    assert_refused(&flooded.upload(&"5".repeat(400_001)).await, 413, "max_stored_bytes");
}

#[tokio::test]
async fn bodies_of_jobs_count_as_stored_bytes() {
    let flooded = Flooded::start("max_stored_bytes = 1_000_000").await;
    let text = format!("[[output_tokens=5]]{}", " word".repeat(80_000));
    let large = json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": text }] });
    for status in [202, 202, 429] {
        let answer = flooded.respond_async(CHAT, &large).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 429 {
            assert!(answer.text().contains("max_stored_bytes"), "{}", answer.text());
            assert_eq!(answer.header("x-spillway-limit"), "", "the call itself found no room: its tenant has jobs");
        }
    }
    let background = json!({ "model": "m", "background": true, "input": text });
    assert_refused(&flooded.deployment.ask("/v1/responses", "t", &background).await, 400, "max_stored_bytes");
    assert_eq!(flooded.respond_async(CHAT, &chat(5, 5)).await.status, 202, "a small body needs no room there");
    assert_eq!(flooded.listed("/v1/jobs").await, 3);
}

#[tokio::test]
async fn requests_that_call_no_model_are_limited_in_each_dialect() {
    let flooded = Flooded::start("other_requests_per_minute = 7").await;
    let deployment = &flooded.deployment;
    let count = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
    let converse =
        json!({ "input": { "converse": { "messages": [{ "role": "user", "content": [{ "text": "hi" }] }] } } });
    let ask_each = async || {
        let get = async |path: &str| Answer::to(deployment.get(path, "t")).await;
        [
            get("/v1/jobs").await,
            get("/v1/quota").await,
            get("/v1/files").await,
            get("/v1/messages/batches").await,
            get("/inference-profiles").await,
            deployment.ask("/v1/messages/count_tokens", "t", &count).await,
            deployment.ask("/model/m/count-tokens", "t", &converse).await,
        ]
    };
    for answer in ask_each().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let before = flooded.dynamodb_requests().await;
    let mut wait = 0;
    for _ in 0..20 {
        for answer in ask_each().await {
            assert_refused(&answer, 429, "other_requests_per_minute");
            wait = wait_ms(&answer);
            assert!(wait <= 60_000);
        }
    }
    let refused = ask_each().await;
    assert_eq!(refused[0].json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(refused[3].json()["error"]["type"], "rate_limit_error");
    assert_eq!(refused[4].header("x-amzn-errortype"), "ThrottlingException");
    assert_eq!(refused[5].json()["error"]["type"], "rate_limit_error");
    assert_eq!(refused[6].header("x-amzn-errortype"), "ThrottlingException");
    let requests = flooded.dynamodb_requests().await - before;
    assert!(requests < 30, "{requests} requests to DynamoDB for 140 refusals");

    assert_eq!(deployment.ask(CHAT, "t", &chat(5, 5)).await.header("x-spillway-limit"), "in_flight");
    assert_eq!(Answer::to(deployment.get("/v1/jobs", "u")).await.status, 200, "another tenant");
    deployment.world.advance(wait);
    assert_eq!(Answer::to(deployment.get("/v1/jobs", "t")).await.status, 200);
    let logged = deployment.world.app.refusals.for_tenant("t").await.expect("the ledger");
    assert!(logged.iter().any(|refusal| refusal.limit.as_str() == "other_requests_per_minute"), "{logged:?}");
}

#[tokio::test]
async fn sixteen_workers_that_poll_each_second_stay_below_the_default_and_share_writes() {
    let flooded = Flooded::start("").await;
    let before = flooded.deployment.dynamodb_operations().await["UpdateItem"].as_u64().unwrap_or_default();
    for _second in 0..30 {
        for _worker in 0..16 {
            assert_eq!(flooded.deployment.job("t", "0193b0a0-0000-7000-8000-000000000000").await.status, 404);
        }
        flooded.deployment.world.advance(1_000);
    }
    let writes = flooded.deployment.dynamodb_operations().await["UpdateItem"].as_u64().unwrap_or_default() - before;
    assert!(writes <= 480 / 20 + 10, "{writes} writes for 480 polls");
}

#[tokio::test]
async fn several_processes_share_the_limits_of_a_tenant() {
    let flooded = Flooded::start("max_waiting_jobs = 6\nother_requests_per_minute = 6").await;
    let deployment = &flooded.deployment;
    let queue = deployment.world.app.queue.as_ref().expect("a queue").url().to_owned();
    let config = Config { queue_url: Some(queue), ..Config::from_lookup(|_| None).expect("defaults") };
    let mut accepted = 0;
    let mut listed = 0;
    for _process in 0..4 {
        let app = deployment.app_with(&config).await;
        for _ in 0..3 {
            let request = deployment.post(CHAT, "t", &chat(5, 5)).header("prefer", "respond-async");
            accepted += u64::from(ask(&app, request).await.expect("no panic").status == 202);
            let list = deployment.get("/v1/jobs", "t").body("");
            listed += u64::from(ask(&app, list).await.expect("no panic").status == 200);
        }
    }
    assert_eq!((accepted, listed), (6, 6));
}

#[tokio::test]
async fn replays_of_an_answer_count_as_requests_that_call_no_model() {
    let settings = two_tenants("").replacen("name = \"t\"\n", "name = \"t\"\nother_requests_per_minute = 3\n", 1);
    let deployment = Deployment::start(&settings).await;
    deployment.advance_to_noon();
    let other = deployment.app_with(&Config::from_lookup(|_| None).expect("defaults")).await;
    let call = || deployment.post(CHAT, "t", &chat(5, 5)).header("idempotency-key", "k");
    let first = Answer::to(call()).await;
    assert_eq!((first.status, first.header("x-spillway-replayed")), (200, ""));
    for is_other_process in [false, true, false] {
        let answer =
            if is_other_process { ask(&other, call()).await.expect("no panic") } else { Answer::to(call()).await };
        assert_eq!((answer.status, answer.header("x-spillway-replayed")), (200, "true"), "{}", answer.text());
    }
    let refusals = [Answer::to(call()).await, ask(&other, call()).await.expect("no panic")];
    for answer in &refusals {
        assert_refused(answer, 429, "other_requests_per_minute");
    }
    assert_eq!(Answer::to(deployment.post(CHAT, "t", &chat(5, 5))).await.status, 200, "a call without a key");
    deployment.world.advance(wait_ms(&refusals[0]));
    assert_eq!(Answer::to(call()).await.header("x-spillway-replayed"), "true", "the answer is still there");
}

#[tokio::test]
async fn made_up_keys_cost_few_reads_and_delay_no_known_key() {
    let deployment = Deployment::with_tenants("").await;
    assert_eq!(Answer::to(deployment.get("/v1/models", "t")).await.status, 200);
    let reads = async || deployment.dynamodb_operations().await["GetItem"].as_u64().unwrap_or_default();
    let (before, started) = (reads().await, Instant::now());
    let mut refused = 0;
    for number in 0..500 {
        let answer = Answer::to(deployment.get("/v1/models", &format!("made-up-{number}"))).await;
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
        if answer.status == 429 {
            refused += 1;
            assert!(wait_ms(&answer) <= 1_000);
        }
        if number % 50 == 0 {
            assert_eq!(Answer::to(deployment.get("/v1/models", "t")).await.status, 200);
        }
    }
    let allowed = 100 + 20 * (started.elapsed().as_secs() + 1);
    let reads = reads().await - before;
    assert!(reads <= allowed + 50, "{reads} reads, {allowed} are allowed for unknown keys");
    assert!(refused >= 500_u64.saturating_sub(allowed), "{refused} refused");
    deployment.world.advance(1_000);
    assert_eq!(Answer::to(deployment.get("/v1/models", "u")).await.status, 200, "a key that was not known yet");
}

#[tokio::test]
async fn a_tenant_that_floods_is_refused_and_another_one_is_served() {
    let flooded =
        Flooded::start("max_waiting_jobs = 60\nmax_stored_bytes = 1_000_000\nother_requests_per_minute = 60").await;
    let deployment = &flooded.deployment;
    let count = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
    let before = deployment.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default();
    for _ in 0..2 {
        flooded.anthropic_batch(25).await;
    }
    for number in 0..100 {
        flooded.respond_async(CHAT, &chat(5, 5)).await;
        deployment.ask("/v1/messages/count_tokens", "t", &count).await;
        if number % 10 == 0 {
            flooded.upload(&"x".repeat(200_000)).await;
        }
    }
    assert_refused(&flooded.respond_async(CHAT, &chat(5, 5)).await, 429, "max_waiting_jobs");
    let response = json!({ "model": "m", "background": true, "max_output_tokens": 5, "input": "[[output_tokens=5]]" });
    let background = deployment.ask("/v1/responses", "u", &response).await;
    assert_eq!(background.status, 200, "{}", background.text());
    assert_eq!(deployment.ask(CHAT, "u", &chat(5, 5)).await.status, 200);
    let id = background.json()["id"].as_str().expect("an id").to_owned();
    let job = id.trim_start_matches("resp_");
    let job = format!("{}-{}-{}-{}-{}", &job[..8], &job[8..12], &job[12..16], &job[16..20], &job[20..]);
    assert_eq!(deployment.final_status(&job).await, "succeeded");
    let waiting = deployment.world.app.jobs.count_waiting("t").await.expect("the store");
    assert!(waiting <= 60, "{waiting} jobs wait");
    // Each job takes two rows. Batches, files and rewritten parked jobs take the rest.
    let puts = deployment.dynamodb_operations().await["PutItem"].as_u64().unwrap_or_default() - before;
    assert!(puts <= 260, "{puts} rows for 60 jobs");
}
