//! From an end to messages in the webhook queue.

use anyhow::Context;
use tracing::warn;

use super::{Event, deliver::Delivery};
use crate::{app::App, job::Job, tenant::Endpoint};

/// Sends a message for each endpoint of the tenant that wants to hear of the event. Told twice, an event has the same id
/// twice. Does nothing without a webhook queue.
///
/// # Errors
/// The registry or the queue could not be reached; some endpoints may be told already.
pub async fn announce(app: &App, tenant: &str, event: &Event) -> anyhow::Result<()> {
    let Some(queue) = &app.webhooks else { return Ok(()) };
    let endpoints = app.registry.endpoints(tenant).await.context("reading the tenant's webhooks")?;
    let now_ms = app.clock.now_ms();
    for endpoint in wanting(&endpoints, event) {
        let delivery = Delivery::first(endpoint, event, now_ms);
        queue.send(&delivery.to_message()?, tenant, 0).await?;
    }
    Ok(())
}

fn wanting<'a>(endpoints: &'a [Endpoint], event: &Event) -> impl Iterator<Item = &'a Endpoint> {
    let kind = event.kind;
    endpoints.iter().filter(move |endpoint| endpoint.wants(kind))
}

/// Tells that the job with this id has ended, if that is still to be told. To be called by whoever ends a job; when it fails,
/// or is not reached, the sweep calls it.
pub async fn announce_end(app: &App, id: &str, tenant: &str) {
    if let Err(error) = try_announce_end(app, id, tenant).await {
        warn!(job_id = id, error = format!("{error:#}"), "the end of a job was not told; the sweep will");
    }
}

async fn try_announce_end(app: &App, id: &str, tenant: &str) -> anyhow::Result<()> {
    // Most tenants have no endpoints: they cost no more than a look into the cache.
    if app.webhooks.is_none() || app.registry.endpoints(tenant).await?.is_empty() {
        return Ok(());
    }
    match app.jobs.get(id).await? {
        Some(job) => announce_job(app, &job).await,
        None => Ok(()),
    }
}

/// Tells the end of the job, if that is still to be told, and notes that it has been.
///
/// # Errors
/// The registry, the queue or the store could not be reached; the sweep tries again.
pub async fn announce_job(app: &App, job: &Job) -> anyhow::Result<()> {
    let (Some(kind), Some(_)) = (job.announce, &app.webhooks) else { return Ok(()) };
    announce(app, &job.tenant, &Event::of_job(kind, job, &app.path_prefix)).await?;
    Ok(app.jobs.announced(job).await?)
}
