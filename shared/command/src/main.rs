//! The `spillway` command.

use std::time::Duration;

use clap::Parser;
use spillway::{config::Config, telemetry};
use spillway_command::{admin, allocator, health, local, replay, serve, stand_ins};

/// Request broker for Amazon Bedrock: tenants share an account, and bursts wait instead of failing
#[derive(Debug, Parser)]
#[command(name = "spillway", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the broker and simulated AWS services in this process, on loopback (the default)
    Local(local::Args),
    /// Run only the broker, with the AWS services that the environment selects
    Serve(serve::Args),
    /// Ask a broker on this machine whether it is alive
    Health(health::Args),
    /// Run only simulated DynamoDB, SQS, S3 and Bedrock Runtime, with empty Spillway tables, queues
    /// and bucket
    StandIns(stand_ins::Args),
    /// Send sample events through the Lambda handlers, or a traffic trace as HTTP load
    Replay(Box<replay::Args>),
    #[command(flatten)]
    Admin(admin::Admin),
}

/// Time for blocking work, such as a name look-up, to end with the process.
const BLOCKING_WORK_GRACE: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command.unwrap_or_else(|| Command::Local(local::Args::default()));
    if matches!(command, Command::Local(_) | Command::Serve(_)) {
        allocator::configure();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(command));
    runtime.shutdown_timeout(BLOCKING_WORK_GRACE);
    outcome
}

async fn run(command: Command) -> anyhow::Result<()> {
    let config = Config::from_env()?;
    // The DynamoDB stand-in logs a warning for every failed condition, which admission uses to
    // refuse.
    let log_filter = format!("{},dynoxide=error", config.log_filter);
    telemetry::init_logs(&Config { log_filter, ..config });
    match command {
        Command::Local(args) => local::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::StandIns(args) => stand_ins::run(args).await,
        Command::Replay(args) => replay::run(*args).await,
        Command::Admin(command) => admin::run(command).await,
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
