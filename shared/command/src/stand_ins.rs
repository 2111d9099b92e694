//! `spillway stand-ins`: DynamoDB, SQS, S3 and Bedrock Runtime without an AWS account.

use std::path::PathBuf;

use spillway_stand_ins::{Options, StandIns};

use crate::{settings::Settings, shutdown, world};

/// Where the stand-ins keep their state, how they behave and where they listen.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the state in this directory; in memory when absent
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Take the behaviour of models and queues from the tables [simulator] and [queue_faults] of this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The port of DynamoDB; 0 for any
    #[arg(long, value_name = "N", default_value_t = 0)]
    dynamodb_port: u16,
    /// The port of SQS; 0 for any
    #[arg(long, value_name = "N", default_value_t = 0)]
    sqs_port: u16,
    /// The port of S3; 0 for any
    #[arg(long, value_name = "N", default_value_t = 0)]
    s3_port: u16,
    /// The port of Bedrock Runtime; 0 for any
    #[arg(long, value_name = "N", default_value_t = 0)]
    bedrock_port: u16,
}

/// Runs the stand-ins until Ctrl-C or SIGTERM. What it prints can be pasted into a shell to lead the AWS SDKs here.
///
/// # Errors
/// The configuration cannot be read, or the stand-ins cannot start.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.config.as_deref().map(|file| Settings::read(Some(file))).transpose()?;
    let (simulator, queue_faults) =
        settings.map(|settings| (settings.simulator, settings.queue_faults)).unwrap_or_default();
    // Before the first line is printed, so that whoever waits for it can already stop this gracefully.
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
