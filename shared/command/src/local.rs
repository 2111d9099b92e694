//! `spillway local`: a whole deployment in one process, without an AWS account.

use std::{convert::Infallible, path::PathBuf};

use spillway::{drain::DEFAULT_CONCURRENCY, telemetry::Telemetry};

use crate::{
    settings::Settings,
    shutdown,
    tls::TlsArgs,
    world::{Options, World, print_environment},
};

/// Arguments of `spillway local`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port of the API; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    tls: TlsArgs,
    /// File with tenants, models, keys and simulator settings; the demo when absent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for state that survives a restart; without it, state is kept in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print an event for each request (CloudWatch EMF) to stdout
    #[arg(long)]
    events: bool,
    /// Name by which clients may call the API, besides the names of this machine; repeatable
    #[arg(long = "allow-host", value_name = "NAME", value_parser = host_name)]
    allowed_hosts: Vec<String>,
    /// Number of jobs to run concurrently
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CONCURRENCY, value_parser = crate::serve::concurrency)]
    drain_concurrency: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            port: 8787,
            tls: TlsArgs::default(),
            config: None,
            data: None,
            events: false,
            allowed_hosts: Vec::new(),
            drain_concurrency: DEFAULT_CONCURRENCY,
        }
    }
}

fn host_name(text: &str) -> Result<String, Infallible> {
    Ok(text.to_ascii_lowercase())
}

/// Runs until Ctrl-C or SIGTERM, then finishes requests and jobs in flight, as far as they end in
/// time.
///
/// # Errors
/// Returns an error if a port is taken, or if the settings or the data directory cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = shutdown::signals()?;
    let settings = Settings::read(args.config.as_deref())?;
    let (keys, access_keys) = (settings.keys.clone(), settings.access_keys.clone());
    let world = World::start(Options {
        settings,
        apply_settings: args.config.is_some(),
        data: args.data,
        port: args.port,
        tls_port: args.tls.tls_port,
        allowed_hosts: args.allowed_hosts,
        drain_concurrency: args.drain_concurrency,
        telemetry: if args.events { Telemetry::to(std::io::stdout()) } else { Telemetry::off() },
    })
    .await?;
    print_environment(&world.stand_ins, &world.config);
    for (tenant, key) in &keys {
        println!("key {tenant} {key}");
    }
    for (tenant, id) in &access_keys {
        println!("access-key {tenant} {id}");
    }
    if let Some(tls) = &world.tls {
        tls.print();
    }
    println!("ready {}", world.url);
    stop.recv().await;
    eprintln!("finishing requests and jobs in flight");
    world.stop().await;
    Ok(())
}
