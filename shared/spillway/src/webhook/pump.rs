//! Receives from the webhook queue where no event source mapping does.

use tokio_util::sync::CancellationToken;

use super::handle;
use crate::{
    app::App,
    queue::{Queue, receive_until},
    units::Millis,
};

/// Maximum of concurrent deliveries.
const MAX_CONCURRENCY: usize = 20;

/// Visibility timeout of received messages: longer than any attempt.
const VISIBILITY_TIMEOUT: Millis = Millis::from_s(60);

/// Receives and handles messages until `shutdown`. Then waits for the deliveries in progress.
pub async fn pump(app: App, queue: Queue, shutdown: CancellationToken) {
    let queue = queue.with_visibility_timeout(VISIBILITY_TIMEOUT);
    let room = |running| MAX_CONCURRENCY.saturating_sub(running);
    receive_until(&shutdown, &queue, room, std::future::pending, |message| {
        let app = app.clone();
        async move { handle(&app, &message).await }
    })
    .await;
}
