//! Compares the tokens that the broker settled with the tokens that the simulator served.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::header;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::broker::Broker;
use super::keys::Keys;

const READ_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// Token counts of the broker or of the simulator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// Result of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Accounts {
    /// The counts are equal.
    Agree { broker: Tokens, simulator: Tokens },
    /// The counts differ, even after some time.
    Differ { broker: Tokens, simulator: Tokens },
    /// A count could not be read at the end.
    Unreadable { reason: String },
    /// No simulator was given to compare with.
    NotCompared,
}

/// Token counts before the replay.
#[derive(Debug)]
pub struct Baseline<'a> {
    broker: &'a Broker,
    keys: &'a Keys,
    simulator: Url,
    before: (Tokens, Tokens),
}

impl<'a> Baseline<'a> {
    /// Reads the counts of the broker and of the simulator.
    ///
    /// # Errors
    /// Returns an error if a count cannot be read, so that the user learns of it before the replay.
    pub async fn read(broker: &'a Broker, keys: &'a Keys, simulator: &Url) -> anyhow::Result<Self> {
        let mut baseline = Self { broker, keys, simulator: simulator.clone(), before: Default::default() };
        baseline.before = baseline.read_both().await?;
        Ok(baseline)
    }

    /// Reads the counts again until they agree or `timeout` is over: the last settlements follow
    /// the last responses.
    pub async fn compare(&self, timeout: Duration) -> Accounts {
        let started = Instant::now();
        loop {
            let accounts = match self.difference().await {
                Ok((broker, simulator)) if broker == simulator => return Accounts::Agree { broker, simulator },
                Ok((broker, simulator)) => Accounts::Differ { broker, simulator },
                Err(error) => Accounts::Unreadable { reason: format!("{error:#}") },
            };
            if started.elapsed() >= timeout {
                return accounts;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn difference(&self) -> anyhow::Result<(Tokens, Tokens)> {
        let after = self.read_both().await?;
        let broker = since(self.before.0, after.0).context("the broker's token counts decreased during the replay")?;
        let simulator =
            since(self.before.1, after.1).context("the simulator's token counts decreased during the replay")?;
        Ok((broker, simulator))
    }

    async fn read_both(&self) -> anyhow::Result<(Tokens, Tokens)> {
        Ok((self.read_broker().await?, self.read_simulator().await?))
    }

    async fn read_broker(&self) -> anyhow::Result<Tokens> {
        #[derive(Deserialize)]
        struct Quota {
            tenant: String,
            settled: Tokens,
        }
        let mut url = self.broker.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "quota"]);
        }
        // Two keys of the same tenant report the same counts, which must be added only once.
        let mut per_tenant = BTreeMap::new();
        for (tenant, authorization) in self.keys.entries() {
            let request = self.broker.http.get(url.clone()).header(header::AUTHORIZATION, authorization.clone());
            let quota: Quota = read_json(request).await.with_context(|| format!("the quota of {tenant} at {url}"))?;
            per_tenant.insert(quota.tenant, quota.settled);
        }
        Ok(per_tenant.into_values().fold(Tokens::default(), |sum, tokens| Tokens {
            input_tokens: sum.input_tokens.saturating_add(tokens.input_tokens),
            output_tokens: sum.output_tokens.saturating_add(tokens.output_tokens),
        }))
    }

    async fn read_simulator(&self) -> anyhow::Result<Tokens> {
        #[derive(Deserialize)]
        struct Stats {
            total: Tokens,
        }
        let mut url = self.simulator.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["_sim", "stats"]);
        }
        let stats: Stats = read_json(self.broker.http.get(url.clone()))
            .await
            .with_context(|| format!("the simulator's token counts at {url}"))?;
        Ok(stats.total)
    }
}

async fn read_json<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let response = request.timeout(READ_TIMEOUT).send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    ensure!(status.is_success(), "the status is {status}");
    Ok(response.json().await.map_err(reqwest::Error::without_url)?)
}

/// Returns the increase since `before`; `None` if a count decreased.
fn since(before: Tokens, after: Tokens) -> Option<Tokens> {
    Some(Tokens {
        input_tokens: after.input_tokens.checked_sub(before.input_tokens)?,
        output_tokens: after.output_tokens.checked_sub(before.output_tokens)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_decreased_gives_no_difference() {
        let tokens = |input_tokens, output_tokens| Tokens { input_tokens, output_tokens };
        assert_eq!(since(tokens(5, 5), tokens(7, 5)), Some(tokens(2, 0)));
        assert_eq!(since(tokens(5, 5), tokens(7, 4)), None);
    }
}
