//! `spillway health`: asks a broker on this machine whether it is alive, for containers without a
//! shell.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, Response};

/// Time limit for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Arguments of `spillway health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port of the broker
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
}

/// Asks the broker.
///
/// # Errors
/// Returns an error if no broker answers in time, or if it answers with an error.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{}/healthz", args.port);
    let client = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
    let answer = client.get(&url).send().await.and_then(Response::error_for_status);
    answer.with_context(|| format!("no broker is alive at {url}"))?;
    Ok(())
}
