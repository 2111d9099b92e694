//! Everything a process needs, put together once: the only constructor.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_bedrockruntime::config::{Credentials, StalledStreamProtectionConfig};

use crate::{
    blobs::Blobs,
    clock::Clock,
    concurrency::ConcurrencyLimiter,
    config::Config,
    idempotency::Recordings,
    model::Models,
    outbound::Outbound,
    queue::Queue,
    store::{
        batches::Batches, clock_skew::ClockSkew, files::Files, history::Histories, idempotency::Answers, jobs::Jobs,
        ledger::Ledger, refusal_log::RefusalLog, registry::Registry,
    },
    telemetry::{self, Telemetry},
};

/// The broker's parts. Clones share them.
#[derive(Clone)]
pub struct App {
    pub clock: Clock,
    pub registry: Registry,
    pub ledger: Ledger,
    pub histories: Histories,
    pub refusals: RefusalLog,
    pub jobs: Jobs,
    pub batches: Batches,
    pub files: Files,
    /// The calls that a repetition can join, in this process.
    pub recordings: Recordings,
    /// The same across processes.
    pub answers: Answers,
    /// Without a queue nothing overflows.
    pub queue: Option<Queue>,
    /// Where the messages of jobs go that failed for good.
    pub dead_letters: Option<Queue>,
    /// The queue of webhooks to deliver; without one nobody is told that a job has ended.
    pub webhooks: Option<Queue>,
    /// The client for the endpoints of tenants.
    pub outbound: Outbound,
    /// Without a bucket, bodies that are too large for a row cannot wait.
    pub blobs: Option<Blobs>,
    pub models: Models,
    /// Limits the calls that the jobs of this process make.
    pub concurrency: ConcurrencyLimiter,
    pub telemetry: Telemetry,
    /// What stands before every path of the API; empty means nothing does.
    pub path_prefix: Arc<str>,
}

/// Where the services are, when the environment does not say it.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub dynamodb: String,
    pub sqs: String,
    pub s3: String,
    pub bedrock_runtime: String,
}

/// How long one ledger write may take. A request that waits longer is worth less than the answer that there is a problem.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one attempt to read or write the registry or a job may take. Without a bound, a connection that went silent would
/// hold its caller, or one of the drain's places, for ever. The SDK tries again, which every such write allows.
const STORE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for the queue, where a receive may rightly wait for 20 seconds.
const QUEUE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for the bucket, whose largest objects take a while.
const BUCKET_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// AWS as the environment describes it: region, credentials and `AWS_ENDPOINT_URL_…`.
pub async fn aws() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::latest()).await
}

/// AWS as it answers on loopback: any region and credentials will do, and nothing may wait for a metadata service.
pub async fn loopback() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "loopback"))
        .load()
        .await
}

/// The clients of the services. They are cheap: each connects when it is first used.
pub struct Clients {
    /// For the registry and the jobs: the SDK may retry.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For the ledger: the SDK must not retry, since `ADD` is not idempotent. Nor may an answer wait long for its row.
    pub ledger: aws_sdk_dynamodb::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    /// The SDK must not retry, nor re-send what stalls: each call may be billed.
    pub bedrock_runtime: aws_sdk_bedrockruntime::Client,
    /// What DynamoDB's replies say of the clock.
    pub skew: ClockSkew,
    /// The clock that they are compared with.
    pub clock: Clock,
}

impl Clients {
    /// Clients for `aws`, at `endpoints` where given.
    pub fn new(aws: &SdkConfig, endpoints: Option<&Endpoints>) -> Self {
        let clock = Clock::default();
        let skew = ClockSkew::new(clock.clone());
        let attempt = |timeout| TimeoutConfig::builder().operation_attempt_timeout(timeout).build();
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(aws)
            .interceptor(skew.clone())
            .timeout_config(attempt(STORE_ATTEMPT_TIMEOUT));
        let mut sqs = aws_sdk_sqs::config::Builder::from(aws).timeout_config(attempt(QUEUE_ATTEMPT_TIMEOUT));
        let mut s3 = aws_sdk_s3::config::Builder::from(aws).timeout_config(attempt(BUCKET_ATTEMPT_TIMEOUT));
        let mut bedrock_runtime = aws_sdk_bedrockruntime::config::Builder::from(aws)
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoints) = endpoints {
            dynamodb = dynamodb.endpoint_url(&endpoints.dynamodb);
            sqs = sqs.endpoint_url(&endpoints.sqs);
            // Buckets have no host names of their own on loopback.
            s3 = s3.endpoint_url(&endpoints.s3).force_path_style(true);
            bedrock_runtime = bedrock_runtime.endpoint_url(&endpoints.bedrock_runtime);
        }
        let ledger = dynamodb
            .clone()
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(LEDGER_TIMEOUT).build());
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            ledger: aws_sdk_dynamodb::Client::from_conf(ledger.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            bedrock_runtime: aws_sdk_bedrockruntime::Client::from_conf(bedrock_runtime.build()),
            skew,
            clock,
        }
    }
}

impl App {
    /// Puts the parts together.
    pub fn new(config: &Config, clients: Clients, telemetry: Telemetry) -> Self {
        let clock = clients.clock;
        let queue = |url: &Option<String>| url.as_deref().map(|url| Queue::new(clients.sqs.clone(), url));
        let blobs = config.bucket.as_deref().map(|bucket| Blobs::new(clients.s3, bucket));
        let registry =
            Registry::new(clients.dynamodb.clone(), &config.registry_table, config.registry_cache_ms, clock.clone());
        let (batches, files) = (clients.dynamodb.clone(), clients.dynamodb.clone());
        let jobs = Jobs::new(clients.dynamodb, &config.jobs_table, blobs.clone());
        let webhooks = queue(&config.webhook_queue_url);
        Self {
            jobs: if webhooks.is_some() { jobs.announced_by(registry.clone()) } else { jobs },
            registry,
            histories: Histories::new(clients.ledger.clone(), &config.ledger_table, clock.clone()),
            refusals: RefusalLog::new(clients.ledger.clone(), &config.ledger_table, clock.clone()),
            answers: Answers::new(clients.ledger.clone(), &config.jobs_table),
            ledger: Ledger::new(clients.ledger, &config.ledger_table, clock.clone(), clients.skew),
            recordings: Recordings::new(clock.clone()),
            batches: Batches::new(batches, &config.jobs_table),
            files: Files::new(files, &config.jobs_table),
            queue: queue(&config.queue_url),
            dead_letters: queue(&config.dead_letter_queue_url),
            webhooks,
            outbound: Outbound::default(),
            blobs,
            models: Models::new(clients.bedrock_runtime),
            concurrency: ConcurrencyLimiter::new(clock.clone()),
            telemetry,
            path_prefix: config.path_prefix.as_str().into(),
            clock,
        }
    }

    /// The app that the environment describes, with events on stdout and logs on stderr.
    ///
    /// # Errors
    /// A variable has a value that cannot be used.
    pub async fn from_env() -> anyhow::Result<Self> {
        let config = Config::from_env().context("reading the environment")?;
        telemetry::init_logs(&config);
        Ok(Self::new(&config, Clients::new(&aws().await, None), Telemetry::stdout()))
    }
}
