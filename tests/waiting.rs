//! Tenants with `overflow = "wait"`: a job answers a synchronous call without room while
//! keep-alives hold its connection open.

mod streams;

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, three_chats, used, within},
    chat,
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, ONE_REQUEST},
    time::eventually,
};

const CHAT: &str = "/v1/chat/completions";

/// One request in flight; further requests wait.
const WAITS: &str = "overflow = \"wait\"\nlimits = { in_flight = 1, requests_per_minute = 100 }";

impl Deployment {
    /// Awaits `future` while the clocks run forty times as fast as real time.
    async fn very_quickly<F: Future>(&self, future: F) -> F::Output {
        let advance = async {
            loop {
                tokio::time::sleep(Duration::from_millis(25)).await;
                self.world.advance(1_000);
            }
        };
        tokio::select! {
            output = within(future) => output,
            () = advance => unreachable!("the clocks run forever"),
        }
    }

    /// Returns the jobs of `tenant`, newest first.
    async fn jobs_of(&self, tenant: &str) -> Vec<Value> {
        let answer = Answer::to(self.get("/v1/jobs", tenant)).await;
        answer.json()["data"].as_array().expect("jobs").clone()
    }

    /// Waits for the first job of `tenant` and returns it.
    async fn first_job_of(&self, tenant: &str) -> Value {
        let mut jobs = Vec::new();
        eventually("the request becomes a job", async || {
            jobs = self.jobs_of(tenant).await;
            !jobs.is_empty()
        })
        .await;
        jobs.remove(0)
    }
}

/// Returns all chat routes, each with a body and whether it streams.
fn all_chats(output_tokens: u64) -> Vec<(String, Value, bool)> {
    let prompt = format!("[[output_tokens={output_tokens}]]");
    let response = json!({ "model": "m", "input": prompt, "max_output_tokens": 60 });
    let mut chats = Vec::new();
    for (path, body) in three_chats(output_tokens, Some(60)).into_iter().chain([("/v1/responses", response)]) {
        chats.push((path.to_owned(), body.clone(), false));
        let mut streamed = body;
        if path.ends_with("/converse") {
            chats.push((format!("{path}-stream"), streamed, true));
        } else {
            streamed["stream"] = json!(true);
            chats.push((path.to_owned(), streamed, true));
        }
    }
    chats
}

/// Returns the text of an answer without ids and times, which differ between any two calls.
fn comparable_text(answer: &Answer) -> String {
    let text = answer.text();
    let id = answer.header("x-request-id");
    assert!(!id.is_empty() && (text.contains(id) || text.contains("stopReason")), "{text}");
    let text = text.replace(id, "ID");
    ["\"created\":", "\"created_at\":", "\"latencyMs\":"].iter().fold(text, |text, name| without_number(&text, name))
}

/// Returns `text` without the numbers that follow `name`.
fn without_number(text: &str, name: &str) -> String {
    let mut parts = text.split(name);
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.fold(first, |text, part| text + name + part)
}

#[tokio::test]
async fn an_answer_after_a_wait_equals_the_direct_answer() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, body, is_stream) in all_chats(12) {
        let direct = deployment.ask(&path, "t", &body).await;
        assert_eq!(direct.status, 200, "{path}: {}", direct.text());
        let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
        let waited = deployment.very_quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!(waited.status, 200, "{path}: {}", waited.text());
        for header in ["content-type", "x-spillway-max-tokens", "x-spillway-ignored", "retry-after", "location"] {
            assert_eq!(waited.header(header), direct.header(header), "{path} {header}");
        }
        assert!(!waited.header("ratelimit").is_empty(), "{path}");
        if !is_stream {
            assert_eq!(waited.header("x-spillway-pool"), "on-demand", "{path}");
        }
        if !path.ends_with("converse-stream") {
            let waited = comparable_text(&waited).replace(": keep-alive\n\n", "");
            let waited = waited.replace("event: ping\ndata: {\"type\": \"ping\"}\n\n", "");
            assert_eq!(waited, comparable_text(&direct), "{path}");
        }
        deployment.world.advance(60_000);
    }
    let jobs = deployment.jobs_of("t").await;
    assert!(jobs.len() == 8 && jobs.iter().all(|job| job["status"] == "succeeded" && job["priority"] == "high"));
    assert_eq!(deployment.simulator().await["total"]["requests"], 16, "each call was made once");
    let quota = deployment.quota("t").await;
    assert_eq!((&quota["settled"]["requests"], &quota["settled"]["output_tokens"]), (&json!(16), &json!(16 * 12)));
    assert_eq!(used(&quota, "in_flight"), 0);
    assert_eq!((deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn a_caller_that_opts_in_gets_a_job() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    assert_eq!(deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await.status, 202);
}

#[tokio::test]
async fn a_caller_that_finds_no_room_in_time_is_refused_and_its_job_is_cancelled() {
    let deployment = Deployment::with_tenants(WAITS).await;
    deployment.set_model_faults(&[json!({ "throttle": true })]).await;
    let before = deployment.world.app.clock.now();
    let answer = deployment.very_quickly(Answer::to(deployment.post(CHAT, "t", &chat(5, 5)))).await;
    let waited_ms = (deployment.world.app.clock.now() - before).as_ms();
    assert!((50_000..65_000).contains(&waited_ms), "{waited_ms}");
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait_s| wait_s > 0));
    let job = deployment.jobs_of("t").await.remove(0);
    assert!(job["status"] == "cancelled" || job["status"] == "expired", "{job}");
    let deletion = eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0);
    deployment.very_quickly(deletion).await;
    let quota = deployment.quota("t").await;
    assert_eq!((&quota["settled"]["requests"], used(&quota, "in_flight")), (&json!(0), 0), "nothing is charged");
}

#[tokio::test]
async fn a_wait_longer_than_the_callers_timeout_is_refused_immediately() {
    let deployment = Deployment::with_tenants("overflow = \"wait\"\nlimits = { requests_per_minute = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    assert_eq!(deployment.ask(CHAT, "t", &chat(5, 5)).await.status, 429, "there is room in a minute");
    assert_eq!(deployment.jobs_of("t").await, [] as [Value; 0]);
    // The clients of OpenAI and Anthropic send their timeout of ten minutes.
    let patient = |request: RequestBuilder| request.header("x-stainless-read-timeout", "600");
    let answer = deployment.very_quickly(Answer::to(patient(deployment.post(CHAT, "t", &chat(5, 5))))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(deployment.jobs_of("t").await.len(), 1);
    let brief = patient(deployment.post(CHAT, "t", &chat(5, 5))).header("prefer", "wait=5");
    assert_eq!(Answer::to(brief).await.status, 429, "the caller asks for a shorter wait");
}

#[tokio::test]
async fn an_error_after_a_wait_equals_the_direct_error() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, mut body) in three_chats(5, Some(5)) {
        let path = path.replace("/m/", "/refuses/");
        if body.get("model").is_some() {
            body["model"] = json!("refuses");
        }
        let direct = deployment.ask(&path, "t", &body).await;
        let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
        let waited = deployment.quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!((waited.status, direct.status), (400, 400), "{path}");
        assert_eq!(waited.header("x-amzn-errortype"), direct.header("x-amzn-errortype"));
        let text = |answer: &Answer| answer.text().replace(answer.header("x-request-id"), "ID");
        assert_eq!(text(&waited), text(&direct));
        deployment.world.advance(60_000);
    }
    assert_eq!(
        (deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await),
        (0, 0),
        "no messages are left"
    );
}

#[tokio::test]
async fn a_failing_model_is_not_called_again_for_a_waiting_caller() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    deployment.set_model_faults(&[json!({ "error": "ModelErrorException", "times": 9 })]).await;
    let answer = deployment.quickly(Answer::to(deployment.post(CHAT, "t", &chat(5, 5)))).await;
    assert_eq!((answer.status, answer.header("x-should-retry")), (502, "false"), "{}", answer.text());
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_queued_job_is_cancelled_when_its_caller_disconnects() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    let caller = tokio::spawn(deployment.post(CHAT, "t", &chat(5, 5)).send());
    let job = deployment.first_job_of("t").await;
    caller.abort();
    let is_cancelled =
        async || deployment.job("t", job["id"].as_str().expect("an id")).await.json()["status"] == "cancelled";
    eventually("its job is cancelled", is_cancelled).await;
    deployment.world.advance(61_000);
    eventually("its message is deleted", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test]
async fn a_caller_that_disconnects_and_retries_gets_its_answer() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    let attempt = |number: u32| {
        let request = deployment.post(CHAT, "t", &chat(5, 5)).header("amz-sdk-invocation-id", "one-call");
        request.header("amz-sdk-request", format!("attempt={number}; max=3"))
    };
    let caller = tokio::spawn(attempt(1).send());
    let job = deployment.first_job_of("t").await;
    caller.abort();
    let answer = deployment.quickly(Answer::to(attempt(2))).await;
    assert_eq!((answer.status, answer.header("x-spillway-replayed")), (200, "true"), "{}", answer.text());
    assert_eq!(answer.header("x-request-id"), job["id"].as_str().expect("an id"));
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
    assert_eq!(deployment.jobs_of("t").await.len(), 1);
}
