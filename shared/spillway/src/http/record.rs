//! The events of requests that end here, not at the broker.

use super::{Call, Head};
use crate::{
    app::App,
    dialect::{Api, Dialect},
    problem::{Kind, Problem, RefusedBy},
    quota::LimitName,
    telemetry::{Outcome, RequestEvent},
};

/// The event of an authenticated request before anything was done for it; `route` is its method and path pattern.
pub fn event(call: &Call, route: &'static str) -> RequestEvent {
    RequestEvent {
        tenant: Some(call.tenant.name.clone()),
        parent: call.tenant.parent.clone(),
        class: Some(call.tenant.class.name()),
        ..anonymous(&call.head, route)
    }
}

/// The event of a request whose tenant is not known.
fn anonymous(head: &Head, route: &'static str) -> RequestEvent {
    RequestEvent {
        request_id: head.request_id.clone(),
        dialect: Some(head.dialect.name()),
        route: Some(route),
        ..RequestEvent::default()
    }
}

/// Records a request that was refused before its tenant or its preferences were known.
pub fn refused(app: &App, head: &Head, route: &'static str, problem: &Problem) {
    let mut event = anonymous(head, route);
    note_failure(&mut event, problem);
    app.telemetry.record(event);
}

/// Notes in `event` how a request failed.
pub fn note_failure(event: &mut RequestEvent, problem: &Problem) {
    event.outcome = match problem.kind {
        Kind::Throttled | Kind::BudgetExhausted => Outcome::Refused,
        _ => Outcome::Failed,
    };
    let limit_names = problem.refused_by.as_ref().map(RefusedBy::limit_names).unwrap_or_default();
    event.limit = limit_names.first().map(LimitName::to_string);
}

/// Records the event of a request that came in at `started_ms`.
pub fn end(app: &App, mut event: RequestEvent, started_ms: u64) {
    event.duration_ms = app.clock.now_ms().saturating_sub(started_ms);
    app.telemetry.record(event);
}

/// The route of a model call in events.
pub fn route_name(api: Api, stream: bool) -> &'static str {
    match (api, stream) {
        (Api::ChatCompletions, _) => "POST /v1/chat/completions",
        (Api::Responses, _) => "POST /v1/responses",
        (Api::Embeddings, _) => "POST /v1/embeddings",
        (Api::Messages, _) => "POST /v1/messages",
        (Api::Converse, false) => "POST /model/{id}/converse",
        (Api::Converse, true) => "POST /model/{id}/converse-stream",
        (Api::Invoke, false) => "POST /model/{id}/invoke",
        (Api::Invoke, true) => "POST /model/{id}/invoke-with-response-stream",
    }
}

/// The route of a token count in events.
pub fn count_route_name(api: Api) -> &'static str {
    match api.dialect() {
        Dialect::Bedrock => "POST /model/{id}/count-tokens",
        Dialect::OpenAi | Dialect::Anthropic => "POST /v1/messages/count_tokens",
    }
}

/// The route of a guardrail in events.
pub const GUARDRAIL_ROUTE: &str = "POST /guardrail/{id}/version/{version}/apply";
