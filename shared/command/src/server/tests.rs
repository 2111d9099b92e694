mod slow_clients;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

use super::*;

/// Time limit of every step. It is far longer than any step takes.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

/// Any free port of this machine.
fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A server whose handler reads the body, reports that the request has arrived, and answers when it
/// may: 200 for a complete body, 400 for another.
struct TestServer {
    address: SocketAddr,
    arrived: Arc<Notify>,
    may_answer: Arc<Semaphore>,
    max_running: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl TestServer {
    async fn start(limits: ConnectionLimits) -> Self {
        let tcp = listen(loopback()).expect("a port");
        let address = tcp.local_addr().expect("an address");
        let (arrived, may_answer) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let (running, max_running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let shutdown = CancellationToken::new();
        let handler = {
            let (arrived, may_answer, max_running) = (arrived.clone(), may_answer.clone(), max_running.clone());
            move |request: Request<TimedBody>| {
                let (arrived, may_answer) = (arrived.clone(), may_answer.clone());
                let (running, max_running) = (running.clone(), max_running.clone());
                async move {
                    let is_complete = request.into_body().collect().await.is_ok();
                    max_running.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    arrived.notify_one();
                    may_answer.acquire().await.expect("an open semaphore").forget();
                    running.fetch_sub(1, Ordering::SeqCst);
                    let status = if is_complete { StatusCode::OK } else { StatusCode::BAD_REQUEST };
                    let body = Full::new(Bytes::from_static(b"answer")).boxed_unsync();
                    Response::builder().status(status).body(body).expect("a response")
                }
            }
        };
        let listeners = vec![Listener { tcp, tls: None }];
        let task = tokio::spawn(serve(listeners, handler, limits, shutdown.clone()));
        Self { address, arrived, may_answer, max_running, shutdown, task }
    }

    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.address)).await.expect("a connection")
    }

    /// Sends `text` in a new connection and returns all that the server sends until it closes it.
    async fn exchange(&self, text: &str) -> String {
        let mut connection = self.connect().await;
        connection.write_all(text.as_bytes()).await.expect("sent");
        rest(connection).await
    }
}

async fn rest(mut connection: TcpStream) -> String {
    let mut received = Vec::new();
    // A server that closes a connection with unread bytes resets it.
    let _ = within(connection.read_to_end(&mut received)).await;
    String::from_utf8(received).expect("text")
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_stopped_server_refuses_connections_and_finishes_the_request_in_flight() {
    let server = TestServer::start(ConnectionLimits::default()).await;
    let mut connection = server.connect().await;
    connection.write_all(REQUEST.as_bytes()).await.expect("sent");
    within(server.arrived.notified()).await;
    server.shutdown.cancel();
    let is_refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(is_refused).await;
    server.may_answer.add_permits(1);
    assert!(rest(connection).await.ends_with("answer"));
    within(server.task).await.expect("no panic");
}

#[tokio::test]
async fn at_most_the_maximum_of_connections_is_served_at_the_same_time() {
    let limits = ConnectionLimits { max_connections: 2, ..ConnectionLimits::default() };
    let server = Arc::new(TestServer::start(limits).await);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.exchange(REQUEST).await })
        })
        .collect();
    for _ in 0..6 {
        within(server.arrived.notified()).await;
        // Lets every other connection arrive that the server takes.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        server.may_answer.add_permits(1);
    }
    for client in clients {
        assert!(within(client).await.expect("no panic").ends_with("answer"));
    }
    assert_eq!(server.max_running.load(Ordering::SeqCst), 2);
}

#[test]
fn the_access_key_id_is_read_only_from_a_signed_request() {
    let scope = "20261123/us-east-1/bedrock/aws4_request";
    for (authorization, id) in [
        (format!("AWS4-HMAC-SHA256 Credential=AKID/{scope}, SignedHeaders=host, Signature=0"), Some("AKID")),
        (format!("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=local-a/{scope},Signature=0"), Some("local-a")),
        (format!("AWS4-ECDSA-P256-SHA256 Credential=AKID/{scope}, Signature=0"), Some("AKID")),
        (format!("Bearer Credential=AKID/{scope}"), None),
        (format!("AWS4-HMAC-SHA256 Credential=/{scope}"), None),
        ("AWS4-HMAC-SHA256 Credential=AKID".to_owned(), None),
        ("AWS4-HMAC-SHA256".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(access_key_id(&authorization), id, "{authorization}");
    }
}

#[tokio::test]
async fn a_burst_of_connections_waits_until_it_is_accepted() {
    let listener = listen(loopback()).expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        waiting.push(within(TcpStream::connect(address)).await.expect("a connection"));
    }
    for _ in waiting {
        within(listener.accept()).await.expect("a connection");
    }
}
