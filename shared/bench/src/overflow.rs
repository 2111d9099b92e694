//! `spillway-bench overflow`: what overflows is not lost, starves nobody, stands in nobody's way – and what it costs.
//!
//! Broker and stand-ins are processes of their own on loopback, and time is real.

mod chaos;
mod client;
mod deployment;
mod efficiency;
mod fairness;
mod figures;
mod interactive;
mod request;
mod settings;
mod watched;

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Run jobs through throttles, errors, cut streams, killed drains, skewed clocks and a failing store and queue, and
    /// account for every job and every token
    Chaos(chaos::Args),
    /// Measure how long small tenants wait beside one that floods the queue, and alone
    Fairness(fairness::Args),
    /// Measure synchronous calls beside a full queue and an empty one
    Interactive(interactive::Args),
    /// Count Lambda's milliseconds and the requests to AWS for each finished job
    Efficiency(efficiency::Args),
}

/// Shows what `args` name and prints it.
///
/// # Errors
/// A goal is missed, or something cannot be measured.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Chaos(args) => chaos::run(args).await,
        What::Fairness(args) => fairness::run(args).await,
        What::Interactive(args) => interactive::run(args).await,
        What::Efficiency(args) => efficiency::run(args).await,
    }
}
