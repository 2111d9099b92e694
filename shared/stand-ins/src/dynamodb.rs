//! DynamoDB on the wire: the emulator Dynoxide, behind the proxy that counts its requests and makes some of them fail.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use dynoxide::Database;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    faults::{self, Faults},
};

/// How often expired items are looked for. On AWS it takes up to days, so nobody may rely on a short time.
const SWEEP_EVERY_MS: u64 = 10_000;

#[derive(Clone, Default)]
pub struct Options {
    /// Decides what has expired. With `data`, Dynoxide reads the machine's clock instead and cannot be told otherwise.
    pub clock: Clock,
    /// The directory, which must exist, of a database that survives a restart and `kill -9`; in memory when absent.
    pub data: Option<PathBuf>,
    pub faults: Faults,
}

/// Serves DynamoDB's JSON API and the controls of [`faults`] until `shutdown`, then closes the database.
///
/// # Errors
/// The database cannot be opened, or no loopback port is to be had for it.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = open(options.data.as_deref(), options.clock.clone())?;
    let engine = Engine::start(database, options.clock.clone()).await?;
    let served = faults::serve(listener, engine.address, options.faults, options.clock, shutdown).await;
    engine.stop().await?;
    served
}

fn open(directory: Option<&Path>, clock: Clock) -> anyhow::Result<Database> {
    let Some(directory) = directory else {
        return Database::memory_with_clock(Arc::new(DatabaseClock(clock))).context("cannot make a database in memory");
    };
    let file = directory.join("dynamodb.sqlite");
    let name = file.to_str().with_context(|| format!("{} is not valid UTF-8", file.display()))?;
    let opened = || format!("cannot open the database {name}");
    let database = Database::new(name).with_context(opened)?;
    // Sets `synchronous = NORMAL` among SQLite's other defaults. With the write-ahead log an answered write then
    // survives the end of the process, though not of the machine, and needs no `fsync` of its own.
    database.disable_bulk_loading().with_context(opened)?;
    Ok(database)
}

struct DatabaseClock(Clock);

impl dynoxide::storage_backend::Clock for DatabaseClock {
    fn now_unix_secs(&self) -> u64 {
        self.0.now_ms() / 1000
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now_ms() as f64 / 1000.0
    }
}

/// Dynoxide on a thread of its own: it runs each request to its end without yielding, and handles one at a time
/// anyway, so on the caller's threads it would only stall everything else there.
struct Engine {
    address: SocketAddr,
    stop: CancellationToken,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl Engine {
    async fn start(database: Database, clock: Clock) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (report, ended) = oneshot::channel();
        std::thread::Builder::new().name("dynamodb".to_owned()).spawn(move || {
            let outcome = runtime.block_on(run(listener, database, clock, stopped));
            // The database is closed with its last clone, and some of those are in the runtime's tasks.
            drop(runtime);
            report.send(outcome).ok();
        })?;
        Ok(Self { address, stop, ended })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        (&mut self.ended).await.context("the database's thread died")?
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    listener: std::net::TcpListener,
    database: Database,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let sweep = tokio::spawn(sweep_forever(database.clone(), clock));
    let served = dynoxide::server::serve_with_shutdown(listener, database, stop.cancelled_owned()).await;
    sweep.abort();
    served.map_err(|error| anyhow!(error))
}

async fn sweep_forever(database: Database, clock: Clock) {
    loop {
        clock.sleep_until(clock.now_ms() + SWEEP_EVERY_MS).await;
        let database = database.clone();
        // On another thread, because a sweep steps aside for the requests that wait on this one.
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(deleted)) => tracing::debug!(deleted, "swept expired items"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot sweep expired items"),
            Err(error) => tracing::warn!(%error, "the sweep of expired items died"),
        }
    }
}
