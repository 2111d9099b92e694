//! Carries messages from the queue to the drain where no event source mapping does it: on a laptop and in a container.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    answer,
    message::{self, Handled},
    shift::Shift,
    sweep::sweep,
};
use crate::{
    app::App,
    queue::{Message, Queue},
    webhook,
};

/// How many jobs run at once in one process, as `BatchSize` of the event source mapping has it, unless it is told otherwise.
pub const CONCURRENCY: usize = 20;

/// How long one receive waits for a message, in seconds; also how long a shutdown can take to be noticed.
const WAIT_S: u32 = 2;

/// How often the sweep runs.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// After a failed receive.
const PAUSE: Duration = Duration::from_secs(1);

/// Receives and handles messages, `concurrency` at once, until `shutdown`, then waits for the jobs that run. Webhooks are
/// delivered beside them.
pub async fn pump(app: App, queue: Queue, concurrency: usize, shutdown: CancellationToken) {
    let webhooks = app.webhooks.clone();
    let webhooks = webhooks.map(|queue| tokio::spawn(webhook::pump(app.clone(), queue, shutdown.clone())));
    let sweeper = tokio::spawn(sweep_regularly(app.clone(), shutdown.clone()));
    let queue = hiding(&app, queue).await;
    let app = App { queue: Some(queue.clone()), ..app };
    let room = Arc::new(Semaphore::new(concurrency.max(1)));
    let mut jobs = JoinSet::new();
    while !shutdown.is_cancelled() {
        while jobs.try_join_next().is_some() {}
        // Only what can run at once is received: a waiting message would run out of its visibility.
        let Ok(first) = Arc::clone(&room).acquire_owned().await else { break };
        let most = u32::try_from(room.available_permits() + 1).unwrap_or(1).min(10);
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = queue.receive(most, WAIT_S) => received,
        };
        drop(first);
        match received {
            Ok(messages) => {
                for message in messages {
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
                    let (app, queue) = (app.clone(), queue.clone());
                    jobs.spawn(async move {
                        handle(&app, &queue, &message).await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                warn!(%error, "no messages could be received");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    while jobs.join_next().await.is_some() {}
    if let Some(webhooks) = webhooks
        && let Err(error) = webhooks.await
    {
        error!(%error, "the delivery of webhooks ended badly");
    }
    if let Err(error) = sweeper.await {
        error!(%error, "the sweep ended badly");
    }
}

/// The queue with messages hidden a little longer than a claim lasts: when this process dies, its jobs are seen again
/// as soon as they can be claimed again.
async fn hiding(app: &App, queue: Queue) -> Queue {
    match answer::longest_ms(app).await {
        Ok(longest_ms) => {
            let lease_s = Shift::new(0, None).lease_ms(longest_ms, 0).div_ceil(1_000);
            queue.hiding_for(u32::try_from(lease_s + 1).unwrap_or(u32::MAX))
        }
        Err(error) => {
            warn!(
                error = format!("{error:#}"),
                "the models cannot be read, so the queue's own visibility timeout holds"
            );
            queue
        }
    }
}

async fn handle(app: &App, queue: &Queue, message: &Message) {
    let shift = Shift::new(app.clock.now_ms(), None);
    if message::handle(app, message, shift).await == Handled::Done
        && let Err(error) = queue.delete(&message.receipt_handle).await
    {
        warn!(%error, "a message that is done with was not deleted");
    }
}

async fn sweep_regularly(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                if let Err(error) = sweep(&app).await {
                    warn!(error = format!("{error:#}"), "a sweep failed");
                }
            }
        }
    }
}
