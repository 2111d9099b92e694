//! The load itself, open loop: every request starts at its time, whatever became of the ones before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::exchange::{Outcome, exchange};
use super::jobs;
use super::plan::Planned;
use super::request;
use super::tally::{End, Event};

/// Sends every planned request, then waits until each has ended; for jobs no longer than `drain_timeout`.
pub async fn run(
    broker: Arc<Broker>,
    planned: Vec<Planned>,
    max_in_flight: usize,
    drain_timeout: Duration,
    events: UnboundedSender<Event>,
) {
    let tasks = TaskTracker::new();
    let give_up = CancellationToken::new();
    let room = Arc::new(Semaphore::new(max_in_flight));
    let start = Instant::now();
    for request in planned {
        let due = start + request.due;
        tokio::time::sleep_until(due.into()).await;
        let held_back = room.available_permits() == 0;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        report(&events, Event::Sent { held_back });
        let one = One { broker: Arc::clone(&broker), events: events.clone(), give_up: give_up.clone() };
        tasks.spawn(one.run(request, due, permit));
    }
    tasks.close();
    if tokio::time::timeout(drain_timeout, tasks.wait()).await.is_err() {
        give_up.cancel();
        tasks.wait().await;
    }
}

/// The life of one request.
struct One {
    broker: Arc<Broker>,
    events: UnboundedSender<Event>,
    give_up: CancellationToken,
}

impl One {
    async fn run(self, planned: Planned, due: Instant, permit: OwnedSemaphorePermit) {
        let event = match request::body(&planned) {
            Ok(body) => self.send(&planned, body, due, permit).await,
            Err(_) => Event::Ended(End::Failed { kind: "not sent: no JSON".to_owned() }),
        };
        report(&self.events, event);
    }

    async fn send(&self, planned: &Planned, body: Vec<u8>, due: Instant, permit: OwnedSemaphorePermit) -> Event {
        let sent = Instant::now();
        report(&self.events, Event::Lag(sent.saturating_duration_since(due)));
        let outcome = exchange(&self.broker, planned, body, sent).await;
        drop(permit);
        match outcome {
            Outcome::Ended(end) => Event::Ended(end),
            Outcome::Accepted(ticket) => {
                report(&self.events, Event::Accepted);
                jobs::follow(&self.broker, planned, ticket, sent, &self.give_up).await
            }
        }
    }
}

fn report(events: &UnboundedSender<Event>, event: Event) {
    // The receiver lives until every sender is gone; without one there is nobody left to tell.
    let _ = events.send(event);
}
