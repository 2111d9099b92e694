//! Passes a pool's response to the caller, and settles when the model is done.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    ModelRequest, Reply, Served,
    admit::Admitted,
    outages, record_denial,
    route::{Response, Routed, Trace},
    settlement::Settlement,
};
use crate::{
    app::App,
    chat::StreamEvent,
    concurrency::{CallOutcome, Permit},
    health::TrackedCall,
    model::{EventStream, Failure},
    outage::PoolFault,
    pool::PoolKind,
    problem::Problem,
    telemetry::{RequestEvent, RequestOutcome},
    units::UnixMs,
    usage::Usage,
};

/// An item of a streamed answer.
#[derive(Debug)]
pub enum Delta {
    /// An event of the model.
    Event(StreamEvent),
    /// The last item: the answer is complete and settled, or it broke off.
    End(Result<(), Problem>),
}

/// The items of a streamed answer. If the channel closes without an end, the reader was too slow
/// and did not get the whole answer.
pub type Deltas = mpsc::Receiver<Delta>;

/// Number of events that are buffered for a slow reader. Then the model is read no faster than the
/// reader reads.
const MAX_BUFFERED_EVENTS: usize = 64;

/// Passes the pool's response to the caller, and settles both reservations. It does so even if the
/// caller does not stay to the end, because Bedrock bills to the end.
pub async fn respond(
    app: &App,
    request: Arc<ModelRequest>,
    admitted: Admitted,
    routed: Routed<'_>,
    mut event: RequestEvent,
    started: UnixMs,
) -> Served {
    let pool = routed.pool.name.clone();
    let substitute = routed.pool.substitute_name().map(str::to_owned);
    event.substitute.clone_from(&substitute);
    event.attempts = Some(routed.trace.calls);
    event.skipped = routed.trace.skipped.text();
    event.tier = routed.pool.service_tier.as_ref().map(|tier| tier.as_str().to_owned());
    let skipped = event.skipped.clone();
    let (max_tokens_set, limit_states) = (admitted.plan.max_tokens_set, admitted.limit_states.clone());
    let deadline = admitted.deadline;
    let Trace { outage, late_calls, .. } = routed.trace;
    let settlement = Settlement { admitted, held: routed.held, pool: routed.pool.clone(), request, outage, late_calls };
    let (permit, call) = (routed.permit, routed.call);
    let mut responder = Responder { app: app.clone(), settlement, permit, call, event, started, deadline };
    let reply = match routed.response {
        Response::Whole(answer) => {
            responder.event.outcome = RequestOutcome::Answered;
            responder.end(answer.usage, CallOutcome::Answered, None).await;
            Reply::Whole(answer)
        }
        Response::Stream(stream) => {
            let (sender, deltas) = mpsc::channel(MAX_BUFFERED_EVENTS);
            let headers = stream.headers().clone();
            tokio::spawn(responder.forward(*stream, sender));
            Reply::Stream { headers, deltas }
        }
    };
    Served { reply, pool, substitute, skipped, max_tokens_set, limit_states }
}

/// The state of one response.
struct Responder {
    app: App,
    settlement: Settlement,
    /// Released when the model is done.
    permit: Option<Permit>,
    call: TrackedCall,
    event: RequestEvent,
    started: UnixMs,
    deadline: UnixMs,
}

impl Responder {
    /// Forwards every event to the reader. When the reader has left, reads on alone to learn the
    /// usage.
    async fn forward(mut self, mut stream: EventStream, sender: mpsc::Sender<Delta>) {
        let mut usage = None;
        let mut has_reader = true;
        let mut is_complete = false;
        let mut reports_usage = true;
        let clock = self.app.clock.clone();
        let deadline = clock.sleep_until(self.deadline);
        tokio::pin!(deadline);
        let failure = loop {
            let next = tokio::select! {
                biased;
                () = &mut deadline => break Some(Failure::timed_out()),
                next = stream.next() => next,
            };
            match next {
                Ok(Some(event)) => {
                    if self.event.time_to_first_token_ms.is_none() && event.is_output() {
                        self.event.time_to_first_token_ms = Some(clock.now() - self.started);
                    }
                    is_complete |= event.report(&mut usage);
                    // Some models do not report their usage through InvokeModel.
                    reports_usage = matches!(event, StreamEvent::Converse { .. }) || usage.is_some();
                    // A reader that neither reads nor leaves must not delay the model forever.
                    has_reader = has_reader
                        && tokio::select! {
                            biased;
                            sent = sender.send(Delta::Event(event)) => sent.is_ok(),
                            () = clock.sleep_until(self.deadline) => false,
                        };
                }
                Ok(None) if is_complete || !reports_usage => break None,
                Ok(None) => break Some(Failure::cut()),
                Err(failure) => break Some(failure),
            }
        };
        let call_outcome = match &failure {
            None => CallOutcome::Answered,
            Some(Failure::Throttled(_)) => CallOutcome::Throttled,
            Some(_) => CallOutcome::Ignored,
        };
        if let Some(failure) = &failure {
            record_denial(&self.app, failure, &self.settlement.pool.model_id);
        }
        let fault = failure.as_ref().map(Failure::fault);
        let problem = failure.map(Failure::into_problem);
        if let Some(problem) = &problem {
            self.event.fail(problem);
        }
        self.event.outcome = match &problem {
            Some(_) => RequestOutcome::Failed,
            None if has_reader => RequestOutcome::Answered,
            None => RequestOutcome::Cancelled,
        };
        self.end(usage, call_outcome, fault).await;
        if has_reader {
            let _ = sender.send(Delta::End(problem.map_or(Ok(()), Err))).await;
        }
    }

    /// Releases the permit, settles, and records the request event. `fault` is what a failure says
    /// about the pool.
    async fn end(self, usage: Option<Usage>, call_outcome: CallOutcome, fault: Option<PoolFault>) {
        let Self { app, mut settlement, permit, call, mut event, started, .. } = self;
        remember_cache(&app, &settlement, usage);
        if let Some(permit) = permit {
            permit.release(call_outcome);
        }
        match fault {
            None => call.succeed(),
            Some(fault) => {
                let report = |outage| outages::report(&app, &settlement.request.model, &settlement.pool, outage);
                settlement.outage = call.fail(fault).map(report).or(settlement.outage);
            }
        }
        let receipt = settlement.settle(&app, usage, event.outcome == RequestOutcome::Failed).await;
        event.charge(&receipt);
        if let Some(usage) = usage {
            event.use_tokens(&usage);
        }
        event.duration_ms = app.clock.now() - started;
        app.telemetry.record(event);
    }
}

/// Remembers the pool whose prompt cache has the conversation, so that its next request goes there.
/// A substitute is not remembered: the model itself is tried first again.
fn remember_cache(app: &App, settlement: &Settlement, usage: Option<Usage>) {
    let Settlement { request, pool, admitted, .. } = settlement;
    let is_cached = usage.is_some_and(|usage| usage.cache_read_input_tokens + usage.cache_write_input_tokens > 0);
    let is_eligible = pool.kind == PoolKind::OnDemand && !pool.substitute;
    if let Some(conversation) = request.conversation.filter(|_| is_cached && is_eligible) {
        app.prompt_caches.remember(conversation, &pool.name, admitted.plan.cache_lifetime());
    }
}
