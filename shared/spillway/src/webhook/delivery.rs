//! Deliveries: a message of the webhook queue is one attempt to send one event to one endpoint.

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, warn};

use super::{WebhookEvent, backoff};
use crate::{
    app::App,
    queue::{Handled, Message, Queue},
    tenant::{Endpoint, EventType},
    units::{Millis, UnixMs},
};

/// A message that arrives this early is not sent again: SQS delays whole seconds, and its clock
/// differs from ours.
const MAX_EARLY: Millis = Millis::from_s(1);

/// The body of a message. The endpoint's URL and secrets are read when the event is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookDelivery {
    tenant: String,
    endpoint: String,
    event: String,
    kind: EventType,
    body: String,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// Time of the attempt, which may be later than the longest delay of SQS.
    #[serde(rename = "due_ms")]
    due_at: UnixMs,
    /// Time when the event was put into the queue.
    #[serde(rename = "first_ms")]
    queued_at: UnixMs,
}

/// Outcome of an attempt.
enum DeliveryOutcome {
    /// The endpoint accepted the event.
    Accepted,
    /// The endpoint wants no more events.
    Gone,
    /// The endpoint did not accept the event.
    Failed { reason: String, retry_after: Option<Millis> },
}

impl WebhookDelivery {
    /// The first attempt to send `event` to `endpoint`.
    pub fn new(endpoint: &Endpoint, event: &WebhookEvent, now: UnixMs) -> Self {
        Self {
            tenant: endpoint.tenant.clone(),
            endpoint: endpoint.id.clone(),
            event: event.id.clone(),
            kind: event.kind,
            body: event.body.clone(),
            attempt: 1,
            due_at: now,
            queued_at: now,
        }
    }

    /// Formats the delivery as the body of a message.
    ///
    /// # Errors
    /// Never: the delivery is plain JSON.
    pub fn to_message(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Handles messages concurrently, because most of the time is spent waiting for endpoints.
pub async fn handle_batch(app: &App, messages: &[Message]) -> Vec<Handled> {
    join_all(messages.iter().map(|message| handle(app, message))).await
}

/// Handles one message. If it is malformed or its last attempt fails, it stays in the queue until
/// SQS moves it to the dead-letter queue.
pub async fn handle(app: &App, message: &Message) -> Handled {
    let (Some(queue), Ok(delivery)) = (&app.webhooks, serde_json::from_str::<WebhookDelivery>(&message.body)) else {
        error!(message_id = message.id, "malformed webhook message");
        return Handled::Failed;
    };
    match try_handle(app, queue, &delivery).await {
        Ok(handled) => handled,
        Err(error) => {
            let WebhookDelivery { event, endpoint, .. } = &delivery;
            warn!(event, endpoint, error = format!("{error:#}"), "failed to handle a webhook message");
            Handled::Failed
        }
    }
}

async fn try_handle(app: &App, queue: &Queue, delivery: &WebhookDelivery) -> anyhow::Result<Handled> {
    let WebhookDelivery { tenant, endpoint: id, event, kind, attempt, .. } = delivery;
    let now = app.clock.now();
    if now + MAX_EARLY < delivery.due_at {
        queue.send(&delivery.to_message()?, tenant, delivery.due_at - now).await?;
        return Ok(Handled::Done);
    }
    let endpoints = app.registry.endpoints(tenant).await?;
    let is_receiver = |endpoint: &&Endpoint| endpoint.id == *id && endpoint.is_subscribed_to(*kind);
    let Some(endpoint) = endpoints.iter().find(is_receiver) else {
        debug!(event, endpoint = id, "dropped a webhook: its endpoint was removed or has unsubscribed");
        return Ok(Handled::Done);
    };
    let kind = kind.name();
    match post(app, endpoint, delivery, now).await {
        DeliveryOutcome::Accepted => debug!(event, kind, endpoint = id, attempt, "delivered a webhook"),
        DeliveryOutcome::Gone => warn!(
            event,
            kind,
            endpoint = id,
            tenant,
            "dropped a webhook: its endpoint answers 410 Gone; remove it with `spillway webhooks remove`"
        ),
        DeliveryOutcome::Failed { reason, retry_after } => {
            warn!(event, kind, endpoint = id, tenant, attempt, reason, "failed to deliver a webhook");
            return send_again(app, queue, delivery, retry_after).await;
        }
    }
    Ok(Handled::Done)
}

/// Sends the message for the next attempt. After the last attempt, the message itself stays, so
/// that SQS moves it to the dead-letter queue.
async fn send_again(
    app: &App,
    queue: &Queue,
    delivery: &WebhookDelivery,
    retry_after: Option<Millis>,
) -> anyhow::Result<Handled> {
    let jitter = fastrand::u64(0..=backoff::JITTER_STEPS);
    let now = app.clock.now();
    let Some(pause) = backoff::pause(delivery.attempt, jitter, retry_after) else {
        let WebhookDelivery { event, endpoint, tenant, .. } = delivery;
        let since_s = (now - delivery.queued_at).as_ms() / 1_000;
        error!(event, endpoint, tenant, since_s, "gave up a webhook after its last attempt");
        return Ok(Handled::Failed);
    };
    let attempt = delivery.attempt.saturating_add(1);
    let next = WebhookDelivery { attempt, due_at: now + pause, ..delivery.clone() };
    queue.send(&next.to_message()?, &next.tenant, pause).await?;
    Ok(Handled::Done)
}

async fn post(app: &App, endpoint: &Endpoint, delivery: &WebhookDelivery, now: UnixMs) -> DeliveryOutcome {
    let failed = |reason: String| DeliveryOutcome::Failed { reason, retry_after: None };
    let Some(headers) = headers(endpoint, &delivery.event, now, &delivery.body) else {
        return failed("its secret is invalid; give it a new one with `spillway webhooks rotate`".to_owned());
    };
    match app.outbound.post(&endpoint.url, headers, delivery.body.clone()).await {
        Ok(response) if response.status.is_success() => DeliveryOutcome::Accepted,
        Ok(response) if response.status == StatusCode::GONE => DeliveryOutcome::Gone,
        Ok(response) => {
            let reason = format!("it answered {}", response.status);
            DeliveryOutcome::Failed { reason, retry_after: response.retry_after }
        }
        Err(error) => failed(error.to_string()),
    }
}

/// Returns the headers of a webhook (Standard Webhooks, "Webhook headers"), or `None` if it cannot
/// be signed.
pub(super) fn headers(endpoint: &Endpoint, id: &str, now: UnixMs, body: &str) -> Option<HeaderMap> {
    let signatures = endpoint.signatures(id, now, body).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(now.as_s()));
    headers.insert("webhook-signature", HeaderValue::from_str(&signatures).ok()?);
    Some(headers)
}
