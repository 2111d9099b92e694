//! `POST /guardrail/{id}/version/{version}/apply`.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Body, Call, auth, reply};
use crate::{
    app::App,
    broker,
    chat::{Kind, Problem},
    telemetry::{Outcome, RequestEvent},
};

/// Applies one of the account's guardrails.
///
/// # Errors
/// What to tell the caller.
pub async fn apply(app: &App, call: &Call, id: &str, version: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let started_ms = app.clock.now_ms();
    let mut event = RequestEvent {
        request_id: call.request_id.clone(),
        dialect: Some(call.dialect.name()),
        route: Some("POST /guardrail/{id}/version/{version}/apply"),
        ..RequestEvent::default()
    };
    let tenant = auth::tenant(app, &call.parts.headers).await?;
    event.tenant = Some(tenant.name.clone());
    event.parent = tenant.parent.clone();
    let applied = broker::apply_guardrail(app, tenant, id, version, body).await;
    event.outcome = match &applied {
        Ok(_) => Outcome::Answered,
        Err(problem) if matches!(problem.kind, Kind::Throttled | Kind::BudgetExhausted) => Outcome::Refused,
        Err(_) => Outcome::Failed,
    };
    if let Ok(applied) = &applied {
        event.charge(&applied.receipt);
    }
    event.duration_ms = app.clock.now_ms().saturating_sub(started_ms);
    app.telemetry.record(event);
    let applied = applied?;
    let mut headers = call.dialect.limit_headers(&applied.limits, app.clock.now_ms());
    headers.extend(call.dialect.json_headers(&call.request_id));
    Ok(reply::whole(call, StatusCode::OK, headers, applied.body))
}
