//! One message of the webhook queue: one attempt to deliver one event to one endpoint.

use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, warn};

use super::{Event, backoff};
use crate::{
    app::App,
    queue::{Handled, Message, Queue},
    tenant::{Endpoint, EventType},
};

/// SQS delays whole seconds and its clock is not ours: a message this early is not sent round again.
const EARLY_MS: u64 = 1_000;

/// What a message holds. The endpoint's URL and secrets are read when it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    tenant: String,
    endpoint: String,
    event: String,
    kind: EventType,
    body: String,
    /// The number of the attempt that is due, from 1.
    attempt: u32,
    /// When that is due, in milliseconds since 1970: SQS delays no longer than 15 minutes.
    due_ms: u64,
    /// When the event was announced.
    first_ms: u64,
}

/// What an attempt came to.
enum Attempt {
    Taken,
    /// The endpoint wants nothing more.
    Gone,
    Failed {
        why: String,
        retry_after_s: Option<u64>,
    },
}

impl Delivery {
    /// The first attempt to tell `endpoint` of `event`.
    pub fn first(endpoint: &Endpoint, event: &Event, now_ms: u64) -> Self {
        Self {
            tenant: endpoint.tenant.clone(),
            endpoint: endpoint.id.clone(),
            event: event.id.clone(),
            kind: event.kind,
            body: event.body.clone(),
            attempt: 1,
            due_ms: now_ms,
            first_ms: now_ms,
        }
    }

    /// The message that asks for it.
    pub fn to_message(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// Handles messages that came together, at the same time: most of it is waiting for others.
pub async fn handle_batch(app: &App, messages: &[Message]) -> Vec<Handled> {
    join_all(messages.iter().map(|message| handle(app, message))).await
}

/// Handles one message. One that stays is moved to the dead-letter queue by SQS in the end: it is no delivery, or all of its
/// attempts have failed.
pub async fn handle(app: &App, message: &Message) -> Handled {
    let (Some(queue), Ok(delivery)) = (&app.webhooks, serde_json::from_str::<Delivery>(&message.body)) else {
        error!(message_id = message.id, "a message of the webhook queue asks for no delivery");
        return Handled::Failed;
    };
    match try_handle(app, queue, &delivery).await {
        Ok(handled) => handled,
        Err(error) => {
            let Delivery { event, endpoint, .. } = &delivery;
            warn!(event, endpoint, error = format!("{error:#}"), "a webhook could not be handled");
            Handled::Failed
        }
    }
}

async fn try_handle(app: &App, queue: &Queue, delivery: &Delivery) -> anyhow::Result<Handled> {
    let Delivery { tenant, endpoint: id, event, kind, attempt, .. } = delivery;
    let now_ms = app.clock.now_ms();
    if now_ms.saturating_add(EARLY_MS) < delivery.due_ms {
        queue.send(&delivery.to_message()?, tenant, delivery.due_ms - now_ms).await?;
        return Ok(Handled::Done);
    }
    let endpoints = app.registry.endpoints(tenant).await?;
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.id == *id && endpoint.wants(*kind)) else {
        debug!(event, endpoint = id, "a webhook was dropped: its endpoint is gone, or does not want it any more");
        return Ok(Handled::Done);
    };
    let kind = kind.name();
    match post(app, endpoint, delivery, now_ms).await {
        Attempt::Taken => debug!(event, kind, endpoint = id, attempt, "a webhook was delivered"),
        Attempt::Gone => warn!(
            event,
            kind,
            endpoint = id,
            tenant,
            "a webhook was dropped: its endpoint answers 410 Gone; remove it with `spillway webhooks remove`"
        ),
        Attempt::Failed { why, retry_after_s } => {
            warn!(event, kind, endpoint = id, tenant, attempt, why, "a webhook was not delivered");
            return again(app, queue, delivery, retry_after_s).await;
        }
    }
    Ok(Handled::Done)
}

/// Sends the message for the next attempt. After the last, the message itself stays, for SQS to move away.
async fn again(app: &App, queue: &Queue, delivery: &Delivery, retry_after_s: Option<u64>) -> anyhow::Result<Handled> {
    let spread = fastrand::u64(0..=backoff::SPREAD);
    let Some(pause_ms) = backoff::pause_ms(delivery.attempt, spread, retry_after_s) else {
        let Delivery { event, endpoint, tenant, .. } = delivery;
        let since_s = app.clock.now_ms().saturating_sub(delivery.first_ms) / 1_000;
        error!(event, endpoint, tenant, since_s, "a webhook was given up");
        return Ok(Handled::Failed);
    };
    let due_ms = app.clock.now_ms().saturating_add(pause_ms);
    let next = Delivery { attempt: delivery.attempt.saturating_add(1), due_ms, ..delivery.clone() };
    queue.send(&next.to_message()?, &next.tenant, pause_ms).await?;
    Ok(Handled::Done)
}

async fn post(app: &App, endpoint: &Endpoint, delivery: &Delivery, now_ms: u64) -> Attempt {
    let failed = |why: String| Attempt::Failed { why, retry_after_s: None };
    let Some(headers) = headers(endpoint, &delivery.event, now_ms, &delivery.body) else {
        return failed("its secret cannot be used; give it a new one with `spillway webhooks rotate`".to_owned());
    };
    match app.outbound.post(&endpoint.url, headers, delivery.body.clone()).await {
        Ok(answer) if answer.status.is_success() => Attempt::Taken,
        Ok(answer) if answer.status == StatusCode::GONE => Attempt::Gone,
        Ok(answer) => {
            Attempt::Failed { why: format!("it answered {}", answer.status), retry_after_s: answer.retry_after_s }
        }
        Err(error) => failed(error.to_string()),
    }
}

/// The headers that make a request a webhook (Standard Webhooks, "Webhook headers"); `None` if it cannot be signed.
pub(super) fn headers(endpoint: &Endpoint, id: &str, now_ms: u64, body: &str) -> Option<HeaderMap> {
    let signatures = endpoint.signatures(id, now_ms, body).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(now_ms / 1_000));
    headers.insert("webhook-signature", HeaderValue::from_str(&signatures).ok()?);
    Some(headers)
}
