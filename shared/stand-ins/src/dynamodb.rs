//! DynamoDB on the wire: the emulator Dynoxide behind a proxy that counts requests and injects
//! faults.

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

/// Interval between sweeps for expired items. AWS can take days, so callers must not rely on a
/// short time.
const SWEEP_INTERVAL_MS: u64 = 10_000;

/// Settings of the DynamoDB stand-in.
#[derive(Clone, Default)]
pub struct Options {
    /// Clock that decides which items have expired. With `data`, Dynoxide always reads the
    /// machine's clock instead.
    pub clock: Clock,
    /// Directory of the database, which survives a restart and `kill -9`. It must exist. In memory
    /// if absent.
    pub data: Option<PathBuf>,
    /// Request counters and injected faults.
    pub faults: Faults,
}

/// Serves the JSON API of DynamoDB and the controls of [`faults`] until `shutdown`, then closes the
/// database.
///
/// # Errors
/// Returns an error if the database cannot be opened, or if no loopback port is free.
pub async fn serve(listener: TcpListener, options: Options, shutdown: CancellationToken) -> anyhow::Result<()> {
    let database = open(options.data.as_deref(), options.clock.clone())?;
    let engine = Engine::start(database, options.clock.clone()).await?;
    let served = faults::serve(listener, engine.address, options.faults, options.clock, shutdown).await;
    engine.stop().await?;
    served
}

fn open(directory: Option<&Path>, clock: Clock) -> anyhow::Result<Database> {
    let Some(directory) = directory else {
        return Database::memory_with_clock(Arc::new(DatabaseClock(clock)))
            .context("cannot create a database in memory");
    };
    let file = directory.join("dynamodb.sqlite");
    let name = file.to_str().with_context(|| format!("{} is not valid UTF-8", file.display()))?;
    let context = || format!("cannot open the database {name}");
    let database = Database::new(name).with_context(context)?;
    // Sets `synchronous = NORMAL` among other defaults of SQLite. With the write-ahead log, an
    // acknowledged write then survives the end of the process, though not a crash of the machine,
    // and needs no `fsync`.
    database.disable_bulk_loading().with_context(context)?;
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

/// Dynoxide on a dedicated thread. It runs each request to completion without yielding and handles
/// one request at a time, so on the caller's threads it would stall all other tasks.
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
            // The database is closed when its last clone is dropped. Tasks of the runtime hold
            // clones.
            drop(runtime);
            report.send(outcome).ok();
        })?;
        Ok(Self { address, stop, ended })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        (&mut self.ended).await.context("the database thread panicked")?
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
        clock.sleep_until(clock.now_ms() + SWEEP_INTERVAL_MS).await;
        let database = database.clone();
        // On another thread, because a sweep yields to the requests that wait on this thread.
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(deleted)) => tracing::debug!(deleted, "swept expired items"),
            Ok(Err(error)) => tracing::warn!(%error, "failed to sweep expired items"),
            Err(error) => tracing::warn!(%error, "sweep of expired items panicked"),
        }
    }
}
