//! Tenants whose requests wait: a synchronous call without room is answered by a job while its
//! connection is kept alive.

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

/// One request at a time, and the others wait.
const WAITS: &str = "overflow = \"wait\"\nlimits = { in_flight = 1, requests_per_minute = 100 }";

impl Deployment {
    /// What `future` gives, with the clocks moving forty times as fast as real ones.
    async fn soon<F: Future>(&self, future: F) -> F::Output {
        let quick = async {
            loop {
                tokio::time::sleep(Duration::from_millis(25)).await;
                self.world.advance(1_000);
            }
        };
        tokio::select! {
            output = within(future) => output,
            () = quick => unreachable!("time does not end"),
        }
    }

    /// The jobs of `tenant`, the newest first.
    async fn jobs_of(&self, tenant: &str) -> Vec<Value> {
        let answer = Answer::to(self.get("/v1/jobs", tenant)).await;
        answer.json()["data"].as_array().expect("jobs").clone()
    }

    /// The jobs of `tenant` as soon as there are some.
    async fn first_job_of(&self, tenant: &str) -> Value {
        let mut jobs = Vec::new();
        eventually("it waits", async || {
            jobs = self.jobs_of(tenant).await;
            !jobs.is_empty()
        })
        .await;
        jobs.remove(0)
    }
}

/// All chat routes, each with whether it streams.
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

/// What an answer says, without what differs between any two calls: ids and times.
fn words(answer: &Answer) -> String {
    let text = answer.text();
    let id = answer.header("x-request-id");
    assert!(!id.is_empty() && (text.contains(id) || text.contains("stopReason")), "{text}");
    let text = text.replace(id, "ID");
    ["\"created\":", "\"created_at\":", "\"latencyMs\":"].iter().fold(text, |text, name| without_number(&text, name))
}

/// The text without the numbers that follow `name`.
fn without_number(text: &str, name: &str) -> String {
    let mut parts = text.split(name);
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.fold(first, |words, part| words + name + part)
}

#[tokio::test]
async fn an_answer_that_was_waited_for_is_the_synchronous_one() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, body, is_stream) in all_chats(12) {
        let called = deployment.ask(&path, "t", &body).await;
        assert_eq!(called.status, 200, "{path}: {}", called.text());
        let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
        let waited = deployment.soon(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!(waited.status, 200, "{path}: {}", waited.text());
        for header in ["content-type", "x-spillway-max-tokens", "x-spillway-ignored", "retry-after", "location"] {
            assert_eq!(waited.header(header), called.header(header), "{path} {header}");
        }
        assert!(!waited.header("ratelimit").is_empty(), "{path}");
        if !is_stream {
            assert_eq!(waited.header("x-spillway-pool"), "on-demand", "{path}");
        }
        if !path.ends_with("converse-stream") {
            let waited = words(&waited).replace(": keep-alive\n\n", "");
            let waited = waited.replace("event: ping\ndata: {\"type\": \"ping\"}\n\n", "");
            assert_eq!(waited, words(&called), "{path}");
        }
        deployment.world.advance(60_000);
    }
    let jobs = deployment.jobs_of("t").await;
    assert!(jobs.len() == 8 && jobs.iter().all(|job| job["status"] == "succeeded" && job["priority"] == "high"));
    assert_eq!(deployment.simulator().await["total"]["requests"], 16, "each was made once");
    let quota = deployment.quota("t").await;
    assert_eq!((&quota["settled"]["requests"], &quota["settled"]["output_tokens"]), (&json!(16), &json!(16 * 12)));
    assert_eq!(used(&quota, "in_flight"), 0);
    assert_eq!((deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn who_said_that_it_can_wait_still_gets_a_job() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    assert_eq!(deployment.ask_respond_async(CHAT, "t", &chat(5, 5)).await.status, 202);
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_and_its_job_is_cancelled() {
    let deployment = Deployment::with_tenants(WAITS).await;
    deployment.set_model_faults(&[json!({ "throttle": true })]).await;
    let before_ms = deployment.world.app.clock.now_ms();
    let answer = deployment.soon(Answer::to(deployment.post(CHAT, "t", &chat(5, 5)))).await;
    let waited_ms = deployment.world.app.clock.now_ms() - before_ms;
    assert!((50_000..65_000).contains(&waited_ms), "{waited_ms}");
    assert_eq!((answer.status, answer.header("x-spillway-limit")), (429, "model_capacity"), "{}", answer.text());
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|wait_s| wait_s > 0));
    let job = deployment.jobs_of("t").await.remove(0);
    assert!(job["status"] == "cancelled" || job["status"] == "expired", "{job}");
    let gone = eventually("its message is gone", async || deployment.messages_in(JOB_QUEUE).await == 0);
    deployment.soon(gone).await;
    let quota = deployment.quota("t").await;
    assert_eq!((&quota["settled"]["requests"], used(&quota, "in_flight")), (&json!(0), 0), "nothing is charged");
}

#[tokio::test]
async fn a_wait_beyond_the_callers_patience_is_refused_at_once() {
    let deployment = Deployment::with_tenants("overflow = \"wait\"\nlimits = { requests_per_minute = 1 }").await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    assert_eq!(deployment.ask(CHAT, "t", &chat(5, 5)).await.status, 429, "there is room in a minute");
    assert_eq!(deployment.jobs_of("t").await, [] as [Value; 0]);
    // OpenAI's and Anthropic's clients tell that they wait ten minutes.
    let patient = |request: RequestBuilder| request.header("x-stainless-read-timeout", "600");
    let answer = deployment.soon(Answer::to(patient(deployment.post(CHAT, "t", &chat(5, 5))))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(deployment.jobs_of("t").await.len(), 1);
    let brief = patient(deployment.post(CHAT, "t", &chat(5, 5))).header("prefer", "wait=5");
    assert_eq!(Answer::to(brief).await.status, 429, "it asks for less");
}

#[tokio::test]
async fn a_failure_that_was_waited_for_is_the_synchronous_one() {
    let deployment = Deployment::with_tenants(WAITS).await;
    for (path, mut body) in three_chats(5, Some(5)) {
        let path = path.replace("/m/", "/refuses/");
        if body.get("model").is_some() {
            body["model"] = json!("refuses");
        }
        let called = deployment.ask(&path, "t", &body).await;
        let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
        let waited = deployment.quickly(Answer::to(deployment.post(&path, "t", &body))).await;
        assert_eq!((waited.status, called.status), (400, 400), "{path}");
        assert_eq!(waited.header("x-amzn-errortype"), called.header("x-amzn-errortype"));
        let told = |answer: &Answer| answer.text().replace(answer.header("x-request-id"), "ID");
        assert_eq!(told(&waited), told(&called));
        deployment.world.advance(60_000);
    }
    assert_eq!(
        (deployment.messages_in(JOB_QUEUE).await, deployment.messages_in(DEAD_LETTER_QUEUE).await),
        (0, 0),
        "nobody misses them"
    );
}

#[tokio::test]
async fn a_model_that_errs_is_not_asked_again_for_who_waits() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    deployment.set_model_faults(&[json!({ "error": "ModelErrorException", "times": 9 })]).await;
    let answer = deployment.quickly(Answer::to(deployment.post(CHAT, "t", &chat(5, 5)))).await;
    assert_eq!((answer.status, answer.header("x-should-retry")), (502, "false"), "{}", answer.text());
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}

#[tokio::test]
async fn a_job_whose_caller_has_gone_is_cancelled_while_it_waits() {
    let deployment = Deployment::with_tenants(WAITS).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 20_000).await;
    let caller = tokio::spawn(deployment.post(CHAT, "t", &chat(5, 5)).send());
    let job = deployment.first_job_of("t").await;
    caller.abort();
    let is_cancelled =
        async || deployment.job("t", job["id"].as_str().expect("an id")).await.json()["status"] == "cancelled";
    eventually("its job is cancelled", is_cancelled).await;
    deployment.world.advance(61_000);
    eventually("its message is dropped", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 0);
}

#[tokio::test]
async fn a_caller_that_can_come_back_finds_its_answer() {
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
