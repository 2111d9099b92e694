//! The drain: runs the jobs of requests that overflowed.
//!
//! A message of the queue names a job. The drain claims the job, serves its request with the same
//! broker as a live request, and stores the answer.
//!
//! A deferral is not a failure. If the pools have no room for a job, the drain sends a new message
//! with the refusal's delay and deletes the old message. So the receive counts of SQS count
//! failures only. If the tenant's own limits have no room, the job is parked, and has a message
//! again when the tenant's turn finds room. If no pool works, the job is deferred as well, until
//! its tenant's bounds on failures end it.

mod attempt;
mod batch;
mod concurrency;
mod dead_letters;
mod lease;
mod message;
mod partial_output;
mod priority;
mod pump;
mod sweep;
mod time_budget;
mod turn;

use std::sync::Arc;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

pub use lease::AttemptTimes;
pub use pump::{DEFAULT_CONCURRENCY, pump};
pub use sweep::sweep;
pub use time_budget::TimeBudget;

use crate::{
    app::App,
    queue::{Handled, Message},
    units::UnixMs,
    webhook,
};

/// An event of the drain Lambda.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum DrainEvent {
    /// A batch of messages.
    Batch(SqsEvent),
    /// The schedule: find jobs whose message was lost.
    Sweep {
        /// Always true. It distinguishes the schedule from a batch.
        sweep: bool,
    },
}

/// Handles all messages of a batch concurrently, or sweeps. A message that is not reported as a
/// failure is deleted by Lambda.
///
/// # Errors
/// Returns an error if the sweep fails.
pub async fn handle(app: &App, event: DrainEvent, deadline: Option<UnixMs>) -> anyhow::Result<SqsBatchResponse> {
    let mut response = SqsBatchResponse::default();
    let batch = match event {
        DrainEvent::Batch(batch) => batch,
        DrainEvent::Sweep { .. } => {
            sweep(app).await?;
            return Ok(response);
        }
    };
    let (webhooks, jobs): (Vec<_>, Vec<_>) = batch.records.into_iter().partition(|record| is_webhook(app, record));
    let webhooks: Vec<Message> = webhooks.into_iter().map(from_record).collect();
    let delivered = webhook::handle_batch(app, &webhooks).await;
    let jobs: Vec<Message> = jobs.into_iter().map(from_record).collect();
    let handled = handle_jobs(app, &jobs, deadline).await;
    let results = webhooks.into_iter().zip(delivered).chain(jobs.into_iter().zip(handled));
    for (message, _) in results.filter(|(_, handled)| *handled == Handled::Failed) {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier = message.id;
        response.batch_item_failures.push(failure);
    }
    Ok(response)
}

/// Handles messages about jobs concurrently. Returns the results in the order of the messages.
async fn handle_jobs(app: &App, messages: &[Message], deadline: Option<UnixMs>) -> Vec<Handled> {
    let budget = TimeBudget::new(app.clock.now(), deadline);
    let semaphore = Arc::new(Semaphore::new(DEFAULT_CONCURRENCY));
    let tasks: Vec<AbortOnDropHandle<Handled>> = messages
        .iter()
        .map(|message| {
            let (message, app, semaphore) = (message.clone(), app.clone(), Arc::clone(&semaphore));
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _permit = semaphore.acquire_owned().await;
                message::handle(&app, &message, budget).await
            }))
        })
        .collect();
    let mut results = Vec::with_capacity(messages.len());
    for task in tasks {
        results.push(task.await.unwrap_or_else(|error| {
            error!(%error, "the task of a message ended early");
            Handled::Failed
        }));
    }
    results
}

fn from_record(record: SqsMessage) -> Message {
    let receive_count = record.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    Message {
        id: record.message_id.unwrap_or_default(),
        body: record.body.unwrap_or_default(),
        receipt_handle: record.receipt_handle.unwrap_or_default(),
        receive_count: receive_count.unwrap_or(1),
    }
}

/// Whether a message is from the webhook queue. The name of a queue is the last part of its ARN and
/// of its URL.
fn is_webhook(app: &App, record: &SqsMessage) -> bool {
    let source_name = record.event_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next());
    let queue_name = app.webhooks.as_ref().and_then(|queue| queue.url().rsplit('/').next());
    source_name.is_some() && source_name == queue_name
}
