//! Receives messages and passes them to the drain, where no event source mapping does so: on a
//! laptop and in a container.

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    attempt, message,
    sweep::{self, sweep},
    time_budget::TimeBudget,
};
use crate::{
    app::App,
    queue::{MAX_MESSAGES, Queue, receive_until},
    units::{Millis, UnixMs},
    webhook,
};

/// Default number of jobs that run concurrently in one process, the same as `BatchSize` of the
/// event source mapping.
pub const DEFAULT_CONCURRENCY: usize = 20;

/// Maximum number of jobs that wait here for a concurrency permit: the messages of one receive.
const MAX_WAITING: usize = MAX_MESSAGES as usize;

/// Receives and handles messages, `concurrency` at the same time, until `shutdown`. Then waits for
/// the running jobs. Webhooks are delivered in separate tasks.
pub async fn pump(app: App, queue: Queue, concurrency: usize, shutdown: CancellationToken) {
    let webhooks = app.webhooks.clone();
    let webhooks = webhooks.map(|queue| tokio::spawn(webhook::pump(app.clone(), queue, shutdown.clone())));
    let sweeper = tokio::spawn(sweep_regularly(app.clone(), shutdown.clone()));
    let queue = with_visibility_timeout(&app, queue).await;
    let app = App { queue: Some(queue.clone()), ..app };
    let limiter = app.concurrency.clone();
    let room = |held| vacancies(concurrency.max(1), held, limiter.running());
    receive_until(
        &shutdown,
        &queue,
        room,
        || limiter.work_started(),
        |message| {
            let app = app.clone();
            async move { message::handle(&app, &message, TimeBudget::new(app.clock.now(), None)).await }
        },
    )
    .await;
    if let Some(webhooks) = webhooks
        && let Err(error) = webhooks.await
    {
        error!(%error, "the task of webhook deliveries ended early");
    }
    if let Err(error) = sweeper.await {
        error!(%error, "the task of the sweep ended early");
    }
}

/// Returns how many messages may be received, if the process may hold `concurrency` jobs and holds
/// `held` jobs, of which `running` run.
///
/// The queue is fair to tenants, a process is not: a job behind twenty jobs of another tenant waits
/// until there is room for all of them. So a process holds at most one receive of jobs that wait
/// for a permit, and leaves the rest in the queue.
fn vacancies(concurrency: usize, held: usize, running: usize) -> usize {
    let waiting = held.saturating_sub(running);
    concurrency.saturating_sub(held).min(MAX_WAITING.saturating_sub(waiting))
}

/// Returns the queue with a visibility timeout slightly longer than a lease. If this process dies,
/// the messages of its jobs become visible as soon as the jobs can be claimed again.
async fn with_visibility_timeout(app: &App, queue: Queue) -> Queue {
    match attempt::max_call(app).await {
        Ok(max_call) => {
            let start = UnixMs::default();
            let lease = TimeBudget::new(start, None).attempt(max_call, start).lease_ends - start;
            queue.with_visibility_timeout(lease + Millis::from_s(1))
        }
        Err(error) => {
            warn!(error = format!("{error:#}"), "failed to read the models; using the visibility timeout of the queue");
            queue
        }
    }
}

async fn sweep_regularly(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(sweep::INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                if let Err(error) = sweep(&app).await {
                    warn!(error = format!("{error:#}"), "the sweep failed");
                }
            }
        }
    }
}
