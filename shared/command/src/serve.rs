//! `spillway serve`: the broker alone, for a container or against stand-ins in another process.

use std::net::IpAddr;

use spillway::{
    app::App,
    drain::{self, CONCURRENCY},
    http::handle,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    server::{self, Listener},
    shutdown,
    tls::{self, TlsArgs},
};

/// Where to listen. Everything else comes from the environment, as in Lambda.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The address to listen on; 0.0.0.0 in a container
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 for any
    #[arg(long, value_name = "N", default_value_t = 8787)]
    port: u16,
    #[command(flatten)]
    tls: TlsArgs,
    /// Take the access key id of a signed request for its caller (see `spillway callers`). Signatures are NOT verified:
    /// whoever reaches the port can be any caller
    #[arg(long)]
    trust_access_key_ids: bool,
    /// How many jobs run at once
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, value_parser = concurrency)]
    drain_concurrency: usize,
    /// Run with a clock that is so many milliseconds ahead
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    clock_offset_ms: u64,
}

/// Reads how many jobs run at once.
pub fn concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000).contains(number));
    number.ok_or_else(|| "must be a whole number from 1 to 1000".to_owned())
}

/// Runs until Ctrl-C or SIGTERM, then finishes what is in flight. Also drains the queue, if there is one.
///
/// # Errors
/// The port is taken, or the environment cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = shutdown::signals()?;
    let app = App::from_env().await?;
    app.clock.advance(args.clock_offset_ms);
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
    let answer = move |mut request| {
        let app = app.clone();
        if args.trust_access_key_ids {
            server::trust_access_key_id(&mut request);
        }
        async move { handle(&app, request).await }
    };
    let server = tokio::spawn(server::serve(listeners, answer, token.clone()));
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
