//! The operator's view of the ledger: the quota of a tenant, and whether the counters match the
//! events.

use clap::Parser;
use spillway_command::admin::{self, Admin};

use crate::support::{
    Deployment,
    answer::{deployment, pool, used},
    chat,
    jobs::ONE_REQUEST,
    recorded::Recorded,
    time::eventually,
};

const PATH: &str = "/v1/chat/completions";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Admin,
}

struct Observed {
    deployment: Deployment,
    events: Recorded,
    folder: tempfile::TempDir,
}

async fn start(tenant: &str, pools: &str) -> Observed {
    let events = Recorded::default();
    let telemetry = spillway::telemetry::Telemetry::to(events.clone());
    let deployment = Deployment::start_with(&deployment(tenant, pools), telemetry).await;
    deployment.advance_to_noon();
    Observed { deployment, events, folder: tempfile::tempdir().expect("a folder") }
}

impl Observed {
    /// Runs a command. Returns its output and whether it succeeded.
    async fn command(&self, arguments: &[&str]) -> (String, bool) {
        let cli = Cli::try_parse_from(["spillway"].iter().chain(arguments)).expect("a command");
        let app = self.deployment.another_app().await;
        let mut out = Vec::new();
        let now = self.deployment.world.app.clock.now();
        let result = admin::execute(cli.command, &app, now, &mut out).await;
        (String::from_utf8(out).expect("text"), result.is_ok())
    }

    async fn verify(&self) -> (String, bool) {
        let file = self.folder.path().join("events.jsonl");
        std::fs::write(&file, self.events.lines()).expect("written");
        self.command(&["ledger", "verify", "--events", file.to_str().expect("text")]).await
    }
}

const LIMITS: &str = "limits = { requests_per_minute = 100, tokens_per_minute = 100000, tokens_per_day = 900000, \
                      in_flight = 5, microusd_per_month = 900000 }";

#[tokio::test]
async fn the_counters_equal_the_sum_of_the_events_of_all_requests() {
    let pools = pool("small", "provisioned", "sim.small", "limits = { requests_per_minute = 40 }")
        + &pool("breaks", "on_demand", "sim.breaks", "limits = { tokens_per_minute = 100000 }\nburndown = 5");
    let observed = start(LIMITS, &pools).await;
    let mut stream = chat(5, 9);
    stream["stream"] = true.into();
    let mut statuses = Vec::new();
    for body in [chat(3, 20), stream.clone(), chat(7, 7)].iter().cycle().take(24) {
        statuses.push(observed.deployment.ask(PATH, "t", body).await.status);
        observed.deployment.world.advance(100);
    }
    let (output, is_correct) = observed.verify().await;
    assert!(is_correct, "{statuses:?}\n{output}");
    assert!(output.contains("3 accounts, 24 outcomes"), "{output}");
    let compared: u64 = output.split_whitespace().nth(4).and_then(|count| count.parse().ok()).expect("a count");
    assert!(compared > 50, "{output}");
}

#[tokio::test]
async fn each_call_of_an_embeddings_request_is_in_its_event() {
    let pools = pool("titan", "on_demand", "amazon.titan-embed-text-v2:0", "limits = { requests_per_minute = 100 }");
    let observed = start(LIMITS, &pools).await;
    let texts = serde_json::json!({ "model": "m", "input": ["one", "two", "three", "four", "five"] });
    assert_eq!(observed.deployment.ask("/v1/embeddings", "t", &texts).await.status, 200);
    let (output, is_correct) = observed.verify().await;
    assert!(is_correct, "{output}");
    assert!(output.contains("2 accounts, 1 outcomes"), "{output}");
}

#[tokio::test]
async fn a_call_that_was_passed_on_has_an_event_with_the_charge_of_its_pool() {
    let silent = "limits = { requests_per_minute = 100 }\nfirst_byte_timeout_ms = 1000\non_silence = \"next_pool\"";
    let pools = pool("silent", "provisioned", "sim.silent", silent)
        + &pool("second", "on_demand", "sim.second", "limits = { requests_per_minute = 100 }");
    let observed = start(LIMITS, &pools).await;
    let mut stream = chat(5, 9);
    stream["stream"] = true.into();
    let answer = observed.deployment.ask(PATH, "t", &stream).await;
    assert_eq!((answer.status, answer.header("x-spillway-pool")), (200, "second"));
    observed.deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
    let late: Vec<_> = observed.events.events().into_iter().filter(|event| event["late_calls"] == 1).collect();
    assert_eq!((late.len(), &late[0]["pool"]), (1, &"silent".into()), "{late:?}");
    let (output, is_correct) = observed.verify().await;
    assert!(is_correct, "{output}");
    assert!(output.contains("3 accounts, 1 outcomes"), "{output}");
}

#[tokio::test]
async fn a_charge_without_an_event_is_reported_with_its_counter() {
    let observed = start(LIMITS, &pool("p", "on_demand", "sim.model", "")).await;
    assert_eq!(observed.deployment.chat("t", 5, 9).await.status(), 200);
    drop(observed.deployment.occupy("t", ONE_REQUEST, 1_000).await);
    let (output, is_correct) = observed.verify().await;
    assert!(!is_correct);
    assert!(output.contains("T#t: requests of the minute from") && output.contains("2, recomputed 1"), "{output}");
}

#[tokio::test]
async fn a_ledger_without_events_is_checked_for_impossible_counters() {
    let observed = start(LIMITS, &pool("p", "on_demand", "sim.model", "")).await;
    assert_eq!(observed.deployment.chat("t", 5, 9).await.status(), 200);
    let (output, is_correct) = observed.command(&["ledger", "verify"]).await;
    assert!(is_correct && output.contains("1 accounts, 0 outcomes, 0 counters compared: 0 differences"), "{output}");
}

#[tokio::test]
async fn the_quota_command_shows_limits_usage_and_recent_refusals() {
    let observed =
        start("limits = { requests_per_minute = 2, in_flight = 3 }", &pool("p", "on_demand", "sim.model", "")).await;
    let (output, _) = observed.command(&["quota", "t"]).await;
    assert!(output.contains("never refused"), "{output}");
    for status in [200, 200, 429, 429, 429] {
        assert_eq!(observed.deployment.chat("t", 5, 9).await.status(), status);
    }
    observed.deployment.world.advance(5_000);
    let counted = async || observed.command(&["quota", "t"]).await.0.contains("requests_per_minute  3      20");
    eventually("all refusals are written", counted).await;
    let (output, _) = observed.command(&["quota", "t"]).await;
    for line in [
        "tenant t, class standard",
        "requests_per_minute  2    2     0",
        "in_flight            3    0     3",
        "in flight: 0",
        "settled: 2 requests",
        "requests_per_minute  3      20",
    ] {
        assert!(output.contains(line), "{line} is missing:\n{output}");
    }
    assert!(!observed.command(&["quota", "absent"]).await.1);
}
