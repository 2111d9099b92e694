//! `spillway stand-ins`: DynamoDB, SQS, S3 and Bedrock Runtime without an AWS account.

use std::path::PathBuf;

use spillway_stand_ins::{Options, StandIns};

use crate::{settings::Settings, shutdown, world};

/// Arguments of `spillway stand-ins`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for state that survives a restart; without it, state is kept in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// File whose tables [simulator] and [queue_faults] set the behaviour of models and queues
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Port of DynamoDB; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    dynamodb_port: u16,
    /// Port of SQS; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    sqs_port: u16,
    /// Port of S3; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    s3_port: u16,
    /// Port of Bedrock Runtime; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 0)]
    bedrock_port: u16,
}

/// Runs the stand-ins until Ctrl-C or SIGTERM. Prints export lines for a shell that point the AWS
/// SDKs to the stand-ins.
///
/// # Errors
/// Returns an error if the configuration cannot be read or the stand-ins cannot start.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.config.as_deref().map(|file| Settings::read(Some(file))).transpose()?;
    let (simulator, queue_faults) =
        settings.map(|settings| (settings.simulator, settings.queue_faults)).unwrap_or_default();
    // Listens before the first line is printed: a process that waits for the line may send a signal
    // immediately.
    let mut signals = shutdown::signals()?;
    let ports = [args.dynamodb_port, args.sqs_port, args.bedrock_port, args.s3_port];
    let options = Options { data: args.data, simulator, queue_faults, ports, ..Options::default() };
    let stand_ins = StandIns::start(options).await?;
    let (config, ..) = world::provision(&stand_ins).await?;
    world::print_environment(&stand_ins, &config);
    signals.recv().await;
    stand_ins.stop().await;
    Ok(())
}
