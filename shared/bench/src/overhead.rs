//! `spillway-bench overhead`: what the broker adds to a call, measured against the same call to the simulator itself.
//!
//! Broker and stand-ins are processes of their own on loopback, without TLS; DynamoDB's answers come from SQLite in memory
//! within a fraction of a millisecond. So what is measured is the broker's own work and its round trips on this machine,
//! not the time that AWS takes for them.

mod block;
mod call;
mod cell;
mod deployment;

use std::time::Duration;

use anyhow::ensure;
use call::Case;
use cell::{Cell, ROUNDS};
use deployment::Deployment;

use super::process;

/// How long to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the measurement takes in all, in seconds
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    pub seconds: u64,
}

/// The requests to AWS that one request may cost: tenant and pool are reserved and settled, and the model is called once.
/// Reads do not count: the registry is read again every two seconds, however many requests there are.
const MOST_ROUND_TRIPS: f64 = 5.0;

/// Measures every case and prints a row for each.
///
/// # Errors
/// A process does not start, a call fails, or a request costs too many round trips.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().http1_only().no_proxy().tcp_nodelay(true).build()?;
    let deployment = Deployment::start().await?;
    let cases = Case::all();
    // Each case has a quarter of a block twice to warm up.
    let blocks = cases.len() as f64 * (2.0 * ROUNDS as f64 + 0.5);
    let lasting = Duration::from_secs_f64(args.seconds as f64 / blocks);
    print_head(lasting);
    let mut over = Vec::new();
    for case in cases {
        let cell = Cell::measure(&client, &deployment, case, lasting).await?;
        print_row(&cell);
        over.extend((cell.round_trips() > MOST_ROUND_TRIPS).then(|| case.name()));
    }
    println!(
        "\nresident memory of the broker afterwards: {:.1} MiB",
        deployment.broker.resident_kib()? as f64 / 1024.0
    );
    ensure!(over.is_empty(), "more than {MOST_ROUND_TRIPS} round trips per request: {}", over.join("; "));
    println!("round trips per request: at most {MOST_ROUND_TRIPS}, ok");
    Ok(())
}

const NAME_WIDTH: usize = 28;

fn print_head(lasting: Duration) {
    let lasting_ms = lasting.as_millis();
    println!(
        "One request after the other on a kept connection, {ROUNDS} rounds of {lasting_ms} ms direct and {lasting_ms} ms"
    );
    println!(
        "through the broker. CPU is the mean over all rounds, in ticks of {} ms; times are medians over the",
        process::TICK_US / 1_000
    );
    println!("rounds of each round's own quantile, in microseconds. First byte: of the body.\n");
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

fn print_row(cell: &Cell) {
    print!("{:<NAME_WIDTH$}{:>12}", cell.case.name(), cell.requests());
    print!("{:>12.0}{:>12.0}", cell.broker_cpu_us(), cell.simulator_cpu_us());
    let times: [fn(&block::Block) -> f64; 3] =
        [|block| block.p50_us, |block| block.p99_us, |block| block.first_byte_p50_us];
    for (direct, added) in times.map(|figure| cell.direct_and_added(figure)) {
        print!("{direct:>12.0}{added:>12.0}");
    }
    println!("{:>12.3}{:>12}", cell.round_trips(), cell.reads());
}
