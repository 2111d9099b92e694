//! A block of sequential requests on a kept connection, for a given time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use http::header;

use super::call::Call;
use crate::process::Process;

/// Figures of a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Number of requests.
    pub requests: u64,
    /// CPU time of the serving process, in microseconds.
    pub cpu_us: u64,
    /// Median time to the last byte, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the time to the last byte, in microseconds.
    pub p99_us: f64,
    /// Median time to the first byte of the body, in microseconds.
    pub first_byte_p50_us: f64,
}

/// Sends `call` repeatedly for `duration`, at least once. `process` is the serving process.
///
/// # Errors
/// Returns an error if a response is not successful or breaks off.
pub async fn run(
    client: &reqwest::Client,
    call: &Call,
    process: &Process,
    duration: Duration,
) -> anyhow::Result<Block> {
    let (mut firsts, mut wholes) = (Vec::new(), Vec::new());
    let cpu_before_us = process.cpu_us()?;
    let began = Instant::now();
    while wholes.is_empty() || began.elapsed() < duration {
        let (first, whole) = send(client, call).await?;
        firsts.push(first);
        wholes.push(whole);
    }
    Ok(Block {
        requests: wholes.len() as u64,
        cpu_us: process.cpu_us()? - cpu_before_us,
        p50_us: quantile_us(&mut wholes, 0.5),
        p99_us: quantile_us(&mut wholes, 0.99),
        first_byte_p50_us: quantile_us(&mut firsts, 0.5),
    })
}

/// Sends `call`. Returns the times to the first and to the last byte of the response body.
async fn send(client: &reqwest::Client, call: &Call) -> anyhow::Result<(Duration, Duration)> {
    let sent = Instant::now();
    let mut response = client
        .post(&call.url)
        .header("x-amz-security-token", &call.key)
        .header(header::CONTENT_TYPE, "application/json")
        .body(call.body.clone())
        .send()
        .await?;
    ensure!(response.status().is_success(), "{} returned {}", call.url, response.status());
    let mut first = None;
    while response.chunk().await?.is_some() {
        first.get_or_insert_with(|| sent.elapsed());
    }
    let whole = sent.elapsed();
    Ok((first.unwrap_or(whole), whole))
}

fn quantile_us(times: &mut [Duration], quantile: f64) -> f64 {
    times.sort_unstable();
    let rank = (quantile * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_smallest_time_that_its_share_does_not_exceed() {
        let mut times: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile_us(&mut times, 0.5), 100.0);
        assert_eq!(quantile_us(&mut times, 0.99), 198.0);
        assert_eq!(quantile_us(&mut [Duration::from_micros(7)], 0.99), 7.0);
    }
}
