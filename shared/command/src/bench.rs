//! `spillway bench`: what the algorithms cost, measured without a cloud.

mod ledger;

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
}

/// Measures what `args` name and prints it.
///
/// # Errors
/// If a goal is missed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Ledger(args) => ledger::run(args),
    }
}
