//! Carries messages from the queue to the drain where no event source mapping does it: on a laptop and in a container.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{attempt, message, sweep::sweep, time_budget::TimeBudget};
use crate::{
    app::App,
    queue::{Handled, Message, Queue},
    webhook,
};

/// How many jobs run at once in one process, as `BatchSize` of the event source mapping has it, unless it is told otherwise.
pub const CONCURRENCY: usize = 20;

/// How many messages SQS gives at once at most, and how many jobs may wait here for a pool.
const MOST_RECEIVED: usize = 10;

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
    let mut jobs = JoinSet::new();
    while !shutdown.is_cancelled() {
        while jobs.try_join_next().is_some() {}
        let most = vacancies(concurrency.max(1), jobs.len(), app.concurrency.running());
        if most == 0 {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = jobs.join_next() => {}
                () = app.concurrency.work_started() => {}
            }
            continue;
        }
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = queue.receive(most, WAIT_S) => received,
        };
        match received {
            Ok(messages) => {
                for message in messages {
                    let (app, queue) = (app.clone(), queue.clone());
                    jobs.spawn(async move { handle(&app, &queue, &message).await });
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

/// How many messages may be received where `concurrency` jobs may be here, `here` are, and `running` of them run.
///
/// The queue is fair to tenants, a process is not: a job behind twenty of another tenant waits for room for all of those. So only
/// as many wait here for a pool as one receive brings, and the others in the queue.
fn vacancies(concurrency: usize, here: usize, running: usize) -> u32 {
    let waiting = here.saturating_sub(running);
    let vacancies = concurrency.saturating_sub(here).min(MOST_RECEIVED.saturating_sub(waiting));
    u32::try_from(vacancies).unwrap_or(u32::MAX)
}

/// The queue with messages hidden a little longer than a claim lasts: when this process dies, its jobs are seen again
/// as soon as they can be claimed again.
async fn hiding(app: &App, queue: Queue) -> Queue {
    match attempt::longest_ms(app).await {
        Ok(longest_ms) => {
            let lease_s = TimeBudget::new(0, None).attempt(longest_ms, 0).lease_ends_ms.div_ceil(1_000);
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
    let budget = TimeBudget::new(app.clock.now_ms(), None);
    if message::handle(app, message, budget).await == Handled::Done
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
