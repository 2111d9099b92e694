//! The `spillway-bench` command: measures admission and the broker without an AWS account.
//!
//! It is not part of the `spillway` command, because operators do not need it.

mod goal;
mod ledger;
mod outage;
mod overflow;
mod overhead;
mod process;
mod utilisation;

use anyhow::bail;
use clap::Parser;
use spillway::{config::Config, telemetry};
use spillway_command::shutdown;

/// Measures what Spillway's algorithms cost, in virtual time, and what the broker adds to a call
#[derive(Debug, Parser)]
#[command(name = "spillway-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Simulate admission for 300 tenants in virtual time, and compare it with three alternatives
    Ledger(ledger::Args),
    /// Replay a trace in virtual time, and measure how much of it a provisioned pool serves
    Utilisation(utilisation::Args),
    /// Measure what the broker adds to a call, compared with the same call to the simulator itself
    Overhead(overhead::Args),
    /// Run outage drills: a region fails under load and returns
    Outage(outage::Args),
    /// Check that overflow loses no request and starves no tenant, and measure its cost
    Overflow(overflow::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    telemetry::init_logs(&Config::from_env()?);
    match Cli::parse().command {
        Command::Ledger(args) => ledger::run(&args),
        Command::Utilisation(args) => utilisation::run(&args),
        Command::Overhead(args) => until_signal(overhead::run(&args)).await,
        Command::Outage(args) => until_signal(outage::run(&args)).await,
        Command::Overflow(args) => until_signal(overflow::run(&args)).await,
    }
}

/// Runs `measurement` until it ends or a signal arrives. A signal also ends the processes that the
/// measurement started.
async fn until_signal(measurement: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut signals = shutdown::signals()?;
    tokio::select! {
        result = measurement => result,
        () = signals.recv() => bail!("interrupted"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_argument_clashes_with_another() {
        super::Cli::command().debug_assert();
    }
}
