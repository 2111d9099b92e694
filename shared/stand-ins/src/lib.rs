//! DynamoDB, SQS, S3 and Bedrock Runtime on the wire, close enough for the unmodified AWS SDKs.
//!
//! No code here depends on Spillway, so the two cannot share a mistake. Each service has its own
//! loopback listener; [`StandIns`] runs all four.

pub mod bedrock;
pub mod browser;
pub mod clock;
mod connections;
pub mod dynamodb;
pub mod faults;
mod request_counts;
pub mod s3;
pub mod sqs;

use std::{
    fs::{DirBuilder, File, TryLockError},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use clock::Clock;
use faults::Faults;

/// Time that the services may take to open their state and accept requests.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of connections of a burst that wait until they are accepted.
const MAX_WAITING_CONNECTIONS: u32 = 4_096;

/// Settings of the four stand-ins.
#[derive(Clone, Default)]
pub struct Options {
    /// Clock that all four services share.
    pub clock: Clock,
    /// Directory of all state; created if missing. One process can use it at a time. In memory if
    /// absent.
    pub data: Option<PathBuf>,
    /// Behaviour of the simulated models.
    pub simulator: bedrock::Simulator,
    /// Faults to inject into SQS.
    pub queue_faults: sqs::DeliveryFaults,
    /// Ports of DynamoDB, SQS, Bedrock Runtime and S3; 0 for any free port.
    pub ports: [u16; 4],
}

/// The four running services. Dropping them stops them immediately; [`StandIns::stop`] lets
/// requests in flight finish.
pub struct StandIns {
    addresses: [SocketAddr; 4],
    dynamodb_faults: Faults,
    s3_faults: Faults,
    sqs_faults: Faults,
    services: JoinSet<anyhow::Result<()>>,
    shutdown: DropGuard,
    _lock: Option<File>,
}

impl StandIns {
    /// Starts the services. All of them accept requests when this returns.
    ///
    /// # Errors
    /// Returns an error if a port is taken, or if the state in `data` cannot be opened or is in use
    /// by another process.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let lock = options.data.as_deref().map(lock_directory).transpose()?;
        let [dynamodb, sqs, bedrock, s3] =
            [bind(options.ports[0])?, bind(options.ports[1])?, bind(options.ports[2])?, bind(options.ports[3])?];
        let addresses = [dynamodb.local_addr()?, sqs.local_addr()?, bedrock.local_addr()?, s3.local_addr()?];
        let shutdown = CancellationToken::new();
        let [dynamodb_faults, s3_faults, sqs_faults] = [(); 3].map(|()| Faults::default());
        let Options { clock, data, simulator, queue_faults, .. } = options;
        let mut services = JoinSet::new();
        services.spawn(dynamodb::serve(
            dynamodb,
            dynamodb::Options { clock: clock.clone(), data: data.clone(), faults: dynamodb_faults.clone() },
            shutdown.clone(),
        ));
        services.spawn(sqs::serve(
            sqs,
            sqs::Options {
                clock: clock.clone(),
                data: data.clone(),
                faults: queue_faults,
                request_faults: sqs_faults.clone(),
            },
            shutdown.clone(),
        ));
        services.spawn(s3::serve(
            s3,
            s3::Options { clock: clock.clone(), data, faults: s3_faults.clone() },
            shutdown.clone(),
        ));
        services.spawn(bedrock::serve(bedrock, bedrock::Options { clock, simulator }, shutdown.clone()));
        let shutdown = shutdown.drop_guard();
        let mut started = Self { addresses, dynamodb_faults, s3_faults, sqs_faults, services, shutdown, _lock: lock };
        started.wait_until_ready().await?;
        Ok(started)
    }

    /// Returns the environment variables that point an AWS SDK or the AWS CLI to the stand-ins.
    pub fn endpoints(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb_url()),
            ("AWS_ENDPOINT_URL_SQS", self.sqs_url()),
            ("AWS_ENDPOINT_URL_S3", self.s3_url()),
            ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", self.bedrock_url()),
        ]
    }

    /// Returns the URL of DynamoDB.
    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// Returns the URL of SQS.
    pub fn sqs_url(&self) -> String {
        format!("http://{}", self.addresses[1])
    }

    /// Returns the URL of S3.
    pub fn s3_url(&self) -> String {
        format!("http://{}", self.addresses[3])
    }

    /// Returns the URL of Bedrock Runtime.
    pub fn bedrock_url(&self) -> String {
        format!("http://{}", self.addresses[2])
    }

    /// Returns the request counters and the injected faults of DynamoDB.
    pub fn dynamodb_faults(&self) -> &Faults {
        &self.dynamodb_faults
    }

    /// Returns the request counters and the injected faults of S3.
    pub fn s3_faults(&self) -> &Faults {
        &self.s3_faults
    }

    /// Returns the injected faults of SQS that strike requests.
    pub fn sqs_faults(&self) -> &Faults {
        &self.sqs_faults
    }

    /// Stops the services after the requests in flight. All state is on disk when this returns.
    pub async fn stop(mut self) {
        self.shutdown.disarm().cancel();
        while let Some(ended) = self.services.join_next().await {
            if let Err(error) = ended.map_err(anyhow::Error::from).flatten() {
                tracing::error!(error = format!("{error:#}"), "stand-in failed");
            }
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let probes = async {
            for address in self.addresses {
                // A service that closed the connection reports the reason when its task ends.
                while probe(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(START_TIMEOUT, probes) => answered.context("a stand-in does not respond"),
            Some(ended) = self.services.join_next() => {
                ended??;
                bail!("a stand-in stopped during its start")
            }
        }
    }
}

fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
        socket.listen(MAX_WAITING_CONNECTIONS)
    };
    listen().with_context(|| format!("cannot listen on port {port}"))
}

/// Sends a request without side effects and waits for the first byte of any response.
async fn probe(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /_sim/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    stream.read_u8().await?;
    Ok(())
}

/// Creates a directory that only this user can read, unless it exists.
fn create_private_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Creates the data directory and locks it until the returned file is closed. Only this user can
/// read the directory, because it holds prompts.
fn lock_directory(directory: &Path) -> anyhow::Result<File> {
    let context = || format!("cannot use the directory {}", directory.display());
    create_private_directory(directory).with_context(context)?;
    let lock = directory.join("stand-ins.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(lock).with_context(context)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("{} is in use by another process", directory.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(context),
    }
}
