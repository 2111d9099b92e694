//! Webhook endpoints of tenants.

use std::io::Write;

use anyhow::{Context, bail};
use spillway::{
    app::App,
    outbound::Outbound,
    tenant::{
        Endpoint, EventType, Secret,
        endpoint::{MAX_ENDPOINTS, MAX_OVERLAP},
    },
    units::{Millis, UnixMs},
    webhook,
};

use super::show;

const HOUR: Millis = Millis::from_s(60 * 60);

#[derive(Debug, clap::Subcommand)]
pub enum Webhooks {
    /// Add an endpoint and print its secret, which is never shown again. The endpoint receives a
    /// challenge immediately, and events once it has answered the challenge
    Add {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// URL that receives events: https, reachable over the public Internet, on port 443 or 8443
        /// unless SPILLWAY_WEBHOOK_PORTS says otherwise
        #[arg(value_name = "URL")]
        url: String,
        /// Event type to send, such as response.completed; every type when absent. Can be repeated
        #[arg(long = "event", value_name = "TYPE", value_parser = parse_event)]
        events: Vec<EventType>,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// List the endpoints of a tenant
    List {
        /// Name of the tenant
        #[arg(value_name = "TENANT")]
        tenant: String,
    },
    /// Give an endpoint a new secret and print it; it is never shown again
    Rotate {
        /// ID of the endpoint
        #[arg(value_name = "ENDPOINT")]
        id: String,
        /// Hours for which events are signed with the old secret too; 0 ends it immediately
        #[arg(long, value_name = "HOURS", default_value_t = 24,
              value_parser = clap::value_parser!(u64).range(0..=MAX_OVERLAP.as_ms() / HOUR.as_ms()))]
        keep_old_hours: u64,
    },
    /// Send an endpoint a challenge; it receives events once it has answered the challenge
    Verify {
        /// ID of the endpoint
        #[arg(value_name = "ENDPOINT")]
        id: String,
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Remove an endpoint; its undelivered events are dropped
    Remove {
        /// ID of the endpoint
        #[arg(value_name = "ENDPOINT")]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct ReachArgs {
    /// Also allow an endpoint on this machine, even over http, for `spillway local`
    #[arg(long)]
    allow_loopback: bool,
}

impl ReachArgs {
    fn outbound(&self, app: &App) -> Outbound {
        let outbound = app.outbound.clone();
        if self.allow_loopback { outbound.with_loopback() } else { outbound }
    }
}

/// Runs `command`.
pub async fn run(command: Webhooks, app: &App, now: UnixMs, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Webhooks::Add { tenant, url, events, reach } => {
            let endpoint = add(app, &reach.outbound(app), &tenant, &url, events).await?;
            writeln!(out, "endpoint {}\nsecret {}", endpoint.id, endpoint.secret.expose())?;
            // The secret is printed before the challenge, which may fail, because it is not shown
            // again.
            out.flush()?;
            match verify(app, &reach.outbound(app), endpoint.clone(), now).await {
                Ok(()) => Ok(writeln!(out, "verified")?),
                Err(error) => {
                    let id = endpoint.id;
                    Ok(writeln!(
                        out,
                        "not verified: {error:#}\nwhen the endpoint is ready, run: spillway webhooks verify {id}"
                    )?)
                }
            }
        }
        Webhooks::List { tenant } => list(app, &tenant, out).await,
        Webhooks::Rotate { id, keep_old_hours } => {
            let secret = Secret::generate().context("the system cannot generate random bytes")?;
            let endpoint = find(app, &id).await?.rotated(secret, HOUR * keep_old_hours, now);
            app.registry.put_endpoint(&endpoint).await?;
            Ok(writeln!(out, "secret {}", endpoint.secret.expose())?)
        }
        Webhooks::Verify { id, reach } => {
            verify(app, &reach.outbound(app), find(app, &id).await?, now).await?;
            Ok(writeln!(out, "verified endpoint {id}")?)
        }
        Webhooks::Remove { id } => {
            let endpoint = find(app, &id).await?;
            app.registry.remove_endpoint(&endpoint.tenant, &id).await?;
            Ok(writeln!(out, "removed endpoint {id}")?)
        }
    }
}

async fn add(
    app: &App,
    outbound: &Outbound,
    tenant: &str,
    url: &str,
    events: Vec<EventType>,
) -> anyhow::Result<Endpoint> {
    if app.registry.tenant(tenant).await?.is_none() {
        bail!("there is no tenant {tenant}; create it first with `spillway tenants apply`");
    }
    outbound.check(url)?;
    if app.registry.endpoints(tenant).await?.len() >= MAX_ENDPOINTS {
        bail!("tenant {tenant} already has {MAX_ENDPOINTS} endpoints, the maximum");
    }
    let endpoint = Endpoint::new(tenant, url, events).context("the system cannot generate random bytes")?;
    let errors = endpoint.check();
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    app.registry.put_endpoint(&endpoint).await?;
    Ok(endpoint)
}

async fn verify(app: &App, outbound: &Outbound, endpoint: Endpoint, now: UnixMs) -> anyhow::Result<()> {
    webhook::verify(outbound, &endpoint, now).await?;
    app.registry.put_endpoint(&Endpoint { verified_at: Some(now), ..endpoint }).await?;
    Ok(())
}

/// Lists endpoints without their secrets.
async fn list(app: &App, tenant: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let endpoints = app.registry.endpoints(tenant).await?;
    let rows = endpoints.iter().map(|endpoint| {
        let events: Vec<&str> = endpoint.events.iter().map(|event| event.name()).collect();
        let events = if events.is_empty() { "all".to_owned() } else { events.join(",") };
        let verified = if endpoint.verified_at.is_some() { "yes" } else { "no" };
        [endpoint.id.clone(), endpoint.url.clone(), events, verified.to_owned()]
    });
    show::table(["ENDPOINT", "URL", "EVENTS", "VERIFIED"], rows, out)
}

async fn find(app: &App, id: &str) -> anyhow::Result<Endpoint> {
    app.registry.endpoint(id).await?.with_context(|| format!("there is no endpoint {id}"))
}

fn parse_event(name: &str) -> Result<EventType, String> {
    let names = || EventType::ALL.map(EventType::name).join(", ");
    EventType::parse(name).ok_or_else(|| format!("must be one of {}", names()))
}
