//! Receives messages and passes them to the drain, where no event source mapping does so: on a
//! laptop and in a container.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{attempt, message, sweep::sweep, time_budget::TimeBudget};
use crate::{
    app::App,
    queue::{Handled, Message, Queue},
    units::UnixMs,
    webhook,
};

/// Default number of jobs that run concurrently in one process, the same as `BatchSize` of the
/// event source mapping.
pub const DEFAULT_CONCURRENCY: usize = 20;

/// Maximum number of messages that SQS returns for one receive, and of jobs that wait here for a
/// concurrency permit.
const MAX_RECEIVED: usize = 10;

/// Duration of a long poll, in seconds. A shutdown is noticed after at most this time.
const LONG_POLL_S: u32 = 2;

/// Interval between sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Pause after a failed receive.
const RECEIVE_BACK_OFF: Duration = Duration::from_secs(1);

/// Receives and handles messages, `concurrency` at the same time, until `shutdown`. Then waits for
/// the running jobs. Webhooks are delivered in separate tasks.
pub async fn pump(app: App, queue: Queue, concurrency: usize, shutdown: CancellationToken) {
    let webhooks = app.webhooks.clone();
    let webhooks = webhooks.map(|queue| tokio::spawn(webhook::pump(app.clone(), queue, shutdown.clone())));
    let sweeper = tokio::spawn(sweep_regularly(app.clone(), shutdown.clone()));
    let queue = with_visibility_timeout(&app, queue).await;
    let app = App { queue: Some(queue.clone()), ..app };
    let mut jobs = JoinSet::new();
    while !shutdown.is_cancelled() {
        while jobs.try_join_next().is_some() {}
        let max_messages = vacancies(concurrency.max(1), jobs.len(), app.concurrency.running());
        if max_messages == 0 {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = jobs.join_next() => {}
                () = app.concurrency.work_started() => {}
            }
            continue;
        }
        let received = tokio::select! {
            () = shutdown.cancelled() => break,
            received = queue.receive(max_messages, LONG_POLL_S) => received,
        };
        match received {
            Ok(messages) => {
                for message in messages {
                    let (app, queue) = (app.clone(), queue.clone());
                    jobs.spawn(async move { handle(&app, &queue, &message).await });
                }
            }
            Err(error) => {
                warn!(%error, "failed to receive messages");
                tokio::time::sleep(RECEIVE_BACK_OFF).await;
            }
        }
    }
    while jobs.join_next().await.is_some() {}
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
fn vacancies(concurrency: usize, held: usize, running: usize) -> u32 {
    let waiting = held.saturating_sub(running);
    let vacancies = concurrency.saturating_sub(held).min(MAX_RECEIVED.saturating_sub(waiting));
    u32::try_from(vacancies).unwrap_or(u32::MAX)
}

/// Returns the queue with a visibility timeout slightly longer than a lease. If this process dies,
/// the messages of its jobs become visible as soon as the jobs can be claimed again.
async fn with_visibility_timeout(app: &App, queue: Queue) -> Queue {
    match attempt::max_call(app).await {
        Ok(max_call) => {
            let start = UnixMs::default();
            let lease = TimeBudget::new(start, None).attempt(max_call, start).lease_ends - start;
            queue.hiding_for(u32::try_from(lease.as_s_rounded_up() + 1).unwrap_or(u32::MAX))
        }
        Err(error) => {
            warn!(error = format!("{error:#}"), "failed to read the models; using the visibility timeout of the queue");
            queue
        }
    }
}

async fn handle(app: &App, queue: &Queue, message: &Message) {
    let budget = TimeBudget::new(app.clock.now(), None);
    if message::handle(app, message, budget).await == Handled::Done
        && let Err(error) = queue.delete(&message.receipt_handle).await
    {
        warn!(%error, "failed to delete a handled message");
    }
}

async fn sweep_regularly(app: App, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
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
