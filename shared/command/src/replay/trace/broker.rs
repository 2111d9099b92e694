//! The broker as the load generator sees it: one shared HTTP client and what every request needs from it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Url;
use tokio::sync::Semaphore;

/// Enough to keep every job in view, few enough to leave the broker to its real work.
const POLLS_AT_ONCE: usize = 8;

/// Shared by all requests of a replay.
#[derive(Debug)]
pub struct Broker {
    pub http: reqwest::Client,
    pub url: Url,
    /// After this long a request that has not ended is an error.
    pub request_timeout: Duration,
    /// Holds how many jobs may be asked about at once.
    pub polls: Semaphore,
    open_jobs: AtomicUsize,
}

impl Broker {
    /// A client for the broker at `url`: HTTP/1.1, connections kept, no proxy, no retries, no redirects.
    ///
    /// # Errors
    /// If the URL cannot be used.
    pub fn new(url: &Url, request_timeout: Duration) -> anyhow::Result<Self> {
        ensure!(url.scheme() == "http", "{url}: only http is spoken here");
        let http = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(usize::MAX)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("spillway-replay/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot make an HTTP client")?;
        let polls = Semaphore::new(POLLS_AT_ONCE);
        Ok(Self { http, url: url.clone(), request_timeout, polls, open_jobs: AtomicUsize::new(0) })
    }

    /// Counts one more job as open until the guard is dropped.
    pub fn open_job(&self) -> OpenJob<'_> {
        self.open_jobs.fetch_add(1, Ordering::Relaxed);
        OpenJob(&self.open_jobs)
    }

    /// How many jobs are being waited for.
    pub fn open_jobs(&self) -> usize {
        self.open_jobs.load(Ordering::Relaxed)
    }
}

/// One job that is being waited for.
#[derive(Debug)]
pub struct OpenJob<'a>(&'a AtomicUsize);

impl Drop for OpenJob<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The kind of a transport error, in a few words.
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
