//! Finishes what overflowed. A message names a job; the job is claimed, served by the same broker as a live request, and
//! its answer stored.
//!
//! Deferral is not failure: a job that finds no room is sent again with the time that it was given, and its old message
//! is done with, so that receive counts only count real failures.

mod answer;
pub(crate) mod batch;
pub(crate) mod ended;
mod letters;
mod message;
mod parts;
mod pump;
mod shift;
mod slot;
mod sweep;
mod turn;

use std::sync::Arc;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

pub use message::{Handled, delay_ms};
pub use pump::{CONCURRENCY, pump};
pub use shift::{AttemptTimes, Shift};
pub use sweep::sweep;

use crate::{app::App, queue::Message, webhook};

/// What the drain Lambda is invoked with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum DrainEvent {
    /// A batch of messages.
    Batch(SqsEvent),
    /// The schedule: look for jobs whose message was lost.
    Sweep {
        /// Always true; it tells a sweep from a batch.
        sweep: bool,
    },
}

/// Handles a batch, all its messages at once, or sweeps. Messages that are not reported as failures are done with.
///
/// # Errors
/// The sweep could not read the store.
pub async fn handle(app: &App, event: DrainEvent, deadline_ms: Option<u64>) -> anyhow::Result<SqsBatchResponse> {
    let mut response = SqsBatchResponse::default();
    let batch = match event {
        DrainEvent::Batch(batch) => batch,
        DrainEvent::Sweep { .. } => {
            sweep(app).await?;
            return Ok(response);
        }
    };
    let (webhooks, jobs): (Vec<_>, Vec<_>) = batch.records.into_iter().partition(|record| is_webhook(app, record));
    let webhooks: Vec<Message> = webhooks.into_iter().map(message_of).collect();
    let delivered = webhook::handle_batch(app, &webhooks).await;
    let jobs: Vec<Message> = jobs.into_iter().map(message_of).collect();
    let handled = run(app, &jobs, deadline_ms).await;
    let outcomes = webhooks.into_iter().zip(delivered).chain(jobs.into_iter().zip(handled));
    for (message, _) in outcomes.filter(|(_, handled)| *handled == Handled::Failed) {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = message.id;
        response.batch_item_failures.push(failure);
    }
    Ok(response)
}

/// Handles messages about jobs at once; what became of each, in the same order.
async fn run(app: &App, messages: &[Message], deadline_ms: Option<u64>) -> Vec<Handled> {
    let shift = Shift::new(app.clock.now_ms(), deadline_ms);
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    let handled: Vec<AbortOnDropHandle<Handled>> = messages
        .iter()
        .map(|message| {
            let (message, app, room) = (message.clone(), app.clone(), Arc::clone(&room));
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _place = room.acquire_owned().await;
                message::handle(&app, &message, shift).await
            }))
        })
        .collect();
    let mut outcomes = Vec::with_capacity(messages.len());
    for handled in handled {
        outcomes.push(handled.await.unwrap_or_else(|error| {
            error!(%error, "a message was not handled to its end");
            Handled::Failed
        }));
    }
    outcomes
}

fn message_of(record: SqsMessage) -> Message {
    let receive_count = record.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    Message {
        id: record.message_id.unwrap_or_default(),
        body: record.body.unwrap_or_default(),
        receipt_handle: record.receipt_handle.unwrap_or_default(),
        receive_count: receive_count.unwrap_or(1),
    }
}

/// Whether a message came from the webhook queue: a queue's name is the last part of its ARN and of its URL.
fn is_webhook(app: &App, record: &SqsMessage) -> bool {
    let of_record = record.event_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next());
    let of_queue = app.webhooks.as_ref().and_then(|queue| queue.url().rsplit('/').next());
    of_record.is_some() && of_record == of_queue
}
