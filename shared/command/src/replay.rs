//! `spillway replay`: recorded events through the real handlers, or a traffic trace as real HTTP load.

pub mod events;
pub mod trace;

use std::path::PathBuf;

/// What to replay, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Event file, or directory of event files, to send through the real handlers.
    #[arg(value_name = "PATH", required_unless_present = "trace", conflicts_with = "trace")]
    pub path: Option<PathBuf>,

    /// Print what each event was answered, too.
    #[arg(long)]
    pub bodies: bool,

    /// Traffic trace (CSV or CSV.gz) to send as real HTTP load.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// How the trace is sent.
    #[command(flatten)]
    pub load: trace::LoadArgs,
}

/// Replays what `args` name.
///
/// # Errors
/// If the input cannot be read, the broker cannot be reached, or the replay shows a fault: a lost request, or tokens
/// on which the broker and the simulator differ.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match (args.trace, args.path) {
        (Some(file), _) => trace::run(&file, &args.load).await,
        (None, Some(path)) => events::run(&path, args.bodies).await,
        (None, None) => anyhow::bail!("give a file or a directory of events, or --trace FILE"),
    }
}
