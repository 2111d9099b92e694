//! The receive loop of processes without an event source mapping: on a laptop and in a container.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Handled, Message, Queue};
use crate::units::Millis;

/// Duration of a long poll, and the longest time until a shutdown is noticed.
const LONG_POLL: Millis = Millis::from_s(2);

/// Pause after a failed receive.
const ERROR_PAUSE: Millis = Millis::from_s(1);

/// Receives messages and handles each in a task, until `shutdown`. Then waits for the tasks that
/// run. Messages that are done are deleted.
///
/// `room` returns how many messages may be received while this many tasks run. While that is 0, the
/// loop waits until a task ends or `room_changed` returns.
pub async fn receive_until<C, F>(
    shutdown: &CancellationToken,
    queue: &Queue,
    room: impl Fn(usize) -> usize,
    room_changed: impl Fn() -> C,
    handle: impl Fn(Message) -> F,
) where
    C: Future<Output = ()>,
    F: Future<Output = Handled> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    while !shutdown.is_cancelled() {
        while tasks.try_join_next().is_some() {}
        let max_messages = room(tasks.len());
        if max_messages == 0 {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = tasks.join_next() => {}
                () = room_changed() => {}
            }
            continue;
        }
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = queue.receive(max_messages, LONG_POLL) => received,
        };
        match received {
            Ok(messages) => {
                for message in messages {
                    let (queue, receipt_handle) = (queue.clone(), message.receipt_handle.clone());
                    let handled = handle(message);
                    tasks.spawn(async move { delete_if_done(&queue, &receipt_handle, handled.await).await });
                }
            }
            Err(error) => {
                warn!(%error, url = queue.url(), "failed to receive messages");
                tokio::time::sleep(ERROR_PAUSE.into()).await;
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn delete_if_done(queue: &Queue, receipt_handle: &str, handled: Handled) {
    if handled == Handled::Done
        && let Err(error) = queue.delete(receipt_handle).await
    {
        warn!(%error, "failed to delete a message that was handled");
    }
}
