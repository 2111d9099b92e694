//! A TCP proxy whose connections break on command, as pooled connections do while a process is
//! frozen.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How a connection breaks at its next request. The client receives a reset either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection was dead: the request is not forwarded.
    BeforeRequest,
    /// The request is forwarded, and its reply is lost.
    BeforeReply,
}

/// A running proxy.
pub struct BreakingProxy {
    pub url: String,
    state: Arc<State>,
    _stop: DropGuard,
}

#[derive(Default)]
struct State {
    /// The last command, and how many there were before a connection was accepted.
    command: Mutex<(u64, Option<Break>)>,
    connections: AtomicU64,
    resets: AtomicU64,
}

impl BreakingProxy {
    /// Starts a proxy in front of `upstream`, an HTTP URL.
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (state, stop) = (Arc::<State>::default(), CancellationToken::new());
        let (relays, stopped) = (Arc::clone(&state), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                relays.connections.fetch_add(1, Ordering::Relaxed);
                let upstream = TcpStream::connect(&upstream).await.expect("the upstream accepts");
                tokio::spawn(relay(client, upstream, Arc::clone(&relays)));
            }
        }));
        Self { url, state, _stop: stop.drop_guard() }
    }

    /// Breaks each connection that is open now, at its next request.
    pub fn break_connections(&self, how: Break) {
        let mut command = self.state.command.lock().expect("no panic");
        *command = (command.0 + 1, Some(how));
    }

    /// Returns the number of connections so far.
    #[allow(dead_code, reason = "not every test uses it")]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that were reset so far.
    pub fn resets(&self) -> u64 {
        self.state.resets.load(Ordering::Relaxed)
    }
}

impl State {
    fn commands(&self) -> u64 {
        self.command.lock().expect("no panic").0
    }

    /// Returns how a connection breaks that was accepted after `commands` commands.
    fn break_since(&self, commands: u64) -> Option<Break> {
        let (count, how) = *self.command.lock().expect("no panic");
        how.filter(|_| count > commands)
    }

    fn reset(&self, client: &TcpStream) {
        client.set_zero_linger().expect("a socket");
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}

/// Copies bytes in both directions until one side closes or the connection breaks.
async fn relay(mut client: TcpStream, mut upstream: TcpStream, state: Arc<State>) {
    let commands = state.commands();
    let (mut from_client, mut from_upstream) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut is_reply_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                match state.break_since(commands) {
                    Some(Break::BeforeRequest) => return state.reset(&client),
                    how => is_reply_lost |= how.is_some(),
                }
                if upstream.write_all(&from_client[..count]).await.is_err() {
                    return;
                }
            }
            read = upstream.read(&mut from_upstream) => {
                let Ok(count @ 1..) = read else { return };
                if is_reply_lost {
                    return state.reset(&client);
                }
                if client.write_all(&from_upstream[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
