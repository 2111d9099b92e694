//! Jobs and a batch that wait through an outage.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::deployment::Deployment;

/// Number of background responses.
const JOBS: usize = 20;

/// Number of lines of the batch.
const LINES: usize = 20;

/// Time after the end of an outage in which all jobs must end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Jobs that were accepted.
pub struct Jobs {
    http: reqwest::Client,
    url: String,
    key: String,
    responses: Vec<String>,
    batch: String,
}

/// How the jobs ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobsEnded {
    pub succeeded: usize,
    pub failed: usize,
    /// Jobs that have not ended in time.
    pub open: usize,
}

impl JobsEnded {
    /// Returns the sum.
    pub fn plus(self, added: Self) -> Self {
        Self {
            succeeded: self.succeeded + added.succeeded,
            failed: self.failed + added.failed,
            open: self.open + added.open,
        }
    }
}

impl Jobs {
    /// Sends background responses and a batch.
    ///
    /// # Errors
    /// Returns an error if a job is refused.
    pub async fn submit(deployment: &Deployment) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().http1_only().no_proxy().timeout(PATIENCE).build()?;
        let url = deployment.brokers.first().context("a broker")?.url.clone();
        let mut jobs = Self { http, url, key: deployment.key.clone(), responses: Vec::new(), batch: String::new() };
        for number in 0..JOBS {
            let input = format!("[[output_tokens=50]] job {number}");
            let body = json!({ "model": "m", "background": true, "input": input, "max_output_tokens": 80 });
            jobs.responses.push(jobs.post("/v1/responses", &body).await?);
        }
        jobs.batch = jobs.submit_batch().await?;
        Ok(jobs)
    }

    async fn submit_batch(&self) -> anyhow::Result<String> {
        let line = |number: usize| {
            let content = format!("[[output_tokens=50]] line {number}");
            let params =
                json!({ "model": "m", "max_tokens": 80, "messages": [{ "role": "user", "content": content }] });
            json!({ "custom_id": number.to_string(), "params": params })
        };
        let body = json!({ "requests": (0..LINES).map(line).collect::<Vec<_>>() });
        self.post("/v1/messages/batches", &body).await
    }

    /// Waits until all jobs have ended.
    ///
    /// # Errors
    /// Returns an error if the broker is unavailable.
    pub async fn settle(self) -> anyhow::Result<JobsEnded> {
        let began = Instant::now();
        loop {
            let ended = self.look().await?;
            if ended.open == 0 || began.elapsed() > PATIENCE {
                return Ok(ended);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(&self) -> anyhow::Result<JobsEnded> {
        let mut ended = JobsEnded::default();
        for id in &self.responses {
            match self.get(&format!("/v1/responses/{id}")).await?["status"].as_str() {
                Some("completed") => ended.succeeded += 1,
                Some("queued" | "in_progress") => ended.open += 1,
                _ => ended.failed += 1,
            }
        }
        let batch = self.get(&format!("/v1/messages/batches/{}", self.batch)).await?;
        let count = |name: &str| batch["request_counts"][name].as_u64().and_then(|count| usize::try_from(count).ok());
        let succeeded = count("succeeded").unwrap_or_default();
        match batch["processing_status"].as_str() {
            Some("ended") => {
                ended.succeeded += succeeded;
                ended.failed += LINES - succeeded;
            }
            _ => ended.open += LINES,
        }
        Ok(ended)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let response = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key).json(body).send().await?;
        let (status, answer) = (response.status(), response.bytes().await?);
        ensure!(status.is_success(), "POST {path} returned {status}: {}", String::from_utf8_lossy(&answer));
        let answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["id"].as_str().context("no id")?.to_owned())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await?;
        Ok(serde_json::from_slice(&response.error_for_status()?.bytes().await?)?)
    }
}
