//! Request events of requests that the broker does not record.

use super::{Call, Head};
use crate::{app::App, problem::Problem, telemetry::RequestEvent, units::UnixMs};

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

/// Records a request that ended with `problem` before a handler could start its event.
pub fn refused(app: &App, head: &Head, route: &'static str, problem: &Problem, started: UnixMs) {
    let mut event = anonymous(head, route);
    event.fail(problem);
    end(app, event, started);
}

/// Records a request of a known tenant whose body could not be read.
pub fn unread(app: &App, call: &Call, problem: &Problem, started: UnixMs) {
    let mut event = event(call);
    event.fail(problem);
    end(app, event, started);
}

/// Records the event of a request that arrived at `started`.
pub fn end(app: &App, mut event: RequestEvent, started: UnixMs) {
    event.duration_ms = app.clock.now() - started;
    app.telemetry.record(event);
}
