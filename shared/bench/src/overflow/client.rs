//! Client of the broker's API.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header;
use serde_json::Value;
use spillway_command::replay::trace::answer::{Reader, Usage};

use super::{request::Request, settings::key};

/// Client of a broker. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// Result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It became a job with this ID.
    Accepted(String),
    /// It was answered directly, with this usage.
    Answered(Option<Usage>),
    /// It was refused or failed with this status.
    Refused(u16),
    /// Its result is unknown: the response broke off or is missing.
    Lost,
}

/// Stored response of a job.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
}

/// A page of jobs.
struct Page {
    ids: Vec<String>,
    /// Cursor of the next page; `None` on the last page.
    next_after: Option<String>,
}

/// Number of jobs on a page.
const PAGE_SIZE: usize = 100;

/// Time after which a request counts as lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Creates a client of the broker at `url`.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be created.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let http =
            reqwest::Client::builder().http1_only().no_proxy().tcp_nodelay(true).timeout(REQUEST_TIMEOUT).build()?;
        Ok(Self { http, url: url.to_owned() })
    }

    /// Sends `request`. With `can_wait` it may become a job.
    pub async fn send(&self, tenant: &str, request: &Request, can_wait: bool) -> Sent {
        let post = self.http.post(format!("{}{}", self.url, request.path())).bearer_auth(key(tenant));
        let post = if can_wait { post.header("prefer", "respond-async") } else { post };
        let Ok(response) = post.json(&request.body()).send().await else { return Sent::Lost };
        let status = response.status().as_u16();
        let content_type = content_type(&response);
        let Ok(body) = response.bytes().await else { return Sent::Lost };
        match status {
            200 => usage(&content_type, body).map_or(Sent::Lost, Sent::Answered),
            202 => {
                match serde_json::from_slice::<Value>(&body).ok().and_then(|job| Some(job["id"].as_str()?.to_owned())) {
                    Some(id) => Sent::Accepted(id),
                    None => Sent::Lost,
                }
            }
            status => Sent::Refused(status),
        }
    }

    /// Sends `GET /v1/jobs/{id}`.
    ///
    /// # Errors
    /// Returns an error if the job does not exist or the broker is unavailable.
    pub async fn job(&self, tenant: &str, id: &str) -> anyhow::Result<Value> {
        self.get(tenant, &format!("/v1/jobs/{id}")).await
    }

    /// Sends `GET /v1/jobs/{id}/result`. Returns `None` if the job has no result.
    ///
    /// # Errors
    /// Returns an error if the broker is unavailable.
    pub async fn result(&self, tenant: &str, id: &str) -> anyhow::Result<Option<StoredResponse>> {
        let url = format!("{}/v1/jobs/{id}/result", self.url);
        let response = self.http.get(url).bearer_auth(key(tenant)).send().await?;
        let (status, content_type) = (response.status().as_u16(), content_type(&response));
        let stored = StoredResponse { status, content_type, body: response.bytes().await? };
        Ok(Some(stored).filter(|stored| stored.status != 409))
    }

    /// Sends `DELETE /v1/jobs/{id}`. Returns whether the job was cancelled.
    pub async fn cancel(&self, tenant: &str, id: &str) -> bool {
        let request = self.http.delete(format!("{}/v1/jobs/{id}", self.url)).bearer_auth(key(tenant));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// Returns the IDs of all jobs of a tenant with one of `statuses` (separated by commas).
    ///
    /// # Errors
    /// Returns an error if a page cannot be read.
    pub async fn list(&self, tenant: &str, statuses: &str) -> anyhow::Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self.page(tenant, statuses, after.as_deref()).await?;
            for id in page.ids {
                ensure!(ids.insert(id), "a job is on two pages");
            }
            after = page.next_after;
            if after.is_none() {
                return Ok(ids);
            }
        }
    }

    /// Returns whether a tenant has an unfinished job.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read.
    pub async fn has_open_jobs(&self, tenant: &str) -> anyhow::Result<bool> {
        let mut after = None;
        loop {
            // A page may be empty without being the last, because the broker reads a limited number
            // of jobs per page.
            let page = self.page(tenant, "queued,running", after.as_deref()).await?;
            after = page.next_after;
            if !page.ids.is_empty() || after.is_none() {
                return Ok(!page.ids.is_empty());
            }
        }
    }

    async fn page(&self, tenant: &str, statuses: &str, after: Option<&str>) -> anyhow::Result<Page> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let page = self.get(tenant, &format!("/v1/jobs?limit={PAGE_SIZE}&status={statuses}{after}")).await?;
        let jobs = page["data"].as_array().context("a page has no data")?;
        Ok(Page {
            ids: jobs.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect(),
            next_after: page["next_after"].as_str().map(str::to_owned),
        })
    }

    /// Waits until none of `tenants` has an unfinished job.
    ///
    /// # Errors
    /// Returns an error after `timeout`.
    pub async fn settle(&self, tenants: &[String], timeout: Duration) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        for tenant in tenants {
            // A list can fail because of injected faults.
            while self.has_open_jobs(tenant).await.unwrap_or(true) {
                if began.elapsed() > timeout {
                    bail!("{tenant} still has unfinished jobs after {} s", timeout.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    async fn get(&self, tenant: &str, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(key(tenant)).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(status.is_success(), "GET {path} returned {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }
}

impl StoredResponse {
    /// Returns the usage that the response reports.
    ///
    /// # Errors
    /// Returns an error if the response is not complete.
    pub fn usage(self) -> Result<Option<Usage>, String> {
        usage(&self.content_type, self.body).ok_or_else(|| "unreadable".to_owned())
    }
}

fn content_type(response: &reqwest::Response) -> String {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Reads the usage of a response. Returns `None` if the response is not complete.
fn usage(content_type: &str, body: Bytes) -> Option<Option<Usage>> {
    let mut reader = Reader::new(content_type);
    reader.push(body);
    reader.finish().ok()
}
