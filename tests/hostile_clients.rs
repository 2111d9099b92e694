//! Processes of `spillway serve` whose clients do not behave: their limits, and their end.

use std::{
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::support::{Deployment, answer::within, chat, key, one_tenant, process, time::eventually};

/// A running `spillway serve` on the stand-ins of a deployment. It is killed when dropped.
struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    /// Starts the binary in a shell, after the command `before`.
    async fn start(deployment: &Deployment, before: &str, options: &str) -> Self {
        let command = format!("{before} exec {} serve --port 0 {options}", env!("CARGO_BIN_EXE_spillway"));
        let endpoints = deployment.world.stand_ins.endpoints();
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).envs(endpoints);
        shell.envs([("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")]);
        let (child, url) = process::until_ready(shell).await;
        Self { child, address: url.trim_start_matches("http://").to_owned() }
    }

    /// Opens a connection and sends `bytes`.
    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut connection = within(TcpStream::connect(&self.address)).await.expect("a connection");
        connection.write_all(bytes).await.expect("sent");
        connection
    }

    /// Sends a chat of the tenant `t` over a new connection. Returns the status.
    async fn chat(&self) -> u16 {
        let url = format!("http://{}/v1/chat/completions", self.address);
        let request = reqwest::Client::new().post(url).bearer_auth(key("t")).json(&chat(4, 8));
        within(request.send()).await.expect("an answer").status().as_u16()
    }

    /// Asks the process to stop, as a container service does. Returns how long that takes, and how
    /// it ends.
    async fn stop(mut self) -> (Duration, ExitStatus) {
        let start = Instant::now();
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let mut status = None;
        eventually("the process ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        (start.elapsed(), status.expect("a status"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The process has already ended unless its test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start() -> Deployment {
    Deployment::start(&one_tenant("{ requests_per_minute = 100, tokens_per_day = 1000000 }")).await
}

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_process_ends_after_sigterm_whatever_its_clients_do() {
    let deployment = start().await;
    let no_body = b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let kinds = [&b""[..], b"GET / HTTP/1.1\r\nhost", no_body, HTTP2].map(|sent| {
        let deployment = &deployment;
        async move {
            let broker = Broker::start(deployment, "", "").await;
            let _open = broker.connect(sent).await;
            // The bytes arrive before the signal.
            assert_eq!(broker.chat().await, 200);
            let (took, status) = broker.stop().await;
            let sent = String::from_utf8_lossy(sent);
            assert!(status.success() && took < Duration::from_secs(20), "{sent:?}: {took:?} {status}");
        }
    });
    futures_util::future::join_all(kinds).await;
}

#[tokio::test]
async fn a_response_that_is_not_read_is_cut_off_at_the_stop_timeout() {
    let deployment = start().await;
    let broker = Broker::start(&deployment, "", "--stop-timeout-s 4").await;
    // The client takes no byte of a body (INITIAL_WINDOW_SIZE is 0), and asks for `GET /healthz`.
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let request = b"\0\0\x17\x01\x05\0\0\0\x01\x82\x86\x44\x08/healthz\x41\x09localhost";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let _unread = broker.connect(&[&preface[..], settings, request].concat()).await;
    assert_eq!(broker.chat().await, 200);
    let (took, status) = broker.stop().await;
    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn silent_connections_leave_descriptors_for_other_clients_and_for_aws() {
    let deployment = start().await;
    let broker = Broker::start(&deployment, "ulimit -n 256;", "").await;
    let mut kept = broker.connect(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(broker.connect(b"").await);
    }
    // Answered: a client that has been connected for longer, and new clients.
    assert_eq!(within(kept.read_u8()).await.expect("an answer"), b'H');
    let chats = (0..20).map(|_| broker.chat());
    assert_eq!(futures_util::future::join_all(chats).await, [200; 20]);
}
