//! `spillway serve`: only the broker, for a container or with stand-ins in another process.

use std::net::IpAddr;

use spillway::{
    app::App,
    drain::{self, DEFAULT_CONCURRENCY},
    http::handle,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    server::{self, Listener},
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
    /// Number of jobs to run concurrently
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CONCURRENCY, value_parser = concurrency)]
    drain_concurrency: usize,
    /// Milliseconds by which the broker's clock is ahead
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    clock_offset_ms: u64,
}

/// Parses the number of jobs to run concurrently.
pub fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000".to_owned())
}

/// Runs until Ctrl-C or SIGTERM, then finishes requests and jobs in flight. Also drains the queue
/// if one is configured.
///
/// # Errors
/// Returns an error if the port is taken or the environment is not valid.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = shutdown::signals()?;
    let app = App::from_env().await?;
    app.clock.advance(spillway::units::Millis::from_ms(args.clock_offset_ms));
    let tcp = TcpListener::bind((args.host, args.port)).await?;
    let url = format!("http://{}", tcp.local_addr()?);
    let mut listeners = vec![Listener { tcp, tls: None }];
    let mut encrypted = None;
    if let Some(port) = args.tls.tls_port {
        let (listener, tls) = tls::bind(args.host, port, None).await?;
        listeners.push(listener);
        encrypted = Some(tls);
    }
    let token = CancellationToken::new();
    let pump = app
        .queue
        .clone()
        .map(|queue| tokio::spawn(drain::pump(app.clone(), queue, args.drain_concurrency, token.clone())));
    let handler = move |mut request| {
        let app = app.clone();
        if args.trust_access_key_ids {
            server::trust_access_key_id(&mut request);
        }
        async move { handle(&app, request).await }
    };
    let server = tokio::spawn(server::serve(listeners, handler, token.clone()));
    if let Some(tls) = &encrypted {
        tls.print();
    }
    println!("ready {url}");
    stop.recv().await;
    token.cancel();
    server.await?;
    if let Some(pump) = pump {
        pump.await?;
    }
    Ok(())
}
