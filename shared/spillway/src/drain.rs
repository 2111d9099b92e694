//! Finishes what overflowed. A message names a job; the job is claimed, served by the same broker as a live request, and
//! its answer stored.
//!
//! Deferral is not failure: a job that finds no room is sent again with the time that it was given, and its old message
//! is done with, so that receive counts only count real failures.

mod answer;
mod message;
mod pump;
mod sweep;
mod turn;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use serde::Deserialize;

pub use message::Handled;
pub use pump::pump;
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

/// Handles a batch, or sweeps. Messages that are not reported as failures are done with.
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
    for record in batch.records {
        let receive_count = record.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
        let message = Message {
            id: record.message_id.unwrap_or_default(),
            body: record.body.unwrap_or_default(),
            receipt_handle: record.receipt_handle.unwrap_or_default(),
            receive_count: receive_count.unwrap_or(1),
        };
        if message::handle(app, &message, deadline_ms).await == Handled::Failed {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = message.id;
            response.batch_item_failures.push(failure);
        }
    }
    Ok(response)
}
