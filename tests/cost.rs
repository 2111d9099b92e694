//! The bill: requests, units and bytes that calls and jobs take on AWS, counted and compared with
//! the table in docs/cost.md.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use spillway::{app::App, config::Config, drain, http::handle, telemetry::Telemetry, units::Millis};
use spillway_command::{
    settings::Settings,
    world::{provision, seed},
};
use spillway_stand_ins::{StandIns, clock::Clock};

use crate::support::{answer::within, jobs::batch_of, key, recorded::Recorded};

/// A tenant and a pool with limits, so that each call is reserved and settled on both. The model
/// answers 270 tokens in five seconds.
const SETTINGS: &str = r#"
    [simulator]
    time_to_first_token_ms = 500
    tokens_per_second = 60
    [[tenants]]
    name = "t"
    limits = { requests_per_minute = 6000, tokens_per_minute = 60000000, in_flight = 100 }
    [[models]]
    name = "m"
    timeout_ms = 60000
    [[models.ladder]]
    name = "on-demand"
    kind = "on_demand"
    model_id = "sim.model"
    limits = { requests_per_minute = 6000, tokens_per_minute = 60000000 }
    prices = { input = 1.0, output = 2.0 }
"#;

/// Name of the row of jobs that run together.
const JOB_RUN: &str = "job, run as one of 20";

/// Number of messages in one invocation of the drain: `BatchSize` in the template.
const BATCH: usize = 20;

/// Visibility timeout of the queue in the template.
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(5_400);

/// The registry stays in memory, so that no row contains the reads of another one by chance.
const REGISTRY_CACHE_TTL: Millis = Millis::from_s(3_600);

/// Step of the documented log bytes. Request ids and times vary by a few bytes.
const LOG_STEP_BYTES: u64 = 100;

/// An AWS account with the parts of one function.
struct Account {
    stand_ins: StandIns,
    stand_in_clock: Clock,
    app: App,
    events: Recorded,
    http: reqwest::Client,
}

/// What was counted, per call or job.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    dynamodb_requests: f64,
    ledger_write_units: f64,
    jobs_write_units: f64,
    read_units: f64,
    sqs_requests: f64,
    model_calls: f64,
    log_bytes: f64,
}

impl Account {
    async fn open() -> Self {
        let mut settings: Settings = toml::from_str(SETTINGS).expect("settings");
        settings.keys = BTreeMap::from([("t".to_owned(), key("t"))]);
        let stand_in_clock = Clock::default();
        let options = spillway_stand_ins::Options {
            clock: stand_in_clock.clone(),
            simulator: settings.simulator.clone(),
            ..spillway_stand_ins::Options::default()
        };
        let stand_ins = StandIns::start(options).await.expect("the stand-ins");
        let (local, clients, _) = provision(&stand_ins).await.expect("tables and queues");
        let config = Config { registry_cache_ttl: REGISTRY_CACHE_TTL, ..local };
        let events = Recorded::default();
        let mut app = App::new(&config, clients, Telemetry::new("Spillway/test", events.clone()));
        app.queue = app.queue.map(|queue| queue.with_visibility_timeout(VISIBILITY_TIMEOUT));
        seed(&app, &settings).await.expect("the registry");
        Self { stand_ins, stand_in_clock, app, events, http: reqwest::Client::new() }
    }

    /// Sends a request with the headers of an OpenAI SDK, and returns the answer's body.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", key("t")))
            .header("x-stainless-retry-count", "0")
            .header("x-stainless-read-timeout", "600")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let answered = async {
            let response = Box::pin(handle(&self.app, request)).await;
            let status = response.status();
            let body = response.into_body().collect().await.expect("no errors").to_bytes();
            assert!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body));
            serde_json::from_slice(&body).unwrap_or_default()
        };
        self.quickly(answered).await
    }

    /// Awaits `future` while the clocks run four times as fast as real time.
    async fn quickly<F: Future>(&self, future: F) -> F::Output {
        let advance = async {
            loop {
                tokio::time::sleep(Duration::from_millis(25)).await;
                self.stand_in_clock.advance(75);
                self.app.clock.advance(Millis::from_ms(75));
            }
        };
        tokio::select! {
            output = within(Box::pin(future)) => output,
            () = advance => unreachable!("the clocks run forever"),
        }
    }

    /// Returns what `work` takes, divided by `number`.
    async fn count<T>(&self, number: usize, work: impl Future<Output = T>) -> (Counted, T) {
        let before = self.total().await;
        let output = work.await;
        (self.total().await.since(before).per(number as f64), output)
    }

    async fn total(&self) -> Counted {
        let dynamodb = self.stand_ins.dynamodb_faults().stats();
        let units = |table: &str| dynamodb.units.get(table).copied().unwrap_or_default();
        let stats = async |url: String| -> Value {
            let response = self.http.get(format!("{url}/_sim/stats")).send().await.expect("an answer");
            response.json().await.expect("JSON")
        };
        let sqs = stats(self.stand_ins.sqs_url()).await;
        let sqs_requests = sqs["operations"].as_object().expect("operations").values().filter_map(Value::as_f64).sum();
        let model_calls = stats(self.stand_ins.bedrock_url()).await["total"]["requests"].as_f64().expect("a number");
        Counted {
            dynamodb_requests: dynamodb.operations.values().sum::<u64>() as f64,
            ledger_write_units: units("spillway-ledger").write,
            jobs_write_units: units("spillway-jobs").write,
            read_units: dynamodb.units.values().map(|units| units.read).sum(),
            sqs_requests,
            model_calls,
            log_bytes: self.events.lines().len() as f64,
        }
    }
}

impl Counted {
    fn since(self, before: Self) -> Self {
        self.combine(before, |now, before| now - before)
    }

    fn per(self, number: f64) -> Self {
        self.combine(Self::default(), |count, _| count / number)
    }

    fn combine(self, other: Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            dynamodb_requests: combine(self.dynamodb_requests, other.dynamodb_requests),
            ledger_write_units: combine(self.ledger_write_units, other.ledger_write_units),
            jobs_write_units: combine(self.jobs_write_units, other.jobs_write_units),
            read_units: combine(self.read_units, other.read_units),
            sqs_requests: combine(self.sqs_requests, other.sqs_requests),
            model_calls: combine(self.model_calls, other.model_calls),
            log_bytes: combine(self.log_bytes, other.log_bytes),
        }
    }

    /// The cells of a row of the table.
    fn cells(self) -> [f64; 7] {
        [
            self.dynamodb_requests,
            self.ledger_write_units,
            self.jobs_write_units,
            self.read_units,
            self.sqs_requests,
            self.model_calls,
            (self.log_bytes as u64).next_multiple_of(LOG_STEP_BYTES) as f64,
        ]
    }
}

/// Counts what calls take, as rows of the table.
async fn calls(account: &Account) -> Vec<(&'static str, Counted)> {
    let body = |output_tokens: u64, stream: bool| {
        let content = format!("[[output_tokens={output_tokens}]] Hello");
        json!({ "model": "m", "max_tokens": 400, "stream": stream, "messages": [{ "role": "user", "content": content }] })
    };
    let mut rows = Vec::new();
    // Fills the registry's cache.
    account.ask("POST", "/v1/chat/completions", &body(10, false)).await;
    for (name, body) in [
        ("whole answer, 1 s", body(30, false)),
        ("whole answer, 5 s", body(270, false)),
        ("streamed answer, 5 s", body(270, true)),
    ] {
        rows.push((name, account.count(1, account.ask("POST", "/v1/chat/completions", &body)).await.0));
    }
    rows
}

/// Counts what a job takes, as rows of the table.
async fn jobs(account: &Account) -> Vec<(&'static str, Counted)> {
    let body =
        json!({ "model": "m", "background": true, "max_output_tokens": 400, "input": "[[output_tokens=30]] Hello" });
    let accept = async {
        let mut ids = Vec::new();
        for _ in 0..BATCH {
            ids.push(account.ask("POST", "/v1/responses", &body).await["id"].as_str().expect("an id").to_owned());
        }
        ids
    };
    let (accepted, ids) = account.count(BATCH, accept).await;
    let event = batch_of(&ids.iter().map(|id| id.trim_start_matches("resp_")).collect::<Vec<_>>());
    let run = account.quickly(Box::pin(drain::handle(&account.app, event, None)));
    let (run, response) = account.count(BATCH, run).await;
    assert!(response.expect("no error").batch_item_failures.is_empty());
    let path = format!("/v1/responses/{}", ids[0]);
    let (read, response) = account.count(1, account.ask("GET", &path, &Value::Null)).await;
    assert_eq!(response["status"], "completed");
    vec![("job, accepted", accepted), (JOB_RUN, run), ("job, result read", read)]
}

/// Returns the cells of the row `name` of a table.
fn documented(page: &str, name: &str) -> Vec<f64> {
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {name} | "))).unwrap_or_default();
    row.trim_end_matches(" |").split(" | ").filter_map(|cell| cell.parse().ok()).collect()
}

/// Whether the page states what was counted, in tenths. Jobs that run together share writes of the
/// ledger by chance, so the page states the most that they can take.
fn is_true(stated: &[f64], counted: Counted, shares_writes: bool) -> bool {
    let most = stated.get(1).copied().unwrap_or_default();
    let shared = if shares_writes { (most - counted.ledger_write_units).max(0.0) } else { 0.0 };
    let counted = Counted {
        dynamodb_requests: counted.dynamodb_requests + shared,
        ledger_write_units: counted.ledger_write_units + shared,
        ..counted
    };
    let cells = counted.cells();
    stated.len() == cells.len() && stated.iter().zip(cells).all(|(stated, counted)| (stated - counted).abs() < 0.06)
}

#[tokio::test]
async fn calls_and_jobs_take_what_the_cost_page_says() {
    let account = Account::open().await;
    let page = include_str!("../docs/cost.md");
    let mut rows = calls(&account).await;
    rows.extend(jobs(&account).await);
    for (name, counted) in rows {
        let stated = documented(page, name);
        assert!(
            is_true(&stated, counted, name == JOB_RUN),
            "{name}: counted {counted:.2?}, docs/cost.md has {stated:?}"
        );
    }
}

#[test]
fn a_count_that_grew_and_a_figure_that_is_out_of_date_are_found() {
    let counted = Counted {
        dynamodb_requests: 4.0,
        ledger_write_units: 4.0,
        model_calls: 1.0,
        log_bytes: 1_050.0,
        ..Counted::default()
    };
    let stated = documented("| Row | a |\n| call | 4.0 | 4.0 | 0.0 | 0.0 | 0.0 | 1.0 | 1100 |\n", "call");
    assert!(is_true(&stated, counted, false) && is_true(&stated, counted, true));
    for wrong in [
        Counted { dynamodb_requests: 4.1, ..counted },
        Counted { dynamodb_requests: 3.0, ..counted },
        Counted { ledger_write_units: 5.0, ..counted },
        Counted { jobs_write_units: 1.0, ..counted },
        Counted { log_bytes: 1_101.0, ..counted },
        Counted { log_bytes: 999.0, ..counted },
    ] {
        assert!(!is_true(&stated, wrong, false) && !is_true(&stated, wrong, true), "{wrong:?}");
    }
    let sharing = Counted { dynamodb_requests: 1.5, ledger_write_units: 1.5, ..counted };
    assert!(is_true(&stated, sharing, true) && !is_true(&stated, sharing, false));
    assert!(!is_true(&documented("", "call"), counted, true));
}
