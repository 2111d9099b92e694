//! A store that accepts requests and does not answer costs a caller at most three seconds, and
//! nothing where the store is not needed.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use spillway::store::ledger::HeldReservation;
use spillway_stand_ins::faults::{Effect, Fault, Faults};

use crate::support::{Deployment, answer::Answer, chat, jobs::ONE_REQUEST, key};

/// Time after which a caller must have its answer. The machine of a test is slower than the broker.
const MAX_TIME: Duration = Duration::from_millis(4_000);

/// Time after which a caller has an answer that needs no store, or for which a stale row is right.
const SOON: Duration = Duration::from_millis(1_500);

const CHAT: &str = "/v1/chat/completions";

const ALL_OF_DYNAMODB: [&str; 7] =
    ["GetItem", "Query", "BatchGetItem", "PutItem", "UpdateItem", "TransactWriteItems", "DeleteItem"];

const SETTINGS: &str = r#"
    [[tenants]]
    name = "t"
    limits = { requests_per_minute = 100000 }
    [[tenants]]
    name = "full"
    limits = { in_flight = 1 }
    [[tenants]]
    name = "first"
    limits = { in_flight = 1 }
    [[models]]
    name = "m"
    timeout_ms = 30000
    [[models.ladder]]
    name = "on-demand"
    kind = "on_demand"
    model_id = "sim.model"
"#;

/// A form of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    OpenAi,
    Anthropic,
    Bedrock,
}

/// A request, by a name that says what it is for.
struct Ask {
    name: &'static str,
    vendor: Vendor,
    request: RequestBuilder,
}

/// A deployment with a job, a file and a batch of the tenant `full`. Requests of the tenants `full`
/// and `first` find no room; `first` has no jobs. Requests of the tenant `t` find room.
struct Setup {
    deployment: Deployment,
    job: String,
    file: String,
    batch: String,
    _running: [HeldReservation; 2],
}

impl Setup {
    async fn start() -> Self {
        let keys = ["t", "full", "first"].map(|tenant| format!("{tenant} = \"{}\"\n", key(tenant))).concat();
        let deployment = Deployment::start(&format!("[keys]\n{keys}{SETTINGS}")).await;
        deployment.advance_to_noon();
        let running = ["full", "first"].map(|tenant| deployment.occupy(tenant, ONE_REQUEST, 3_600_000));
        let running = join_all(running).await.try_into().expect("two");
        let file = id(&Answer::to(upload(&deployment, 10)).await);
        let job = id(&Answer::to(deployment.post(CHAT, "full", &chat(5, 5)).header("prefer", "respond-async")).await);
        let batch = json!({ "input_file_id": file, "endpoint": CHAT, "completion_window": "24h" });
        let batch = id(&deployment.ask("/v1/batches", "full", &batch).await);
        let setup = Self { deployment, job, file, batch, _running: running };
        // The rows of the registry are in the cache after this.
        assert_eq!(setup.deployment.ask(CHAT, "t", &chat(5, 5)).await.status, 200);
        assert_eq!(Answer::to(setup.deployment.get("/v1/quota", "first")).await.status, 200);
        setup
    }

    /// Returns a request for each kind of route.
    fn requests(&self) -> Vec<Ask> {
        use Vendor::{Anthropic, Bedrock, OpenAi};
        let Self { deployment, job, file, batch, .. } = self;
        let messages = json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": "hello" }] });
        let converse = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] });
        let count = json!({ "input": { "converse": converse } });
        let stream = json!({ "model": "m", "stream": true, "messages": messages["messages"] });
        let response = json!({ "model": "m", "input": "hello" });
        let background = json!({ "model": "m", "input": "hello", "background": true });
        let lines = json!({ "requests": [{ "custom_id": "a", "params": messages }] });
        let new_batch = json!({ "input_file_id": file, "endpoint": CHAT, "completion_window": "24h" });
        let large = json!({ "model": "m", "messages": [{ "role": "user", "content": "word ".repeat(200_000) }] });
        let get = |path: &str| deployment.get(path, "full");
        let post = |path: &str, body: &Value| deployment.post(path, "t", body);
        let wait = |tenant: &str, body: &Value| deployment.post(CHAT, tenant, body).header("prefer", "respond-async");
        let asks = [
            ("chat", OpenAi, post(CHAT, &chat(5, 5))),
            ("stream", OpenAi, post(CHAT, &stream)),
            ("retried chat", OpenAi, post(CHAT, &chat(5, 6)).header("idempotency-key", "one")),
            ("messages", Anthropic, post("/v1/messages", &messages)),
            ("converse", Bedrock, post("/model/m/converse", &converse)),
            ("converse-stream", Bedrock, post("/model/m/converse-stream", &converse)),
            ("response", OpenAi, post("/v1/responses", &response)),
            ("background", OpenAi, post("/v1/responses", &background)),
            ("first job", OpenAi, wait("first", &chat(5, 5))),
            ("small job", OpenAi, wait("full", &chat(5, 5))),
            ("large job", OpenAi, wait("full", &large)),
            ("count", Anthropic, post("/v1/messages/count_tokens", &messages)),
            ("bedrock count", Bedrock, post("/model/m/count-tokens", &count)),
            ("quota", OpenAi, get("/v1/quota")),
            ("models", OpenAi, get("/v1/models")),
            ("profiles", Bedrock, get("/inference-profiles")),
            ("jobs", OpenAi, get("/v1/jobs")),
            ("job", OpenAi, get(&format!("/v1/jobs/{job}"))),
            ("upload", OpenAi, upload(deployment, 2_000_000)),
            ("files", OpenAi, get("/v1/files")),
            ("file", OpenAi, get(&format!("/v1/files/{file}"))),
            ("content", OpenAi, get(&format!("/v1/files/{file}/content"))),
            ("batches", OpenAi, get("/v1/batches")),
            ("batch", OpenAi, get(&format!("/v1/batches/{batch}"))),
            ("new batch", OpenAi, deployment.post("/v1/batches", "full", &new_batch)),
            ("message batch", Anthropic, post("/v1/messages/batches", &lines)),
        ];
        asks.map(|(name, vendor, request)| Ask { name, vendor, request }).into()
    }

    /// Makes the operations of a store silent, and sends all requests at the same time. Returns the
    /// status and the time of each answer.
    async fn silence(&self, faults: &Faults, operations: &[&str]) -> Vec<(&'static str, u16, Duration)> {
        self.strike(faults, operations, Effect::TimeoutAfter).await
    }

    async fn strike(&self, faults: &Faults, operations: &[&str], effect: Effect) -> Vec<(&'static str, u16, Duration)> {
        for operation in operations {
            faults.inject(Fault::on(operation, effect));
        }
        let timed = async |ask: Ask| {
            let started = Instant::now();
            let answer = Answer::to(ask.request).await;
            assert_answered_or_unavailable(ask.name, ask.vendor, &answer);
            (ask.name, answer.status, started.elapsed())
        };
        let answers = join_all(self.requests().into_iter().map(timed)).await;
        faults.clear();
        for (name, status, time) in &answers {
            println!("{effect:?} {operations:?} {name}: {status} after {time:?}");
        }
        answers
    }
}

fn id(answer: &Answer) -> String {
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Builds an upload of a file for batches.
fn upload(deployment: &Deployment, bytes: usize) -> RequestBuilder {
    let line = json!({ "custom_id": "a", "method": "POST", "url": CHAT, "body": chat(5, 5) }).to_string();
    let content = line + &"\n".repeat(bytes);
    let form = format!(
        "--b\r\ncontent-disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b\r\ncontent-disposition: form-data; \
         name=file; filename=\"batch.jsonl\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    let request = Client::new().request(Method::POST, format!("{}/v1/files", deployment.world.url));
    request.bearer_auth(key("full")).header("content-type", "multipart/form-data; boundary=b").body(form)
}

/// Checks that a request was answered, or refused in the form of its vendor, with the time of the
/// next try.
fn assert_answered_or_unavailable(name: &str, vendor: Vendor, answer: &Answer) {
    if matches!(answer.status, 200 | 202) {
        return;
    }
    assert_eq!(answer.status, 503, "{name}: {}", answer.text());
    assert_ne!(answer.header("retry-after"), "", "{name}");
    let error = answer.json();
    match vendor {
        Vendor::OpenAi => assert!(error["error"]["message"].is_string(), "{name}: {error}"),
        Vendor::Anthropic => assert_eq!(error["type"], "error", "{name}: {error}"),
        Vendor::Bedrock => assert_eq!(answer.header("x-amzn-errortype"), "ServiceUnavailableException", "{name}"),
    }
}

/// Checks the time of all answers, and the status of the named answers.
fn check(answers: &[(&'static str, u16, Duration)], expected: &[(&str, u16)]) {
    let late: Vec<_> = answers.iter().filter(|(.., time)| *time > MAX_TIME).collect();
    assert!(late.is_empty(), "{late:?}");
    for (name, status) in expected {
        let found = answers.iter().find(|(found, ..)| found == name).expect("a request of this name");
        assert_eq!(found.1, *status, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_read_of_dynamodb_costs_at_most_three_seconds_and_a_cached_row_is_used() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.dynamodb_faults();
    let answers = setup.silence(faults, &["GetItem", "Query", "BatchGetItem", "TransactGetItems"]).await;
    check(&answers, &[("chat", 200), ("messages", 200), ("converse", 200), ("count", 200), ("job", 503)]);
    // The rows are stale now, and the store is not known to be silent.
    setup.deployment.world.advance(30_000);
    let answers = setup.silence(faults, &["GetItem", "Query", "BatchGetItem", "TransactGetItems"]).await;
    check(&answers, &[("chat", 200), ("messages", 200), ("converse", 200), ("count", 200), ("job", 503)]);
    for name in ["chat", "messages", "converse", "stream", "count"] {
        let found = answers.iter().find(|(found, ..)| *found == name).expect("a request of this name");
        assert!(found.2 < SOON, "{found:?}");
    }
    // The rows are too old to be used.
    setup.deployment.world.advance(61_000);
    let answers = setup.silence(faults, &["GetItem", "Query"]).await;
    check(&answers, &[("chat", 503), ("messages", 503), ("converse", 503), ("quota", 503), ("count", 503)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_write_of_dynamodb_costs_at_most_three_seconds() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.dynamodb_faults();
    let answers = setup.silence(faults, &["UpdateItem"]).await;
    check(&answers, &[("chat", 503), ("messages", 503), ("converse", 503), ("quota", 200), ("job", 200)]);
    check(&answers, &[("first job", 503), ("upload", 503)]);
    let answers = setup.silence(faults, &["PutItem", "TransactWriteItems", "BatchWriteItem"]).await;
    check(&answers, &[("chat", 200), ("retried chat", 503), ("small job", 503), ("upload", 503), ("job", 200)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamodb_that_is_silent_altogether_costs_at_most_three_seconds() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.dynamodb_faults();
    check(&setup.silence(faults, &ALL_OF_DYNAMODB).await, &[("chat", 503), ("small job", 503), ("upload", 503)]);
    setup.deployment.world.advance(61_000);
    check(
        &setup.silence(faults, &ALL_OF_DYNAMODB).await,
        &[("chat", 503), ("small job", 503), ("upload", 503), ("count", 503)],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_queue_delays_a_job_for_a_moment_and_refuses_none() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.sqs_faults();
    let answers = setup.silence(faults, &["SendMessage", "SendMessageBatch"]).await;
    check(&answers, &[("first job", 202), ("large job", 202), ("background", 200), ("chat", 200), ("new batch", 200)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bucket_costs_at_most_three_seconds() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.s3_faults();
    let operations = ["PutObject", "GetObject", "HeadObject", "CopyObject", "ListObjectsV2", "DeleteObject"];
    let answers = setup.silence(faults, &operations).await;
    check(&answers, &[("large job", 503), ("upload", 503), ("content", 503), ("small job", 202), ("chat", 200)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dynamodb_that_refuses_everything_costs_less_than_one_that_is_silent() {
    let setup = Setup::start().await;
    let faults = setup.deployment.world.stand_ins.dynamodb_faults();
    for effect in [Effect::Throttle, Effect::Error500, Effect::CutAfter] {
        setup.deployment.world.advance(61_000);
        let answers = setup.strike(faults, &ALL_OF_DYNAMODB, effect).await;
        let late: Vec<_> = answers.iter().filter(|(.., time)| *time > SOON).collect();
        assert!(late.is_empty(), "{effect:?}: {late:?}");
    }
}
