//! Carries messages from the webhook queue to their delivery where no event source mapping does it.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::handle;
use crate::{
    app::App,
    queue::{Handled, Message, Queue},
};

/// How many deliveries run at once.
const CONCURRENCY: usize = 20;

/// How long one receive waits for a message, in seconds; also how long a shutdown can take to be noticed.
const WAIT_S: u32 = 2;

/// How long a received message is hidden, in seconds: longer than any attempt takes.
const HIDDEN_S: u32 = 60;

/// After a failed receive.
const PAUSE: Duration = Duration::from_secs(1);

/// Receives and handles messages until `shutdown`, then waits for the deliveries that run.
pub async fn pump(app: App, queue: Queue, shutdown: CancellationToken) {
    let queue = queue.hiding_for(HIDDEN_S);
    let mut deliveries = JoinSet::new();
    while !shutdown.is_cancelled() {
        while deliveries.try_join_next().is_some() {}
        if deliveries.len() >= CONCURRENCY {
            deliveries.join_next().await;
            continue;
        }
        let most = u32::try_from(CONCURRENCY - deliveries.len()).unwrap_or(1).min(10);
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = queue.receive(most, WAIT_S) => received,
        };
        match received {
            Ok(messages) => {
                for message in messages {
                    deliveries.spawn(deliver(app.clone(), queue.clone(), message));
                }
            }
            Err(error) => {
                warn!(%error, "no webhooks could be received");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while deliveries.join_next().await.is_some() {}
}

async fn deliver(app: App, queue: Queue, message: Message) {
    if handle(&app, &message).await == Handled::Done
        && let Err(error) = queue.delete(&message.receipt_handle).await
    {
        warn!(%error, "a webhook that is done with was not deleted");
    }
}
