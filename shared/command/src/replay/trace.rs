//! Trace mode: sends a traffic trace as HTTP load and reports the outcome of every request.

mod accounts;
pub mod answer;
mod broker;
mod exchange;
mod jobs;
mod keys;
mod load;
mod options;
mod plan;
mod progress;
mod report;
mod request;
pub mod rows;
mod tally;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::sync::mpsc;

use accounts::{Accounts, Baseline};
use broker::Broker;
use keys::Keys;
pub use options::LoadArgs;
use plan::Planned;
use report::Report;
use tally::Tally;

/// Replays the trace in `file` and prints the report.
///
/// # Errors
/// Returns an error if the trace, the keys or the initial token counts cannot be read, or if the
/// replay finds a fault: a lost request, or token counts that differ.
pub async fn run(file: &Path, args: &LoadArgs) -> anyhow::Result<()> {
    let report = replay(file, args).await?;
    if let Some(path) = &args.report {
        let json = serde_json::to_vec_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    std::io::stdout().write_all(report.to_string().as_bytes())?;
    match report.fault() {
        Some(fault) => Err(anyhow::anyhow!(fault)),
        None => Ok(()),
    }
}

async fn replay(file: &Path, args: &LoadArgs) -> anyhow::Result<Report> {
    let keys = match &args.keys {
        Some(path) => Keys::read_file(path)?,
        None => Keys::demo()?,
    };
    let rows = rows::read_file(file, args.limit.unwrap_or(usize::MAX))?;
    let planned = plan::plan(&rows, &keys, args)?;
    drop(rows);
    let broker = Arc::new(Broker::new(&args.url, args.request_timeout)?);
    let baseline = match &args.simulator {
        Some(simulator) => Some(Baseline::read(&broker, &keys, simulator).await?),
        None => None,
    };
    let started = Instant::now();
    let tally = send_all(Arc::clone(&broker), planned, args).await?;
    let duration = started.elapsed();
    let accounts = match baseline {
        Some(baseline) => baseline.compare(args.settle_timeout).await,
        None => Accounts::NotCompared,
    };
    Ok(Report::new(file.display().to_string(), args.url.to_string(), args.speed, duration, &tally, accounts))
}

async fn send_all(broker: Arc<Broker>, planned: Vec<Planned>, args: &LoadArgs) -> anyhow::Result<Tally> {
    let bar = progress::bar(planned.len());
    let (events, mut received) = mpsc::unbounded_channel();
    let load = tokio::spawn(load::run(broker, planned, args.max_in_flight, args.drain_timeout, events));
    let mut tally = Tally::new();
    while let Some(event) = received.recv().await {
        tally.record(event);
        progress::show(&bar, &tally);
    }
    bar.finish_and_clear();
    load.await.context("the load generator stopped early")?;
    Ok(tally)
}
