//! Open-loop load: every request starts at its arrival time, even if earlier requests have not
//! ended.

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

/// Sends every planned request, then waits until all have ended. Waits for jobs for at most
/// `drain_timeout`.
pub async fn run(
    broker: Arc<Broker>,
    planned: Vec<Planned>,
    max_in_flight: usize,
    drain_timeout: Duration,
    events: UnboundedSender<Event>,
) {
    let tasks = TaskTracker::new();
    let give_up = CancellationToken::new();
    let permits = Arc::new(Semaphore::new(max_in_flight));
    let start = Instant::now();
    for request in planned {
        let due = start + request.due;
        tokio::time::sleep_until(due.into()).await;
        let held_back = permits.available_permits() == 0;
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
        report(&events, Event::Sent { held_back });
        let sender = Sender { broker: Arc::clone(&broker), events: events.clone(), give_up: give_up.clone() };
        tasks.spawn(sender.run(request, due, permit));
    }
    tasks.close();
    if tokio::time::timeout(drain_timeout, tasks.wait()).await.is_err() {
        give_up.cancel();
        tasks.wait().await;
    }
}

/// Sends a request and follows it to its end.
struct Sender {
    broker: Arc<Broker>,
    events: UnboundedSender<Event>,
    give_up: CancellationToken,
}

impl Sender {
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
    // Sending fails only if the receiver is gone, and then no code needs the event.
    let _ = events.send(event);
}
