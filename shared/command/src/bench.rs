//! `spillway bench`: what the algorithms and the broker cost, measured without a cloud.

mod ledger;
mod overflow;
mod overhead;
mod process;

use anyhow::bail;

use crate::shutdown;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Simulate admission for 300 tenants in virtual time, ours beside three alternatives
    Ledger(ledger::Args),
    /// Measure what the broker adds to a call, beside the same call to the simulator itself
    Overhead(overhead::Args),
    /// Show that what overflows is neither lost nor starved, nor in the way of others, and what it costs
    Overflow(overflow::Args),
}

/// Measures what `args` name and prints it.
///
/// # Errors
/// If a goal is missed, something cannot be measured, or this process is asked to stop.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Ledger(args) => ledger::run(args),
        What::Overhead(args) => until_asked_to_stop(overhead::run(args)).await,
        What::Overflow(args) => until_asked_to_stop(overflow::run(args)).await,
    }
}

/// What `measured` gives. A signal ends it and with it the processes that it has started.
async fn until_asked_to_stop(measured: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut signals = shutdown::signals()?;
    tokio::select! {
        measured = measured => measured,
        () = signals.recv() => bail!("interrupted"),
    }
}
