//! The parts of a process, constructed in one place.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_bedrockruntime::config::{Credentials, StalledStreamProtectionConfig};

use crate::{
    blobs::Blobs,
    body_memory::BodyMemory,
    clock::Clock,
    concurrency::ConcurrencyLimiter,
    config::{BedrockEndpoints, Config},
    connections::{CallerTimeouts, HttpClients, MAX_SILENT_TIME, ResendingClient},
    health::PoolHealth,
    idempotency::SharedCalls,
    model::{Models, RegionalEndpoints},
    outbound::Outbound,
    prompt_caches::PromptCaches,
    queue::Queue,
    store::{
        allowances::Allowances, backlogs::Backlogs, batches::Batches, clock_skew::ClockSkew, files::Files,
        history::Histories, idempotency::IdempotencyRecords, jobs::Jobs, ledger::Ledger, refusal_log::RefusalLog,
        registry::Registry, uploads::Uploads,
    },
    telemetry::{self, Telemetry},
};

/// The parts of a process. Clones share them.
#[derive(Clone)]
pub struct App {
    pub clock: Clock,
    pub registry: Registry,
    pub ledger: Ledger,
    pub histories: Histories,
    pub refusals: RefusalLog,
    pub allowances: Allowances,
    pub jobs: Jobs,
    pub backlogs: Backlogs,
    pub batches: Batches,
    pub files: Files,
    pub uploads: Uploads,
    /// Calls of this process that a retry can join.
    pub shared_calls: SharedCalls,
    /// Calls of all processes that a retry can join.
    pub idempotency_records: IdempotencyRecords,
    /// Queue of jobs. Without it, no request overflows.
    pub queue: Option<Queue>,
    /// Dead-letter queue for the messages of jobs that failed permanently.
    pub dead_letters: Option<Queue>,
    /// Queue of webhooks to deliver. Without it, no webhooks are sent.
    pub webhooks: Option<Queue>,
    /// HTTP client for the webhook endpoints of tenants.
    pub outbound: Outbound,
    /// Bucket for bodies that are too large for a row. Without it, requests with such bodies cannot
    /// overflow.
    pub blobs: Option<Blobs>,
    pub models: Models,
    /// Limits the calls that the jobs of this process make.
    pub concurrency: ConcurrencyLimiter,
    /// Health of the pools.
    pub health: PoolHealth,
    /// The pools that have conversations in their prompt caches.
    pub prompt_caches: PromptCaches,
    /// Bounds the memory of the bodies that this process holds.
    pub body_memory: BodyMemory,
    pub telemetry: Telemetry,
    /// Prefix of every API path; empty for none.
    pub path_prefix: Arc<str>,
}

/// Endpoints of the services, where they are not the default endpoints.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub dynamodb: String,
    pub sqs: String,
    pub s3: String,
    pub bedrock_runtime: String,
}

/// Timeout of an attempt to read or write the registry or a job, while a caller waits for it. The
/// SDK retries, which is safe for all of these writes, so a connection that died costs a caller a
/// part of its patience.
const STORE_ATTEMPT_FOR_CALLER: Duration = Duration::from_secs(1);

/// The same timeout while no caller waits.
const STORE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of all attempts together, while no caller waits. A silent store must not block a job
/// slot of the drain.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause before the SDK retries an operation of DynamoDB or S3; it doubles. A pooled connection
/// that died meanwhile should cost a caller little.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Timeout of a queue operation while a caller waits. The job of a message that is not sent is
/// stored, and the sweep sends the message.
const QUEUE_TIMEOUT_FOR_CALLER: Duration = Duration::from_millis(1_500);

/// Timeout of one attempt at a queue operation while no caller waits. A receive has a longer one,
/// because of its long poll.
const QUEUE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of all attempts at a queue operation together, while no caller waits.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time to connect to Bedrock. To the farthest region, TCP and TLS take less than a second. After
/// it, the call goes to the next pool.
const MODEL_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Loads the AWS configuration from the environment: region, credentials and `AWS_ENDPOINT_URL_…`.
pub async fn aws() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::latest()).await
}

/// Returns an AWS configuration for services on loopback. They accept any region and credentials,
/// and no call waits for a metadata service.
pub async fn loopback() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "loopback"))
        .load()
        .await
}

/// Clients of the services. They are cheap to create: each connects on first use.
pub struct Clients {
    /// For the registry and the jobs. The SDK may retry.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For the ledger. The SDK must not retry, because `ADD` is not idempotent. The timeout is
    /// short, because callers wait for these writes.
    pub ledger: ResendingClient<aws_sdk_dynamodb::Client>,
    /// For calls that a retry can join. These writes are idempotent, and callers wait for them.
    pub idempotency: aws_sdk_dynamodb::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub s3: aws_sdk_s3::Client,
    /// For the models. The SDK must not retry, nor send a stalled request again: each call may be
    /// billed.
    pub bedrock_runtime: ResendingClient<aws_sdk_bedrockruntime::Client>,
    /// Clock skew, measured by DynamoDB's replies.
    pub skew: ClockSkew,
    /// The clock that the replies are compared with.
    pub clock: Clock,
    /// Region of this process, if it is known.
    pub region: Option<String>,
}

impl Clients {
    /// Creates clients for `aws`, at `endpoints` if given. Calls of models go to the endpoints of
    /// their regions in `regions`. The clients share their connections.
    ///
    /// # Errors
    /// Returns an error if the HTTP clients cannot be created.
    pub fn new(aws: &SdkConfig, endpoints: Option<&Endpoints>, regions: BedrockEndpoints) -> anyhow::Result<Self> {
        let clock = Clock::default();
        let http = HttpClients::new(&clock)?;
        let aws = &aws.to_builder().http_client(http.pooled.clone()).build();
        let skew = ClockSkew::new(clock.clone());
        let timeouts = |operation, attempt| {
            TimeoutConfig::builder().operation_timeout(operation).operation_attempt_timeout(attempt).build()
        };
        let for_caller = |operation, attempt| CallerTimeouts { operation, attempt };
        let retries = RetryConfig::standard().with_initial_backoff(RETRY_PAUSE);
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(aws)
            .interceptor(skew.clone())
            .interceptor(for_caller(MAX_SILENT_TIME, STORE_ATTEMPT_FOR_CALLER))
            .retry_config(retries.clone())
            .timeout_config(timeouts(STORE_TIMEOUT, STORE_ATTEMPT_TIMEOUT));
        let mut sqs = aws_sdk_sqs::config::Builder::from(aws)
            .interceptor(for_caller(QUEUE_TIMEOUT_FOR_CALLER, QUEUE_TIMEOUT_FOR_CALLER))
            .timeout_config(timeouts(QUEUE_TIMEOUT, QUEUE_ATTEMPT_TIMEOUT));
        let mut s3 = aws_sdk_s3::config::Builder::from(aws).retry_config(retries);
        let connect = TimeoutConfig::builder().connect_timeout(MODEL_CONNECT_TIMEOUT).build();
        let mut bedrock_runtime = aws_sdk_bedrockruntime::config::Builder::from(aws)
            .timeout_config(connect)
            .endpoint_resolver(RegionalEndpoints::new(regions))
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoints) = endpoints {
            dynamodb = dynamodb.endpoint_url(&endpoints.dynamodb);
            sqs = sqs.endpoint_url(&endpoints.sqs);
            // On loopback, buckets have no host names.
            s3 = s3.endpoint_url(&endpoints.s3).force_path_style(true);
            bedrock_runtime = bedrock_runtime.endpoint_url(&endpoints.bedrock_runtime);
        }
        // Callers wait for these writes, also if a task makes one write for several callers.
        let idempotency = dynamodb.clone().timeout_config(timeouts(MAX_SILENT_TIME, STORE_ATTEMPT_FOR_CALLER));
        let ledger = dynamodb.clone().timeout_config(timeouts(MAX_SILENT_TIME, MAX_SILENT_TIME));
        let ledger = ledger.retry_config(RetryConfig::disabled());
        let ledger = |http| aws_sdk_dynamodb::Client::from_conf(ledger.clone().http_client(http).build());
        let bedrock_runtime =
            |http| aws_sdk_bedrockruntime::Client::from_conf(bedrock_runtime.clone().http_client(http).build());
        Ok(Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            ledger: ResendingClient::new(&http, ledger),
            idempotency: aws_sdk_dynamodb::Client::from_conf(idempotency.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            bedrock_runtime: ResendingClient::new(&http, bedrock_runtime),
            skew,
            clock,
            region: aws.region().map(|region| region.as_ref().to_owned()),
        })
    }
}

impl App {
    /// Creates the parts.
    pub fn new(config: &Config, clients: Clients, telemetry: Telemetry) -> Self {
        let clock = clients.clock;
        let queue = |url: &Option<String>| url.as_deref().map(|url| Queue::new(clients.sqs.clone(), url));
        let blobs = config.bucket.as_deref().map(|bucket| Blobs::new(clients.s3, bucket));
        let registry =
            Registry::new(clients.dynamodb.clone(), &config.registry_table, config.registry_cache_ttl, clock.clone());
        let registry = registry.in_region(clients.region.as_deref());
        let [backlogs, batches, files, uploads] = [(); 4].map(|()| clients.dynamodb.clone());
        let jobs = Jobs::new(clients.dynamodb, &config.jobs_table, blobs.clone());
        let webhooks = queue(&config.webhook_queue_url);
        Self {
            jobs: if webhooks.is_some() { jobs.with_webhooks(registry.clone()) } else { jobs },
            registry,
            histories: Histories::new(clients.ledger.clone(), &config.ledger_table, clock.clone()),
            allowances: Allowances::new(
                clients.ledger.clone(),
                &config.ledger_table,
                clock.clone(),
                clients.skew.clone(),
            ),
            refusals: RefusalLog::new(clients.ledger.clone(), &config.ledger_table, clock.clone()),
            idempotency_records: IdempotencyRecords::new(clients.idempotency, &config.jobs_table),
            ledger: Ledger::new(clients.ledger, &config.ledger_table, clock.clone(), clients.skew),
            shared_calls: SharedCalls::new(clock.clone()),
            backlogs: Backlogs::new(backlogs, &config.jobs_table),
            batches: Batches::new(batches, &config.jobs_table),
            files: Files::new(files, &config.jobs_table),
            uploads: Uploads::new(uploads, &config.jobs_table),
            queue: queue(&config.queue_url),
            dead_letters: queue(&config.dead_letter_queue_url),
            webhooks,
            outbound: Outbound::new(config.webhook_ports.clone()),
            blobs,
            models: Models::new(clients.bedrock_runtime),
            concurrency: ConcurrencyLimiter::new(clock.clone()),
            health: PoolHealth::new(clock.clone()),
            prompt_caches: PromptCaches::new(clock.clone()),
            body_memory: BodyMemory::new(config.body_memory_mib),
            telemetry,
            path_prefix: config.path_prefix.as_str().into(),
            clock,
        }
    }

    /// Returns the name of the bucket, if there is one. No request may name it.
    pub fn own_bucket(&self) -> Option<&str> {
        self.blobs.as_ref().map(Blobs::bucket)
    }

    /// Creates the app from the environment, with events on stdout and logs on stderr.
    ///
    /// # Errors
    /// Returns an error if a variable has an invalid value or the clients cannot be created.
    pub async fn from_env() -> anyhow::Result<Self> {
        let config = Config::from_env().context("reading the environment")?;
        telemetry::init_logs(&config);
        let telemetry = Telemetry::new(&config.metric_namespace, std::io::stdout());
        Ok(Self::new(&config, Clients::new(&aws().await, None, config.bedrock_endpoints.clone())?, telemetry))
    }
}
