//! Puts events into the webhook queue.

use anyhow::Context;
use tracing::warn;

use super::{WebhookEvent, delivery::WebhookDelivery};
use crate::{app::App, job::Job, units::Millis};

/// Sends a message for each endpoint of the tenant that subscribes to the event. An event that is
/// sent twice has the same id twice. Does nothing without a webhook queue.
///
/// # Errors
/// Returns an error if the registry or the queue is unavailable. Some messages may have been sent.
pub async fn notify(app: &App, tenant: &str, event: &WebhookEvent) -> anyhow::Result<()> {
    let Some(queue) = &app.webhooks else { return Ok(()) };
    let endpoints = app.registry.endpoints(tenant).await.context("reading the tenant's webhooks")?;
    let now = app.clock.now();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_subscribed_to(event.kind)) {
        let delivery = WebhookDelivery::new(endpoint, event, now);
        queue.send(&delivery.to_message()?, tenant, Millis::ZERO).await?;
    }
    Ok(())
}

/// Reports the end of the job `id`, unless it was reported. The process that ends a job calls this.
/// If it fails or is not reached, the sweep reports the end.
pub async fn notify_job_end(app: &App, id: &str, tenant: &str) {
    if let Err(error) = try_notify_job_end(app, id, tenant).await {
        warn!(job_id = id, error = format!("{error:#}"), "failed to report the end of a job; the sweep will retry");
    }
}

async fn try_notify_job_end(app: &App, id: &str, tenant: &str) -> anyhow::Result<()> {
    // Most tenants have no endpoints. For them, this costs only a lookup in the cache.
    if app.webhooks.is_none() || app.registry.endpoints(tenant).await?.is_empty() {
        return Ok(());
    }
    match app.jobs.get(id).await? {
        Some(job) => notify_job(app, &job).await,
        None => Ok(()),
    }
}

/// Reports the end of the job, unless it was reported, and notes that it has been.
///
/// # Errors
/// Returns an error if the registry, the queue or the store is unavailable. The sweep tries again.
pub async fn notify_job(app: &App, job: &Job) -> anyhow::Result<()> {
    let (Some(kind), Some(_)) = (job.pending_event, &app.webhooks) else { return Ok(()) };
    notify(app, &job.tenant, &WebhookEvent::for_job(kind, job)).await?;
    Ok(app.jobs.clear_pending_event(job).await?)
}
