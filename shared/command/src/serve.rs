//! `spillway serve`: only the broker, for a container or with stand-ins in another process.

use std::{net::IpAddr, time::Duration};

use anyhow::Context;
use spillway::{
    app::App,
    drain::{self, DEFAULT_CONCURRENCY},
    http::handle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    server::{self, ConnectionLimits, Listener, seconds},
    shutdown,
    tls::{self, TlsArgs},
};

/// Arguments of `spillway serve`. All other configuration comes from the environment, as in Lambda.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; 0.0.0.0 in a container
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 for any free port
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    tls: TlsArgs,
    /// Use the access key ID of a signed request as its caller (see `spillway callers`). Signatures
    /// are NOT verified: any client that reaches the port can pose as any caller
    #[arg(long)]
    trust_access_key_ids: bool,
    /// Number of jobs to run concurrently; 0 leaves the queue to other processes
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CONCURRENCY, value_parser = concurrency_or_none)]
    drain_concurrency: usize,
    #[command(flatten)]
    limits: ConnectionLimits,
    /// Seconds after SIGTERM at which requests and jobs that still run are cut off, with exit code
    /// 1
    #[arg(long = "stop-timeout-s", value_name = "N", default_value = "25", value_parser = seconds)]
    stop_timeout: Duration,
    /// Milliseconds by which the broker's clock is ahead
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    clock_offset_ms: u64,
}

/// Parses the number of jobs to run concurrently.
pub fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000".to_owned())
}

/// Parses the number of jobs to run concurrently, or 0.
fn concurrency_or_none(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { concurrency(text) }
}

/// Runs until Ctrl-C or SIGTERM, then refuses connections and finishes requests and jobs in flight.
/// Also drains the queue if one is configured.
///
/// # Errors
/// Returns an error if the port is taken, if the environment is not valid, or if requests or jobs
/// were cut off.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = shutdown::signals()?;
    let app = App::from_env().await?;
    app.clock.advance(spillway::units::Millis::from_ms(args.clock_offset_ms));
    let tcp = server::listen((args.host, args.port).into())?;
    let url = format!("http://{}", tcp.local_addr()?);
    let mut listeners = vec![Listener { tcp, tls: None }];
    let mut encrypted = None;
    if let Some(port) = args.tls.tls_port {
        let (listener, tls) = tls::bind(args.host, port, None).await?;
        listeners.push(listener);
        encrypted = Some(tls);
    }
    let token = CancellationToken::new();
    let queue = app.queue.clone().filter(|_| args.drain_concurrency > 0);
    let pump = queue.map(|queue| tokio::spawn(drain::pump(app.clone(), queue, args.drain_concurrency, token.clone())));
    let api = app.clone();
    let handler = move |mut request| {
        let app = api.clone();
        if args.trust_access_key_ids {
            server::trust_access_key_id(&mut request);
        }
        async move { handle(&app, request).await }
    };
    let server = tokio::spawn(server::serve(listeners, handler, args.limits, token.clone()));
    if let Some(tls) = &encrypted {
        tls.print();
    }
    println!("ready {url}");
    stop.recv().await;
    token.cancel();
    let finish = async {
        server.await?;
        if let Some(pump) = pump {
            pump.await?;
        }
        Ok(())
    };
    let finished = tokio::time::timeout(args.stop_timeout, finish).await;
    shutdown::flush(&app).await;
    finished.with_context(|| format!("requests or jobs still ran {:?} after the signal to stop", args.stop_timeout))?
}
