//! `spillway-bench overhead`: measures what the broker adds to a call, compared with the same call
//! to the simulator.
//!
//! The broker and the stand-ins are separate processes on loopback, without TLS. The DynamoDB
//! stand-in responds from SQLite in memory within a fraction of a millisecond. So the figures cover
//! the broker's work and its round trips on this machine, but not the time that AWS takes for the
//! round trips.

mod block;
mod call;
mod comparison;
mod deployment;

use std::time::Duration;

use anyhow::ensure;
use call::Case;
use comparison::{Comparison, ROUNDS};
use deployment::Deployment;

use super::process;

/// Arguments of `spillway-bench overhead`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Total time of the measurement in seconds
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub seconds: u64,
}

/// Maximum round trips to AWS per request: the tenant and the pool are each reserved and settled,
/// and the model is called. Reads do not count: the registry is read every two seconds,
/// regardless of the number of requests.
const MAX_ROUND_TRIPS: f64 = 5.0;

/// Measures every case and prints a row for each.
///
/// # Errors
/// Returns an error if a process does not start, a call fails, or a request costs too many round
/// trips.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().http1_only().no_proxy().tcp_nodelay(true).build()?;
    let deployment = Deployment::start().await?;
    let cases = Case::every();
    // Each case has two warm-up blocks of a quarter of the length.
    let blocks = cases.len() as f64 * (2.0 * ROUNDS as f64 + 0.5);
    let duration = Duration::from_secs_f64(args.seconds as f64 / blocks);
    print_header(duration);
    let mut over = Vec::new();
    for case in cases {
        let comparison = Comparison::measure(&client, &deployment, case, duration).await?;
        print_row(&comparison);
        over.extend((comparison.round_trips() > MAX_ROUND_TRIPS).then(|| case.name()));
    }
    println!(
        "\nresident memory of the broker afterwards: {:.1} MiB",
        deployment.broker.resident_kib()? as f64 / 1024.0
    );
    ensure!(over.is_empty(), "more than {MAX_ROUND_TRIPS} round trips per request: {}", over.join("; "));
    println!("round trips per request: at most {MAX_ROUND_TRIPS}, ok");
    Ok(())
}

const NAME_WIDTH: usize = 28;

fn print_header(duration: Duration) {
    let duration_ms = duration.as_millis();
    println!(
        "Sequential requests on a kept connection, {ROUNDS} rounds of {duration_ms} ms direct and {duration_ms} ms"
    );
    println!(
        "through the broker. CPU is the mean over all rounds, in ticks of {} ms. Times are medians over the",
        process::TICK_US / 1_000
    );
    println!("rounds of the quantile of each round, in microseconds. First byte: of the body.\n");
    let columns = [
        "requests",
        "broker CPU",
        "direct CPU",
        "p50",
        "added",
        "p99",
        "added",
        "first byte",
        "added",
        "round trips",
        "reads",
    ];
    print!("{:<NAME_WIDTH$}", "");
    columns.iter().for_each(|name| print!("{name:>12}"));
    println!();
}

fn print_row(comparison: &Comparison) {
    print!("{:<NAME_WIDTH$}{:>12}", comparison.case.name(), comparison.requests());
    print!("{:>12.0}{:>12.0}", comparison.broker_cpu_us(), comparison.simulator_cpu_us());
    let times: [fn(&block::Block) -> f64; 3] =
        [|block| block.p50_us, |block| block.p99_us, |block| block.first_byte_p50_us];
    for (direct, added) in times.map(|figure| comparison.direct_and_added(figure)) {
        print!("{direct:>12.0}{added:>12.0}");
    }
    println!("{:>12.3}{:>12}", comparison.round_trips(), comparison.reads());
}
