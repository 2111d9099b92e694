//! Request events of requests that the broker does not record.

use super::{Call, Head};
use crate::{
    app::App,
    problem::{Kind, Problem, RefusedBy},
    quota::LimitName,
    telemetry::{RequestEvent, RequestOutcome},
    units::UnixMs,
};

/// Starts the event of an authenticated request.
pub fn event(call: &Call) -> RequestEvent {
    RequestEvent {
        tenant: Some(call.tenant.name.clone()),
        parent: call.tenant.parent.clone(),
        class: Some(call.tenant.class.name()),
        ..anonymous(&call.head, call.route)
    }
}

/// Starts the event of a request whose tenant is not known.
fn anonymous(head: &Head, route: &'static str) -> RequestEvent {
    RequestEvent {
        request_id: head.request_id.clone(),
        dialect: Some(head.dialect.name()),
        route: Some(route),
        ..RequestEvent::default()
    }
}

/// Records a request that was refused before its tenant and its preferences were known.
pub fn refused(app: &App, head: &Head, route: &'static str, problem: &Problem) {
    let mut event = anonymous(head, route);
    note_failure(&mut event, problem);
    app.telemetry.record(event);
}

/// Sets the outcome of a request that failed.
pub fn note_failure(event: &mut RequestEvent, problem: &Problem) {
    event.outcome = match problem.kind {
        Kind::Throttled | Kind::BudgetExhausted => RequestOutcome::Refused,
        _ => RequestOutcome::Failed,
    };
    let limit_names = problem.refused_by.as_ref().map(RefusedBy::limit_names).unwrap_or_default();
    event.limit = limit_names.first().map(LimitName::to_string);
}

/// Records the event of a request that arrived at `started`.
pub fn end(app: &App, mut event: RequestEvent, started: UnixMs) {
    event.duration_ms = app.clock.now() - started;
    app.telemetry.record(event);
}
