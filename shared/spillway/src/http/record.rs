//! The events of requests that end here, not at the broker.

use super::Call;
use crate::{
    app::App,
    chat::{Kind, Problem},
    quota::LimitName,
    telemetry::{Outcome, RequestEvent},
};

/// What is known of a request before anything was done for it; `route` is its method and path pattern.
pub fn event(call: &Call, route: &'static str) -> RequestEvent {
    RequestEvent {
        request_id: call.request_id.clone(),
        dialect: Some(call.dialect.name()),
        route: Some(route),
        ..RequestEvent::default()
    }
}

/// Notes in `event` how a request failed.
pub fn note_failure(event: &mut RequestEvent, problem: &Problem) {
    event.outcome = match problem.kind {
        Kind::Throttled | Kind::BudgetExhausted => Outcome::Refused,
        _ => Outcome::Failed,
    };
    event.limit = problem.limits.first().map(LimitName::to_string);
    if let Some(receipt) = &problem.receipt {
        event.charge(receipt);
    }
}

/// Records the event of a request that came in at `started_ms`.
pub fn end(app: &App, mut event: RequestEvent, started_ms: u64) {
    event.duration_ms = app.clock.now_ms().saturating_sub(started_ms);
    app.telemetry.record(event);
}
