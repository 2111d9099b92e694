//! Callers of the brokers: calls and streams in every dialect, one after the other.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use reqwest::Response;
use spillway_command::replay::trace::answer::Reader;
use tokio::task::JoinHandle;

use super::deployment::Deployment;
use crate::overflow::request::Request;

/// Pauses of a caller before its requests, in milliseconds. They are random, so that the callers do
/// not send their requests at the same time.
const PAUSES_MS: RangeInclusive<u64> = 0..=800;

/// Time after which a request counts as lost.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Output tokens of each answer.
const OUTPUT_TOKENS: u64 = 50;

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Index of the broker.
    pub broker: usize,
    pub began: Instant,
    pub ended: Instant,
    /// Id of the request, if it got a response.
    pub request_id: Option<String>,
    pub outcome: Outcome,
}

/// What a caller got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer, from this pool.
    Answered { pool: String },
    /// An error, or an answer that broke off with one.
    Failed { status: u16 },
    /// No response.
    Lost,
}

impl Ended {
    /// Duration of the request.
    pub fn duration(&self) -> Duration {
        self.ended - self.began
    }

    /// Whether the caller has a whole answer.
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answered { .. })
    }

    /// Whether this pool answered.
    pub fn is_from(&self, pool: &str) -> bool {
        matches!(&self.outcome, Outcome::Answered { pool: from } if from == pool)
    }
}

/// Callers that send requests until they are stopped.
pub struct Callers {
    ended: Arc<Mutex<Vec<Ended>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Starts `count` callers of each broker.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be created.
    pub fn start(deployment: &Deployment, count: u64) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().http1_only().no_proxy().tcp_nodelay(true).timeout(TIMEOUT).build()?;
        let (ended, stop, numbers) =
            (Arc::<Mutex<Vec<Ended>>>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = Vec::new();
        for (broker, url) in deployment.brokers.iter().map(|broker| broker.url.clone()).enumerate() {
            for _ in 0..count {
                let caller = Caller { http: http.clone(), url: url.clone(), key: deployment.key.clone(), broker };
                let (ended, stop, numbers) = (Arc::clone(&ended), Arc::clone(&stop), Arc::clone(&numbers));
                tasks.push(tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSES_MS))).await;
                        let sent = caller.send(numbers.fetch_add(1, Ordering::Relaxed)).await;
                        ended.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
                    }
                }));
            }
        }
        Ok(Self { ended, stop, tasks })
    }

    /// Returns the requests that have ended so far.
    pub fn ended(&self) -> Vec<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the requests in progress, and returns all requests.
    pub async fn stop(mut self) -> Vec<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        join_all(self.tasks.drain(..)).await;
        self.ended()
    }
}

struct Caller {
    http: reqwest::Client,
    url: String,
    key: String,
    broker: usize,
}

impl Caller {
    async fn send(&self, number: u64) -> Ended {
        let request = Request::mixed(number, &["m"], format!("request {number}"), OUTPUT_TOKENS);
        let began = Instant::now();
        let post = self.http.post(format!("{}{}", self.url, request.path())).bearer_auth(&self.key);
        let (request_id, outcome) = match post.json(&request.body()).send().await {
            Ok(response) => (request_id(&response), Self::outcome(response).await.unwrap_or(Outcome::Lost)),
            Err(_) => (None, Outcome::Lost),
        };
        Ended { broker: self.broker, began, ended: Instant::now(), request_id, outcome }
    }

    async fn outcome(response: Response) -> reqwest::Result<Outcome> {
        let status = response.status().as_u16();
        let header = |name| header(&response, name).unwrap_or_default();
        let (pool, content_type) = (header("x-spillway-pool"), header(CONTENT_TYPE.as_str()));
        let mut reader = Reader::new(&content_type);
        reader.push(response.bytes().await?);
        let is_whole = status == 200 && reader.finish().is_ok();
        Ok(if is_whole { Outcome::Answered { pool } } else { Outcome::Failed { status } })
    }
}

/// Returns the id that the broker gave the request, in the header of its API.
fn request_id(response: &Response) -> Option<String> {
    ["x-request-id", "request-id", "x-amzn-requestid"].into_iter().find_map(|name| header(response, name))
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}
