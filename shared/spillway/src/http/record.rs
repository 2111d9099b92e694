//! Request events of requests that the broker does not record.

use http::StatusCode;

use super::{Call, Head};
use crate::{app::App, problem::Problem, telemetry::RequestEvent, units::UnixMs};

/// Starts the event of an authenticated request, with the status of an answer.
pub fn event(call: &Call) -> RequestEvent {
    RequestEvent {
        tenant: Some(call.tenant.name.clone()),
        key_id: call.key_id.clone(),
        status: Some(StatusCode::OK.as_u16()),
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

/// Records a request that ended with `problem` before a handler could start its event.
pub fn refused(app: &App, head: &Head, route: &'static str, problem: &Problem, started: UnixMs) {
    let mut event = anonymous(head, route);
    fail(&mut event, head, problem);
    end(app, event, started);
}

/// Records a request of a known tenant whose body could not be read.
pub fn unread(app: &App, call: &Call, problem: &Problem, started: UnixMs) {
    let mut event = event(call);
    fail(&mut event, &call.head, problem);
    end(app, event, started);
}

/// Completes the event of a request that ends with `problem`.
pub fn fail(event: &mut RequestEvent, head: &Head, problem: &Problem) {
    event.fail(problem);
    event.status = Some(head.dialect.status(problem.kind).as_u16());
}

/// Records the event of a request that arrived at `started`.
pub fn end(app: &App, mut event: RequestEvent, started: UnixMs) {
    event.duration_ms = app.clock.now() - started;
    app.telemetry.record(event);
}
