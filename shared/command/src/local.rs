//! `spillway local`: the whole deployment in one process, nothing to install and nothing to pay.

use std::path::PathBuf;

use spillway::{drain::CONCURRENCY, telemetry::Telemetry};

use crate::{
    settings::Settings,
    shutdown,
    tls::TlsArgs,
    world::{Options, World, print_environment},
};

/// Where to listen and what to start with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port of the API; 0 for any
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    tls: TlsArgs,
    /// Tenants, models, keys and simulator; the demo's when absent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep the state in this directory, so that it survives a restart; in memory when absent
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print each request's event (CloudWatch EMF) on stdout
    #[arg(long)]
    events: bool,
    /// How many jobs run at once
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, value_parser = crate::serve::concurrency)]
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
            drain_concurrency: CONCURRENCY,
        }
    }
}

/// Runs until Ctrl-C or SIGTERM, then finishes what is in flight.
///
/// # Errors
/// A port is taken, or the settings or the data directory cannot be used.
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
        drain_concurrency: args.drain_concurrency,
        telemetry: if args.events { Telemetry::stdout() } else { Telemetry::off() },
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
    eprintln!("finishing what is in flight");
    world.stop().await;
    Ok(())
}
