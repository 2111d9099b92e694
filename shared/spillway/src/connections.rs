//! Connections to AWS: the HTTP clients of a process, and what a broken connection proves about
//! its request.
//!
//! All SDK clients share one pool of connections. A connection dies unnoticed while Lambda freezes
//! the process. With one pool, a read that the SDK may repeat usually meets the dead connection
//! before a write does, because every request begins with reads of the registry.

mod attempt;
mod patience;
mod pool_clock;
mod resend;
mod traffic;

use std::time::Duration;

use anyhow::Context;
use aws_smithy_http_client::{
    pool::{Client, ConnectionPool, DriverSpawner, Partition, PartitionId},
    tls::{Provider, rustls_provider::CryptoMode},
};

pub use attempt::{Attempt, was_sent};
pub use patience::{CallerTimeouts, MAX_SILENT_TIME, OutOfTime, Patience, TimeLimits, spawn_for_caller};
pub use resend::ResendingClient;
pub use traffic::CallInProgress;

use crate::clock::Clock;
use pool_clock::PoolClock;

/// Time for which an idle connection is kept. It is shorter than the idle timeouts of AWS's
/// endpoints and of a NAT gateway (350 s), so that this side closes first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time of silence after which the kernel probes a connection, also while a call waits for its
/// answer. It is shorter than the idle timeout of a NAT gateway (350 s).
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The HTTP clients of a process. They connect on first use.
#[derive(Debug, Clone)]
pub struct HttpClients {
    /// Keeps idle connections for later requests.
    pub pooled: Client,
    /// Connects for every request, to send a request again whose connection broke.
    pub unpooled: Client,
    clock: Clock,
}

impl HttpClients {
    /// Creates the clients. `clock` decides how long a connection has been idle.
    ///
    /// # Errors
    /// Returns an error if no client can be created.
    pub fn new(clock: &Clock) -> anyhow::Result<Self> {
        let client = |idle_timeout| client(idle_timeout, clock).context("creating an HTTP client");
        Ok(Self { pooled: client(IDLE_TIMEOUT)?, unpooled: client(Duration::ZERO)?, clock: clock.clone() })
    }
}

fn client(idle_timeout: Duration, clock: &Clock) -> anyhow::Result<Client> {
    let only = PartitionId::from_index(0);
    let spawner = DriverSpawner::from_fn(|driver| drop(tokio::spawn(driver)));
    let pool = ConnectionPool::builder()
        .partitions([Partition::new(only, spawner)])
        .idle_timeout(idle_timeout)
        .tcp_keepalive(KEEP_ALIVE)
        .time_source(PoolClock(clock.clone()))
        .sleep_impl(PoolClock(clock.clone()))
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https()?;
    Ok(Client::from_partition(&pool, only)?)
}
