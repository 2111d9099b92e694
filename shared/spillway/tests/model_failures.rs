//! What a failed call to Bedrock proves: an AWS SDK client calls a TCP server that misbehaves.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_bedrockruntime::{
    Client,
    config::{Config, Credentials, Region, retry::RetryConfig},
};
use aws_smithy_async::time::TimeSource;
use serde_json::{Value, json};
use spillway::{
    chat::Input,
    clock::Clock,
    connections::{HttpClients, ResendingClient},
    model::{Failure, ModelCall, Models},
    outage::{OutageCause, PoolFault},
    pool::Pool,
    problem::Kind,
    units::Millis,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Answers,
    /// Closes the connection in order once it has read the request.
    Closes,
    /// Resets the connection once it has read the request.
    Resets,
    /// Resets the connection when a second has passed on the client's clock.
    ResetsLate,
    /// Sends the status and a part of the headers, then closes.
    ClosesInHeaders,
    /// Sends the headers and a part of the body, then closes.
    ClosesInBody,
}

use Reaction::{Answers, Closes, ClosesInBody, ClosesInHeaders, Resets, ResetsLate};

/// A clock for the SDK that only the test advances.
#[derive(Debug, Clone, Default)]
struct TestTime(Arc<AtomicU64>);

impl TimeSource for TestTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// A server that reacts to its requests in turn. It answers any further request.
struct Server {
    url: String,
    time: TestTime,
    /// The connection of each request, in order.
    requests: Arc<Mutex<Vec<usize>>>,
    /// Notified when a connection has ended.
    closed: Arc<Notify>,
}

impl Server {
    async fn start(reactions: &[Reaction]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (requests, time) = (Arc::<Mutex<Vec<usize>>>::default(), TestTime::default());
        let closed = Arc::<Notify>::default();
        let (reactions, seen, clock, ends) = (reactions.to_vec(), requests.clone(), time.clone(), closed.clone());
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (reactions, seen, clock, ends) = (reactions.clone(), seen.clone(), clock.clone(), ends.clone());
                let react = move || {
                    let mut seen = seen.lock().expect("no panic");
                    seen.push(connection);
                    reactions.get(seen.len() - 1).copied().unwrap_or(Answers)
                };
                tokio::spawn(async move {
                    serve(stream, react, &clock).await;
                    ends.notify_one();
                });
            }
        });
        Self { url, time, requests, closed }
    }

    fn requests(&self) -> Vec<usize> {
        self.requests.lock().expect("no panic").clone()
    }
}

/// Reads requests from `stream` and reacts until the connection ends.
async fn serve(mut stream: TcpStream, react: impl Fn() -> Reaction, time: &TestTime) {
    while read_request(&mut stream).await.is_some() {
        let body = json!({
            "output": { "message": { "role": "assistant", "content": [{ "text": "Hi" }] } },
            "stopReason": "end_turn",
            "usage": { "inputTokens": 1, "outputTokens": 1, "totalTokens": 2 },
            "metrics": { "latencyMs": 1 },
        });
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let reaction = react();
        let sent = match reaction {
            Answers => head + &body,
            ClosesInHeaders => head[..30].to_owned(),
            ClosesInBody => head + &body[..10],
            Closes | Resets | ResetsLate => String::new(),
        };
        if stream.write_all(sent.as_bytes()).await.is_err() {
            return;
        }
        match reaction {
            Answers => continue,
            Resets => stream.set_zero_linger().expect("a socket"),
            ResetsLate => {
                time.0.fetch_add(1_001, Ordering::Relaxed);
                stream.set_zero_linger().expect("a socket");
            }
            Closes | ClosesInHeaders | ClosesInBody => {}
        }
        return;
    }
}

/// Reads one request to its end; `None` if the client closes first.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Some(());
            }
        }
        match stream.read(&mut chunk).await {
            Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

fn models(url: &str, time: &TestTime) -> Models {
    models_with(url, time, &Clock::default())
}

fn models_with(url: &str, time: &TestTime, clock: &Clock) -> Models {
    let http = HttpClients::new(clock).expect("HTTP clients");
    let client = ResendingClient::new(&http, |http| {
        let config = Config::builder()
            .behavior_version_latest()
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .time_source(time.clone())
            .endpoint_url(url)
            .http_client(http);
        Client::from_conf(config.build())
    });
    Models::new(client)
}

async fn call(models: &Models) -> Result<(), Failure> {
    let pool = json!({ "name": "p", "kind": "on_demand", "model_id": "any" });
    let pool: Pool = serde_json::from_value(pool).expect("a pool");
    let Value::Object(body) = json!({ "messages": [{ "role": "user", "content": [{ "text": "Hello" }] }] }) else {
        panic!("an object")
    };
    let input = Input::Converse(body);
    let call = ModelCall { pool: &pool, input: &input, max_tokens: None, tenant: "t", request_id: "r" };
    let answer = tokio::time::timeout(Duration::from_secs(30), models.answer(&call));
    answer.await.expect("in time").map(drop)
}

/// Whether the next pool may be tried, because the model has not seen the call.
fn is_unbilled(failure: &Failure) -> bool {
    match failure {
        Failure::Unavailable(pool) => {
            assert_eq!((pool.cause, pool.problem.kind), (OutageCause::Unreachable, Kind::Unavailable));
            true
        }
        Failure::Failed(fault, problem) => {
            assert!(matches!(fault, PoolFault::Certain(OutageCause::Broken) | PoolFault::Doubtful), "{fault:?}");
            assert_eq!(problem.kind, Kind::Model);
            false
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_unbilled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = call(&models(&format!("http://{address}"), &TestTime::default())).await;
    assert!(is_unbilled(&refused.expect_err("refused")), "connection refused");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let no_tls = call(&models(&format!("https://{address}"), &TestTime::default())).await;
    assert!(is_unbilled(&no_tls.expect_err("no TLS")), "TLS failed");
}

#[tokio::test]
async fn a_call_whose_connection_breaks_after_it_was_sent_may_be_billed() {
    for reaction in [Closes, Resets, ResetsLate, ClosesInHeaders, ClosesInBody] {
        let server = Server::start(&[reaction]).await;
        let failure = call(&models(&server.url, &server.time)).await.expect_err("no answer");
        assert!(!is_unbilled(&failure), "{reaction:?}: {failure:?}");
        assert_eq!(server.requests(), [0], "{reaction:?} on a new connection is not sent again");
    }
}

#[tokio::test]
async fn only_a_call_on_a_dead_pooled_connection_is_sent_again() {
    let cases = [(Closes, false), (Resets, true), (ResetsLate, false), (ClosesInHeaders, false), (ClosesInBody, false)];
    for (reaction, is_resent) in cases {
        let server = Server::start(&[Answers, reaction]).await;
        let models = models(&server.url, &server.time);
        call(&models).await.expect("an answer");
        let second = call(&models).await;
        assert_eq!(second.is_ok(), is_resent, "{reaction:?}: {second:?}");
        assert!(second.err().is_none_or(|failure| !is_unbilled(&failure)), "{reaction:?}");
        let expected: &[usize] = if is_resent { &[0, 0, 1] } else { &[0, 0] };
        assert_eq!(server.requests(), expected, "{reaction:?}");
    }
}

#[tokio::test]
async fn a_call_is_sent_again_only_once() {
    let server = Server::start(&[Answers, Resets, Resets]).await;
    let models = models(&server.url, &server.time);
    call(&models).await.expect("an answer");
    let failure = call(&models).await.expect_err("two resets");
    assert!(!is_unbilled(&failure), "{failure:?}");
    assert_eq!(server.requests(), [0, 0, 1]);
    call(&models).await.expect("an answer");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_connection_that_is_idle_for_fifteen_seconds_is_closed() {
    let server = Server::start(&[]).await;
    let clock = Clock::default();
    let models = models_with(&server.url, &server.time, &clock);
    for _ in 0..2 {
        call(&models).await.expect("an answer");
        clock.advance(Millis::from_ms(14_000));
    }
    assert_eq!(server.requests(), [0, 0]);
    clock.advance(Millis::from_ms(1_000));
    tokio::time::timeout(Duration::from_secs(30), server.closed.notified()).await.expect("closed");
    call(&models).await.expect("an answer");
    assert_eq!(server.requests(), [0, 0, 1]);
}
