//! `spillway-bench overflow`: checks that overflow loses no request, starves no tenant and does not
//! slow synchronous calls, and measures its cost.
//!
//! The broker and the stand-ins are separate processes on loopback, and time is real.

mod backlog;
mod chaos;
mod client;
mod deployment;
mod efficiency;
mod fairness;
mod figures;
mod interactive;
mod output;
pub mod request;
mod settings;

/// Arguments of `spillway-bench overflow`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    check: Check,
}

#[derive(Debug, clap::Subcommand)]
enum Check {
    /// Run jobs despite throttling, errors, cut streams, failing pools, killed drains, skewed
    /// clocks, and a failing store and queue, and account for every job and every token
    Chaos(chaos::Args),
    /// Measure how long small tenants wait while another tenant floods the queue, and without it
    Fairness(fairness::Args),
    /// Measure synchronous calls while the queue is full, and while it is empty
    Interactive(interactive::Args),
    /// Measure Lambda time and requests to AWS per job
    Efficiency(efficiency::Args),
    /// Measure what the backlog of a tenant costs that has reached its own limit
    Backlog(backlog::Args),
}

/// Runs a check and prints its figures.
///
/// # Errors
/// Returns an error if a goal is missed or a measurement fails.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    match &args.check {
        Check::Chaos(args) => chaos::run(args).await,
        Check::Fairness(args) => fairness::run(args).await,
        Check::Interactive(args) => interactive::run(args).await,
        Check::Efficiency(args) => efficiency::run(args).await,
        Check::Backlog(args) => backlog::run(args).await,
    }
}
