//! `spillway replay`: sends sample events through the Lambda handlers, or a traffic trace as HTTP
//! load.

pub mod events;
pub mod trace;

use std::path::PathBuf;

/// Arguments of `spillway replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Event file, or directory of event files, to send through the Lambda handlers
    #[arg(value_name = "PATH", required_unless_present = "trace", conflicts_with = "trace")]
    pub path: Option<PathBuf>,

    /// Print the response body of each event
    #[arg(long)]
    pub bodies: bool,

    /// Traffic trace (CSV or CSV.gz) to send as HTTP load
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Options for a trace.
    #[command(flatten)]
    pub load: trace::LoadArgs,
}

/// Replays events or a trace.
///
/// # Errors
/// Returns an error if the input cannot be read, the broker is unavailable, or the replay finds a
/// fault: a lost request, or a difference between the tokens of the broker and of the simulator.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match (args.trace, args.path) {
        (Some(file), _) => trace::run(&file, &args.load).await,
        (None, Some(path)) => events::run(&path, args.bodies).await,
        (None, None) => anyhow::bail!("give a file or a directory of events, or --trace FILE"),
    }
}
