//! The whole of trace mode against a small server that answers, queues, refuses, fails and keeps silent on purpose.

mod stub;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use reqwest::Url;

use super::accounts::{Accounts, Tokens};
use super::options::LoadArgs;
use super::report::Report;
use super::{replay, rows};
use stub::{INPUT_TOKENS, Stub, asked};

const EACH: u64 = 12;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    load: LoadArgs,
}

fn args(broker: &Url, flags: &[&str]) -> LoadArgs {
    let url = ["replay", "--url", broker.as_str(), "--settle-timeout", "0.3"];
    Line::try_parse_from(url.iter().chain(flags)).unwrap().load
}

/// Replays `EACH` requests of every kind in `kinds`.
async fn replay_kinds(kinds: &[u64], broker: &Url, flags: &[&str]) -> anyhow::Result<Report> {
    let mut csv = "arrival_ms,tenant,model_class,input_tokens,output_tokens\n".to_owned();
    for number in 0..EACH {
        for kind in kinds {
            writeln!(csv, "{number},tenant-{number},chat,{INPUT_TOKENS},{kind}").unwrap();
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), csv).unwrap();
    // A replay that hangs is a failure of its own.
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, replay(file.path(), &args(broker, flags))).await?
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/trace_small.csv")
}

#[tokio::test]
async fn every_kind_of_end_is_counted_exactly_and_nothing_is_lost() {
    let (_, url) = Stub::start().await;
    let kinds = [
        asked::ANSWER,
        asked::JOB,
        asked::JOB_FAILS,
        asked::JOB_WITHOUT_RESULT,
        asked::REFUSED,
        asked::REFUSED_WITHOUT_TIME,
        asked::OUT_OF_BUDGET,
        asked::SERVER_ERROR,
        asked::DROPPED,
        asked::SWALLOWED,
        asked::CUT_SHORT,
    ];
    let report = replay_kinds(&kinds, &url, &["--request-timeout", "1.5"]).await.unwrap();
    assert_eq!((report.sent, report.lost), (EACH * kinds.len() as u64, 0), "{report}");
    assert_eq!((report.answered, report.refused), (EACH, 2 * EACH), "{report}");
    assert_eq!((report.queued, report.queued_finished), (3 * EACH, EACH), "{report}");
    assert_eq!(report.queued_failed["failed"], EACH);
    assert_eq!(report.refused_per_limit["tokens_per_minute"], 2 * EACH);
    assert_eq!(report.refused_per_limit["in_flight"], 2 * EACH);
    let errors = &report.errors_per_kind;
    assert_eq!(errors["http 429 without Retry-After"], EACH);
    assert_eq!(errors["http 500 api_error"], EACH);
    assert_eq!(errors["connection broke"], EACH);
    assert_eq!(errors["timeout"], EACH);
    assert_eq!(errors["result of a job: http 404"], EACH);
    assert_eq!(errors["stream cut short"] + errors["unreadable answer"], EACH);
    assert_eq!(report.errors, 6 * EACH, "{report}");
    assert!(report.oddities.is_empty(), "{report}");
}

#[tokio::test]
async fn every_dialect_is_read_whole_and_streamed() {
    for dialect in ["openai", "anthropic", "bedrock"] {
        for streams in ["0", "1"] {
            let (_, url) = Stub::start().await;
            let flags = ["--dialect", dialect, "--stream-share", streams, "--simulator", url.as_str()];
            let report = replay_kinds(&[asked::ANSWER], &url, &flags).await.unwrap();
            let tokens = Tokens { input_tokens: EACH * INPUT_TOKENS, output_tokens: EACH * asked::ANSWER };
            assert_eq!(report.answered, EACH, "{dialect} {report}");
            assert_eq!(report.pools["provisioned"].input_tokens, tokens.input_tokens, "{dialect} {report}");
            assert_eq!(report.pools["provisioned"].output_tokens, tokens.output_tokens, "{dialect} {report}");
            assert_eq!(report.first_token.count, if streams == "1" { EACH } else { 0 }, "{dialect} {report}");
            assert_eq!(report.accounts, Accounts::Agree { broker: tokens, simulator: tokens }, "{dialect}");
        }
    }
}

#[tokio::test]
async fn a_job_that_never_ends_is_lost_once_patience_ends() {
    let (_, url) = Stub::start().await;
    let report =
        replay_kinds(&[asked::ANSWER, asked::JOB_NEVER_ENDS], &url, &["--drain-timeout", "0.6"]).await.unwrap();
    assert_eq!((report.sent, report.answered, report.lost), (2 * EACH, EACH, EACH), "{report}");
    assert_eq!(report.queued_unfinished["queued"], EACH);
    assert!(report.fault().unwrap().contains("lost"));
}

#[tokio::test]
async fn a_swallowed_request_ends_as_a_timeout_even_when_patience_for_jobs_is_shorter() {
    let (_, url) = Stub::start().await;
    let flags = ["--request-timeout", "0.5", "--drain-timeout", "0"];
    let report = replay_kinds(&[asked::SWALLOWED], &url, &flags).await.unwrap();
    assert_eq!((report.errors_per_kind["timeout"], report.lost), (EACH, 0), "{report}");
}

#[tokio::test]
async fn accounts_that_differ_are_a_fault() {
    let (stub, url) = Stub::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "arrival_ms,tenant,model_class,input_tokens,output_tokens\n0,a,chat,100,1\n400,a,chat,100,1\n",
    )
    .unwrap();
    let args = args(&url, &["--simulator", url.as_str()]);
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        stub.serve_unseen(1);
    };
    let (report, ()) = tokio::join!(replay(file.path(), &args), later);
    assert!(report.unwrap().fault().unwrap().contains("differ"));
}

#[tokio::test]
async fn waiting_callers_do_not_ask_for_jobs() {
    let (stub, url) = Stub::start().await;
    replay_kinds(&[asked::ANSWER], &url, &["--wait"]).await.unwrap();
    assert_eq!(stub.preferring(), 0);
    replay_kinds(&[asked::ANSWER], &url, &[]).await.unwrap();
    assert_eq!(stub.preferring(), EACH);
}

#[tokio::test]
async fn no_more_requests_than_allowed_are_open_and_the_rest_are_held_back() {
    let (_, url) = Stub::start().await;
    let flags = ["--max-in-flight", "1", "--request-timeout", "0.05"];
    let report = replay_kinds(&[asked::SWALLOWED], &url, &flags).await.unwrap();
    assert_eq!((report.sent, report.held_back, report.lost), (EACH, EACH - 1, 0), "{report}");
    assert!(report.generator_lag.max_ms >= 500.0, "{report}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_makes_errors_and_a_missing_account_stops_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let report = replay_kinds(&[asked::ANSWER], &nowhere, &[]).await.unwrap();
    assert_eq!((report.errors_per_kind["cannot connect"], report.lost), (EACH, 0), "{report}");
    assert!(replay_kinds(&[asked::ANSWER], &nowhere, &["--simulator", nowhere.as_str()]).await.is_err());
}

#[test]
fn the_small_trace_reads() {
    let rows = rows::read_file(&fixture(), usize::MAX).unwrap();
    assert_eq!(rows.len(), 240);
}
