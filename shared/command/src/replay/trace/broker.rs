//! HTTP client for the broker, shared by all requests of a replay.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Url;
use tokio::sync::Semaphore;

/// Number of concurrent polls: enough to follow every job, but few enough to leave the broker free
/// for the load.
const POLL_CONCURRENCY: usize = 8;

/// Client of the broker.
#[derive(Debug)]
pub struct Broker {
    pub http: reqwest::Client,
    pub url: Url,
    /// Time after which an unfinished request counts as an error.
    pub request_timeout: Duration,
    /// Limits concurrent polls.
    pub polls: Semaphore,
    open_jobs: AtomicUsize,
}

impl Broker {
    /// Creates a client for the broker at `url`: HTTP/1.1, keep-alive, no proxy, no retries, no
    /// redirects.
    ///
    /// # Errors
    /// Returns an error if the URL is not an `http` URL.
    pub fn new(url: &Url, request_timeout: Duration) -> anyhow::Result<Self> {
        ensure!(url.scheme() == "http", "{url}: must be an http URL");
        let http = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(usize::MAX)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("spillway-replay/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot create an HTTP client")?;
        let polls = Semaphore::new(POLL_CONCURRENCY);
        Ok(Self { http, url: url.clone(), request_timeout, polls, open_jobs: AtomicUsize::new(0) })
    }

    /// Counts a job as open until the guard is dropped.
    pub fn open_job(&self) -> OpenJob<'_> {
        self.open_jobs.fetch_add(1, Ordering::Relaxed);
        OpenJob(&self.open_jobs)
    }

    /// Number of open jobs.
    pub fn open_jobs(&self) -> usize {
        self.open_jobs.load(Ordering::Relaxed)
    }
}

/// Guard of an open job.
#[derive(Debug)]
pub struct OpenJob<'a>(&'a AtomicUsize);

impl Drop for OpenJob<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the kind of a transport error, in a few words.
pub fn transport_kind(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "connection broke"
    };
    kind.to_owned()
}
