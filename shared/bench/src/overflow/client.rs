//! The API, as a client of it sees it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header;
use serde_json::Value;
use spillway_command::replay::trace::answer::{Reader, Usage};

use super::{request::Request, settings::key};

/// A client of one broker. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is a job of this id.
    Accepted(String),
    /// It was answered at once, and took so many tokens.
    Answered(Option<Usage>),
    /// It was refused, or failed, with this status.
    Refused(u16),
    /// Nobody knows: the answer broke off, or there was none.
    Lost,
}

/// An answer that was kept.
#[derive(Debug, Clone)]
pub struct Kept {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
}

/// A page of jobs.
struct Page {
    ids: Vec<String>,
    /// Where the next one begins, unless this was the last.
    next_after: Option<String>,
}

/// Jobs on a page.
const PAGE: usize = 100;

/// How long a request may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// A client of the broker at `url`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().http1_only().no_proxy().tcp_nodelay(true).timeout(PATIENCE).build()?;
        Ok(Self { http, url: url.to_owned() })
    }

    /// Sends `request`; one that `can_wait` may become a job.
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

    /// `GET /v1/jobs/{id}`.
    ///
    /// # Errors
    /// There is no such job, or no answer.
    pub async fn job(&self, tenant: &str, id: &str) -> anyhow::Result<Value> {
        self.get(tenant, &format!("/v1/jobs/{id}")).await
    }

    /// `GET /v1/jobs/{id}/result`; `None` if there is none.
    ///
    /// # Errors
    /// There is no answer to this.
    pub async fn result(&self, tenant: &str, id: &str) -> anyhow::Result<Option<Kept>> {
        let url = format!("{}/v1/jobs/{id}/result", self.url);
        let response = self.http.get(url).bearer_auth(key(tenant)).send().await?;
        let (status, content_type) = (response.status().as_u16(), content_type(&response));
        let kept = Kept { status, content_type, body: response.bytes().await? };
        Ok(Some(kept).filter(|kept| kept.status != 409))
    }

    /// `DELETE /v1/jobs/{id}`; whether the job is taken back.
    pub async fn cancel(&self, tenant: &str, id: &str) -> bool {
        let request = self.http.delete(format!("{}/v1/jobs/{id}", self.url)).bearer_auth(key(tenant));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// The ids of all jobs of a tenant that have one of these statuses (a list with commas).
    ///
    /// # Errors
    /// A page cannot be read.
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

    /// Whether a tenant has a job that has not ended.
    ///
    /// # Errors
    /// The list cannot be read.
    pub async fn has_open_jobs(&self, tenant: &str) -> anyhow::Result<bool> {
        let mut after = None;
        loop {
            // A page may be empty and not the last: the broker looks at so many jobs and no more for each.
            let page = self.page(tenant, "queued,running", after.as_deref()).await?;
            after = page.next_after;
            if !page.ids.is_empty() || after.is_none() {
                return Ok(!page.ids.is_empty());
            }
        }
    }

    async fn page(&self, tenant: &str, statuses: &str, after: Option<&str>) -> anyhow::Result<Page> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let page = self.get(tenant, &format!("/v1/jobs?limit={PAGE}&status={statuses}{after}")).await?;
        let jobs = page["data"].as_array().context("a page without data")?;
        Ok(Page {
            ids: jobs.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect(),
            next_after: page["next_after"].as_str().map(str::to_owned),
        })
    }

    /// Waits until none of `tenants` has an open job.
    ///
    /// # Errors
    /// It takes longer than `longest`, or a list cannot be read.
    pub async fn settle(&self, tenants: &[String], longest: Duration) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        for tenant in tenants {
            // The store may be told to fail now and then.
            while self.has_open_jobs(tenant).await.unwrap_or(true) {
                if began.elapsed() > longest {
                    bail!("after {} s, {tenant} still has open jobs", longest.as_secs());
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
        ensure!(status.is_success(), "GET {path} answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }
}

impl Kept {
    /// The tokens that the answer says it took.
    ///
    /// # Errors
    /// It is not a complete answer.
    pub fn usage(self) -> Result<Option<Usage>, String> {
        usage(&self.content_type, self.body).ok_or_else(|| "unreadable".to_owned())
    }
}

fn content_type(response: &reqwest::Response) -> String {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// `None` if the answer is not complete.
fn usage(content_type: &str, body: Bytes) -> Option<Option<Usage>> {
    let mut reader = Reader::new(content_type);
    reader.push(body);
    reader.finish().ok()
}
