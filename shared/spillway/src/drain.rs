//! Finishes what overflowed. A message names a job; the job is claimed, served by the same broker as a live request, and
//! its answer stored.
//!
//! Deferral is not failure: a job that finds no room is sent again with the time that it was given, and its old message
//! is done with, so that receive counts only count real failures.

mod answer;
mod letters;
mod message;
mod pump;
mod shift;
mod slot;
mod sweep;
mod turn;

use std::sync::Arc;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Deserialize;
use shift::Shift;
use tokio::{sync::Semaphore, task::JoinHandle};
use tracing::error;

pub use message::Handled;
pub use pump::{CONCURRENCY, pump};
pub use sweep::sweep;

use crate::{app::App, queue::Message};

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
    let shift = Shift::new(app.clock.now_ms(), deadline_ms);
    let room = Arc::new(Semaphore::new(CONCURRENCY));
    let jobs: Vec<(String, JoinHandle<Handled>)> = batch
        .records
        .into_iter()
        .map(|record| {
            let message = read(record);
            let (id, app, room) = (message.id.clone(), app.clone(), Arc::clone(&room));
            let handled = tokio::spawn(async move {
                let _place = room.acquire_owned().await;
                message::handle(&app, &message, shift).await
            });
            (id, handled)
        })
        .collect();
    for (id, handled) in jobs {
        let handled = handled.await.unwrap_or_else(|error| {
            error!(%error, "a message was not handled to its end");
            Handled::Failed
        });
        if handled == Handled::Failed {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            response.batch_item_failures.push(failure);
        }
    }
    Ok(response)
}

fn read(record: SqsMessage) -> Message {
    let receive_count = record.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    Message {
        id: record.message_id.unwrap_or_default(),
        body: record.body.unwrap_or_default(),
        receipt_handle: record.receipt_handle.unwrap_or_default(),
        receive_count: receive_count.unwrap_or(1),
    }
}
