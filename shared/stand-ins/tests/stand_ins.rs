//! Tests of the four stand-ins together.

use std::path::Path;

use spillway_stand_ins::{Options, StandIns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn options(directory: &Path) -> Options {
    Options { data: Some(directory.to_owned()), ..Options::default() }
}

async fn message(started: anyhow::Result<StandIns>) -> String {
    format!("{:#}", started.err().expect("the start must fail"))
}

#[tokio::test]
async fn every_endpoint_responds_when_start_returns() {
    let stand_ins = StandIns::start(Options::default()).await.unwrap();
    let endpoints = stand_ins.endpoints();
    let names = endpoints.each_ref().map(|(name, _)| *name);
    let services = ["DYNAMODB", "SQS", "S3", "BEDROCK_RUNTIME"];
    assert_eq!(names.to_vec(), services.map(|service| format!("AWS_ENDPOINT_URL_{service}")));
    let urls = [stand_ins.dynamodb_url(), stand_ins.sqs_url(), stand_ins.s3_url(), stand_ins.bedrock_url()];
    assert_eq!(endpoints.map(|(_, url)| url), urls);
    for url in urls {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{url}: {answer}");
    }
    stand_ins.stop().await;
}

#[tokio::test]
async fn no_stand_in_answers_a_web_page() {
    let stand_ins = StandIns::start(Options::default()).await.unwrap();
    for (_, url) in stand_ins.endpoints() {
        for (header, status) in
            [("host: evil.example", "421"), ("host: localhost\r\norigin: http://evil.example", "403")]
        {
            let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
            let request = format!("POST /_sim/faults HTTP/1.1\r\n{header}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{url} {header}: {answer}");
        }
    }
    stand_ins.stop().await;
}

#[tokio::test]
async fn a_directory_can_be_used_by_a_single_process() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("new/directory");
    let first = StandIns::start(options(&directory)).await.unwrap();
    let second = message(StandIns::start(options(&directory)).await).await;
    assert!(second.contains("in use by another process"), "{second}");
    first.stop().await;
    StandIns::start(options(&directory)).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_broken_database_is_reported_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("dynamodb.sqlite"), "this is no database, whatever its name says").unwrap();
    let error = message(StandIns::start(options(directory.path())).await).await;
    assert!(error.contains("cannot open the database"), "{error}");
}

#[tokio::test]
async fn the_error_for_a_taken_port_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let holder = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let error = message(StandIns::start(Options { ports: [0, taken, 0, 0], ..Options::default() }).await).await;
    assert!(error.contains(&taken.to_string()), "{error}");
    drop(holder);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_can_read_a_new_directory() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    StandIns::start(options(&directory)).await.unwrap().stop().await;
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
