//! DynamoDB, SQS, S3 and Bedrock Runtime on the wire, close enough for the unmodified AWS SDKs.
//!
//! Nothing here depends on Spillway, so that both cannot share a mistake. Each service has a loopback listener of its
//! own; [`StandIns`] runs all four.

pub mod bedrock;
pub mod clock;
mod connections;
mod counts;
pub mod dynamodb;
pub mod faults;
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
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use clock::Clock;
use faults::Faults;

/// How long the services may take to open their state and answer.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What the stand-ins are to be like.
#[derive(Clone, Default)]
pub struct Options {
    pub clock: Clock,
    /// The directory of all state, made if need be and used by one process at a time; in memory when absent.
    pub data: Option<PathBuf>,
    pub simulator: bedrock::Simulator,
    /// What goes wrong in SQS on purpose.
    pub queue_faults: sqs::Faults,
    /// The ports of DynamoDB, SQS, Bedrock Runtime and S3; 0 for any.
    pub ports: [u16; 4],
}

/// The four running services. Dropping them stops them at once; [`StandIns::stop`] lets them finish.
pub struct StandIns {
    addresses: [SocketAddr; 4],
    dynamodb_faults: Faults,
    s3_faults: Faults,
    services: JoinSet<anyhow::Result<()>>,
    shutdown: DropGuard,
    _claim: Option<File>,
}

impl StandIns {
    /// Starts the services; each one answers when this returns.
    ///
    /// # Errors
    /// A port is taken, or the state in `data` cannot be opened or is in use by another process.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let claim = options.data.as_deref().map(claim).transpose()?;
        let [dynamodb, sqs, bedrock, s3] = [
            bind(options.ports[0]).await?,
            bind(options.ports[1]).await?,
            bind(options.ports[2]).await?,
            bind(options.ports[3]).await?,
        ];
        let addresses = [dynamodb.local_addr()?, sqs.local_addr()?, bedrock.local_addr()?, s3.local_addr()?];
        let shutdown = CancellationToken::new();
        let (dynamodb_faults, s3_faults) = (Faults::default(), Faults::default());
        let Options { clock, data, simulator, queue_faults, .. } = options;
        let mut services = JoinSet::new();
        services.spawn(dynamodb::serve(
            dynamodb,
            dynamodb::Options { clock: clock.clone(), data: data.clone(), faults: dynamodb_faults.clone() },
            shutdown.clone(),
        ));
        services.spawn(sqs::serve(
            sqs,
            sqs::Options { clock: clock.clone(), data: data.clone(), faults: queue_faults },
            shutdown.clone(),
        ));
        services.spawn(s3::serve(
            s3,
            s3::Options { clock: clock.clone(), data, faults: s3_faults.clone() },
            shutdown.clone(),
        ));
        services.spawn(bedrock::serve(bedrock, bedrock::Options { clock, simulator }, shutdown.clone()));
        let mut started =
            Self { addresses, dynamodb_faults, s3_faults, services, shutdown: shutdown.drop_guard(), _claim: claim };
        started.ready().await?;
        Ok(started)
    }

    /// The environment variables that lead an AWS SDK, or the AWS CLI, here.
    pub fn endpoints(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb_url()),
            ("AWS_ENDPOINT_URL_SQS", self.sqs_url()),
            ("AWS_ENDPOINT_URL_S3", self.s3_url()),
            ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", self.bedrock_url()),
        ]
    }

    pub fn dynamodb_url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    pub fn sqs_url(&self) -> String {
        format!("http://{}", self.addresses[1])
    }

    pub fn s3_url(&self) -> String {
        format!("http://{}", self.addresses[3])
    }

    pub fn bedrock_url(&self) -> String {
        format!("http://{}", self.addresses[2])
    }

    /// Counts DynamoDB's requests and makes some of them fail.
    pub fn dynamodb_faults(&self) -> &Faults {
        &self.dynamodb_faults
    }

    /// The same for S3.
    pub fn s3_faults(&self) -> &Faults {
        &self.s3_faults
    }

    /// Lets the requests in flight finish; all state is on disk when this returns.
    pub async fn stop(mut self) {
        self.shutdown.disarm().cancel();
        while let Some(ended) = self.services.join_next().await {
            if let Err(error) = ended.map_err(anyhow::Error::from).flatten() {
                tracing::error!("a stand-in ended badly: {error:#}");
            }
        }
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let answers = async {
            for address in self.addresses {
                // Why a service cut the connection, its own end will tell.
                while ask(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(START_WITHIN, answers) => answered.context("a stand-in does not answer"),
            Some(ended) = self.services.join_next() => {
                ended??;
                bail!("a stand-in ended at its start")
            }
        }
    }
}

async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("cannot listen on port {port}"))
}

/// Waits for an answer to a request that changes nothing, whatever the answer is.
async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /_sim/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    stream.read_u8().await?;
    Ok(())
}

/// Makes the directory, unless it is there, for this user only.
fn private_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Makes the directory, readable to this user only because prompts are in it, and locks it until the file is closed.
fn claim(directory: &Path) -> anyhow::Result<File> {
    let named = || format!("cannot use the directory {}", directory.display());
    private_directory(directory).with_context(named)?;
    let lock = directory.join("stand-ins.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(lock).with_context(named)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!("{} is in use by another process", directory.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(named),
    }
}
