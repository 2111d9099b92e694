//! Compares the tokens that the broker settled with those that the simulator served.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::header;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::broker::Broker;
use super::keys::Keys;

const READ_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

/// Tokens by one side's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// What the comparison showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Accounts {
    /// Both sides counted the same.
    Agree { broker: Tokens, simulator: Tokens },
    /// They did not, even after some time.
    Differ { broker: Tokens, simulator: Tokens },
    /// One of the accounts could not be read at the end.
    Unreadable { reason: String },
    /// There is no simulator to compare with.
    NotCompared,
}

/// Both accounts as they stood before the replay.
#[derive(Debug)]
pub struct Books<'a> {
    broker: &'a Broker,
    keys: &'a Keys,
    simulator: Url,
    before: (Tokens, Tokens),
}

impl<'a> Books<'a> {
    /// Reads both accounts.
    ///
    /// # Errors
    /// If one of them cannot be read, which is better known before the replay than after it.
    pub async fn open(broker: &'a Broker, keys: &'a Keys, simulator: &Url) -> anyhow::Result<Self> {
        let mut books = Self { broker, keys, simulator: simulator.clone(), before: Default::default() };
        books.before = books.read().await?;
        Ok(books)
    }

    /// Reads both accounts again until they agree, or `patience` ends: the last settlements follow the last answers.
    pub async fn close(&self, patience: Duration) -> Accounts {
        let started = Instant::now();
        loop {
            let accounts = match self.since_opened().await {
                Ok((broker, simulator)) if broker == simulator => return Accounts::Agree { broker, simulator },
                Ok((broker, simulator)) => Accounts::Differ { broker, simulator },
                Err(error) => Accounts::Unreadable { reason: format!("{error:#}") },
            };
            if started.elapsed() >= patience {
                return accounts;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn since_opened(&self) -> anyhow::Result<(Tokens, Tokens)> {
        let after = self.read().await?;
        let broker = since(self.before.0, after.0).context("the broker lost its account during the replay")?;
        let simulator = since(self.before.1, after.1).context("the simulator lost its account during the replay")?;
        Ok((broker, simulator))
    }

    async fn read(&self) -> anyhow::Result<(Tokens, Tokens)> {
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
        // Two keys of one tenant show the same account, which counts once.
        let mut per_tenant = BTreeMap::new();
        for (tenant, authorization) in self.keys.all() {
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
            .with_context(|| format!("the simulator's account at {url}"))?;
        Ok(stats.total)
    }
}

async fn read_json<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> anyhow::Result<T> {
    let response = request.timeout(READ_TIMEOUT).send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    ensure!(status.is_success(), "answered {status}");
    Ok(response.json().await.map_err(reqwest::Error::without_url)?)
}

/// What was added since `before`; `None` if there is less than there was.
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
    fn an_account_that_shrank_is_no_account() {
        let tokens = |input_tokens, output_tokens| Tokens { input_tokens, output_tokens };
        assert_eq!(since(tokens(5, 5), tokens(7, 5)), Some(tokens(2, 0)));
        assert_eq!(since(tokens(5, 5), tokens(7, 4)), None);
    }
}
