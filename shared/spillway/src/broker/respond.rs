//! From the pool to the caller: deltas as they come, and the settlement after the last.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    Ask, Reply, Served,
    admit::Admitted,
    route::{Response, Routed},
    settlement::Settlement,
};
use crate::{
    app::App,
    chat::StreamEvent,
    concurrency::{CallOutcome, Permit},
    model::{EventStream, Failure},
    problem::Problem,
    telemetry::{Outcome, RequestEvent},
    usage::Usage,
};

/// A piece of an answer under way.
#[derive(Debug)]
pub enum Delta {
    /// What the model produced.
    Event(StreamEvent),
    /// Nothing follows: the answer is complete and settled, or it broke off.
    End(Result<(), Problem>),
}

/// The pieces of an answer. Without an end, the reader was too slow and did not get all of it.
pub type Deltas = mpsc::Receiver<Delta>;

/// How many events may wait for a slow reader before the model is made to wait.
const DELTAS_AHEAD: usize = 64;

/// Hands the pool's response to the caller and sees to it that both reservations are settled, whether or not the caller
/// stays to the end: Bedrock bills to the end.
pub async fn respond(
    app: &App,
    ask: Arc<Ask>,
    admitted: Admitted,
    routed: Routed<'_>,
    mut event: RequestEvent,
    started_ms: u64,
) -> Served {
    let pool = routed.pool.name.clone();
    event.attempts = Some(routed.calls);
    let (max_tokens_set, limits) = (admitted.plan.max_tokens_set, admitted.limits.clone());
    let deadline_ms = admitted.deadline_ms;
    let settlement = Settlement { admitted, held: routed.held, pool: routed.pool.clone(), ask };
    let delivery = Delivery { app: app.clone(), settlement, permit: routed.permit, event, started_ms, deadline_ms };
    let reply = match routed.response {
        Response::Whole(answer) => {
            delivery.end(answer.usage, Outcome::Answered).await;
            Reply::Whole(answer)
        }
        Response::Stream(stream) => {
            let (sender, deltas) = mpsc::channel(DELTAS_AHEAD);
            let headers = stream.headers().clone();
            tokio::spawn(delivery.pump(*stream, sender));
            Reply::Stream { headers, deltas }
        }
    };
    Served { reply, pool, max_tokens_set, limits }
}

struct Delivery {
    app: App,
    settlement: Settlement,
    /// Released when the model is done.
    permit: Option<Permit>,
    event: RequestEvent,
    started_ms: u64,
    deadline_ms: u64,
}

impl Delivery {
    /// Passes every event on; when the reader is gone it reads on alone, to learn the usage.
    async fn pump(mut self, mut stream: EventStream, sender: mpsc::Sender<Delta>) {
        let mut usage = None;
        let mut has_reader = true;
        let mut is_complete = false;
        let mut tells_usage = true;
        let clock = self.app.clock.clone();
        let deadline = clock.sleep_until(crate::units::UnixMs::from_ms(self.deadline_ms));
        tokio::pin!(deadline);
        let ended = loop {
            let next = tokio::select! {
                biased;
                () = &mut deadline => break Some(Failure::timed_out()),
                next = stream.next() => next,
            };
            match next {
                Ok(Some(event)) => {
                    if self.event.time_to_first_token_ms.is_none() && event.is_output() {
                        let waited_ms = self.app.clock.now_ms().saturating_sub(self.started_ms);
                        self.event.time_to_first_token_ms = Some(waited_ms);
                    }
                    is_complete |= event.report(&mut usage);
                    // Some models do not say through InvokeModel what they used.
                    tells_usage = matches!(event, StreamEvent::Converse { .. }) || usage.is_some();
                    // One that neither reads nor leaves may not hold the model up for ever.
                    has_reader = has_reader
                        && tokio::select! {
                            biased;
                            sent = sender.send(Delta::Event(event)) => sent.is_ok(),
                            () = clock.sleep_until(crate::units::UnixMs::from_ms(self.deadline_ms)) => false,
                        };
                }
                Ok(None) if is_complete || !tells_usage => break None,
                Ok(None) => break Some(Failure::cut()),
                Err(failure) => break Some(failure),
            }
        };
        if let (Some(Failure::Throttled), Some(permit)) = (&ended, self.permit.take()) {
            permit.release(CallOutcome::Throttled);
        }
        let problem = ended.map(Failure::into_problem);
        let outcome = match &problem {
            Some(_) => Outcome::Failed,
            None if has_reader => Outcome::Answered,
            None => Outcome::Cancelled,
        };
        self.end(usage, outcome).await;
        if has_reader {
            let _ = sender.send(Delta::End(problem.map_or(Ok(()), Err))).await;
        }
    }

    async fn end(self, usage: Option<Usage>, outcome: Outcome) {
        let Self { app, settlement, permit, mut event, started_ms, .. } = self;
        if let Some(permit) = permit {
            let is_failed = outcome == Outcome::Failed;
            permit.release(if is_failed { CallOutcome::Ignored } else { CallOutcome::Answered });
        }
        let receipt = settlement.settle(&app, usage, outcome == Outcome::Failed).await;
        event.cost_microusd = receipt.tenant.map(|charged| charged.charge.cost_microusd);
        event.charge(&receipt);
        event.input_tokens = usage.map(|usage| usage.all_input_tokens());
        event.output_tokens = usage.map(|usage| usage.output_tokens);
        event.outcome = outcome;
        event.duration_ms = app.clock.now_ms().saturating_sub(started_ms);
        app.telemetry.record(event);
    }
}
