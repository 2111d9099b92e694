//! Trace mode against a small server that answers, queues, refuses, fails and stays silent on
//! purpose.

mod server;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use reqwest::Url;

use super::accounts::{Accounts, Tokens};
use super::options::LoadArgs;
use super::report::Report;
use super::{replay, rows};
use server::{INPUT_TOKENS, Server, behaviour};

const REQUESTS_PER_KIND: u64 = 12;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

fn args(broker: &Url, flags: &[&str]) -> LoadArgs {
    let url = ["replay", "--url", broker.as_str(), "--settle-timeout", "0.3"];
    Line::try_parse_from(url.iter().chain(flags)).unwrap().load
}

/// Replays `REQUESTS_PER_KIND` requests for each of `kinds`.
async fn replay_kinds(kinds: &[u64], broker: &Url, flags: &[&str]) -> anyhow::Result<Report> {
    let mut csv = "arrival_ms,tenant,model_class,input_tokens,output_tokens\n".to_owned();
    for number in 0..REQUESTS_PER_KIND {
        for kind in kinds {
            writeln!(csv, "{number},tenant-{number},chat,{INPUT_TOKENS},{kind}").unwrap();
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), csv).unwrap();
    // A replay that hangs must fail the test.
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, replay(file.path(), &args(broker, flags))).await?
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/trace_small.csv")
}

#[tokio::test]
async fn every_kind_of_end_is_counted_exactly_and_no_request_is_lost() {
    let (_, url) = Server::start().await;
    let kinds = [
        behaviour::ANSWER,
        behaviour::JOB,
        behaviour::JOB_FAILS,
        behaviour::JOB_WITHOUT_RESULT,
        behaviour::REFUSED,
        behaviour::REFUSED_WITHOUT_TIME,
        behaviour::OUT_OF_BUDGET,
        behaviour::SERVER_ERROR,
        behaviour::DROPPED,
        behaviour::SWALLOWED,
        behaviour::CUT_SHORT,
    ];
    let report = replay_kinds(&kinds, &url, &["--request-timeout", "1.5"]).await.unwrap();
    assert_eq!((report.sent, report.lost), (REQUESTS_PER_KIND * kinds.len() as u64, 0), "{report}");
    assert_eq!((report.answered, report.refused), (REQUESTS_PER_KIND, 2 * REQUESTS_PER_KIND), "{report}");
    assert_eq!((report.queued, report.queued_finished), (3 * REQUESTS_PER_KIND, REQUESTS_PER_KIND), "{report}");
    assert_eq!(report.queued_failed["failed"], REQUESTS_PER_KIND);
    assert_eq!(report.refused_per_limit["tokens_per_minute"], 2 * REQUESTS_PER_KIND);
    assert_eq!(report.refused_per_limit["in_flight"], 2 * REQUESTS_PER_KIND);
    let errors = &report.errors_per_kind;
    assert_eq!(errors["http 429 without Retry-After"], REQUESTS_PER_KIND);
    assert_eq!(errors["http 500 api_error"], REQUESTS_PER_KIND);
    assert_eq!(errors["connection broke"], REQUESTS_PER_KIND);
    assert_eq!(errors["timeout"], REQUESTS_PER_KIND);
    assert_eq!(errors["result of a job: http 404"], REQUESTS_PER_KIND);
    assert_eq!(errors["stream cut short"] + errors["unreadable answer"], REQUESTS_PER_KIND);
    assert_eq!(report.errors, 6 * REQUESTS_PER_KIND, "{report}");
    assert!(report.oddities.is_empty(), "{report}");
}

#[tokio::test]
async fn every_dialect_is_read_whole_and_streamed() {
    for dialect in ["openai", "anthropic", "bedrock"] {
        for streams in ["0", "1"] {
            let (_, url) = Server::start().await;
            let flags = ["--dialect", dialect, "--stream-share", streams, "--simulator", url.as_str()];
            let report = replay_kinds(&[behaviour::ANSWER], &url, &flags).await.unwrap();
            let tokens = Tokens {
                input_tokens: REQUESTS_PER_KIND * INPUT_TOKENS,
                output_tokens: REQUESTS_PER_KIND * behaviour::ANSWER,
            };
            assert_eq!(report.answered, REQUESTS_PER_KIND, "{dialect} {report}");
            assert_eq!(report.pools["provisioned"].input_tokens, tokens.input_tokens, "{dialect} {report}");
            assert_eq!(report.pools["provisioned"].output_tokens, tokens.output_tokens, "{dialect} {report}");
            assert_eq!(
                report.first_token.count,
                if streams == "1" { REQUESTS_PER_KIND } else { 0 },
                "{dialect} {report}"
            );
            assert_eq!(report.accounts, Accounts::Agree { broker: tokens, simulator: tokens }, "{dialect}");
        }
    }
}

#[tokio::test]
async fn a_job_that_never_ends_is_lost_after_the_drain_timeout() {
    let (_, url) = Server::start().await;
    let report =
        replay_kinds(&[behaviour::ANSWER, behaviour::JOB_NEVER_ENDS], &url, &["--drain-timeout", "0.6"]).await.unwrap();
    assert_eq!(
        (report.sent, report.answered, report.lost),
        (2 * REQUESTS_PER_KIND, REQUESTS_PER_KIND, REQUESTS_PER_KIND),
        "{report}"
    );
    assert_eq!(report.queued_unfinished["queued"], REQUESTS_PER_KIND);
    assert!(report.fault().unwrap().contains("lost"));
}

#[tokio::test]
async fn a_request_without_a_response_ends_as_a_timeout_even_if_the_drain_timeout_is_shorter() {
    let (_, url) = Server::start().await;
    let flags = ["--request-timeout", "0.5", "--drain-timeout", "0"];
    let report = replay_kinds(&[behaviour::SWALLOWED], &url, &flags).await.unwrap();
    assert_eq!((report.errors_per_kind["timeout"], report.lost), (REQUESTS_PER_KIND, 0), "{report}");
}

#[tokio::test]
async fn token_counts_that_differ_are_a_fault() {
    let (server, url) = Server::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "arrival_ms,tenant,model_class,input_tokens,output_tokens\n0,a,chat,100,1\n400,a,chat,100,1\n",
    )
    .unwrap();
    let args = args(&url, &["--simulator", url.as_str()]);
    let extra_tokens = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.serve_without_broker(1);
    };
    let (report, ()) = tokio::join!(replay(file.path(), &args), extra_tokens);
    assert!(report.unwrap().fault().unwrap().contains("differ"));
}

#[tokio::test]
async fn requests_with_wait_do_not_ask_for_jobs() {
    let (server, url) = Server::start().await;
    replay_kinds(&[behaviour::ANSWER], &url, &["--wait"]).await.unwrap();
    assert_eq!(server.requests_with_prefer(), 0);
    replay_kinds(&[behaviour::ANSWER], &url, &[]).await.unwrap();
    assert_eq!(server.requests_with_prefer(), REQUESTS_PER_KIND);
}

#[tokio::test]
async fn requests_above_max_in_flight_are_held_back() {
    let (_, url) = Server::start().await;
    let flags = ["--max-in-flight", "1", "--request-timeout", "0.05"];
    let report = replay_kinds(&[behaviour::SWALLOWED], &url, &flags).await.unwrap();
    assert_eq!((report.sent, report.held_back, report.lost), (REQUESTS_PER_KIND, REQUESTS_PER_KIND - 1, 0), "{report}");
    assert!(report.generator_lag.max_ms >= 500.0, "{report}");
}

#[tokio::test]
async fn an_unavailable_broker_gives_errors_and_an_unavailable_simulator_stops_the_replay() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unused: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let report = replay_kinds(&[behaviour::ANSWER], &unused, &[]).await.unwrap();
    assert_eq!((report.errors_per_kind["cannot connect"], report.lost), (REQUESTS_PER_KIND, 0), "{report}");
    assert!(replay_kinds(&[behaviour::ANSWER], &unused, &["--simulator", unused.as_str()]).await.is_err());
}

#[test]
fn the_small_trace_can_be_read() {
    let rows = rows::read_file(&fixture(), usize::MAX).unwrap();
    assert_eq!(rows.len(), 240);
}
