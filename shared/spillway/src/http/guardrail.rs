//! `POST /guardrail/{id}/version/{version}/apply`.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Body, Call, record, reply};
use crate::{app::App, broker, problem::Problem, telemetry::RequestOutcome};

/// Applies one of the account's guardrails.
///
/// # Errors
/// What to tell the caller.
pub async fn apply(app: &App, call: &Call, id: &str, version: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let started_ms = app.clock.now_ms();
    let mut event = record::event(call, record::GUARDRAIL_ROUTE);
    let applied = broker::apply_guardrail(app, Arc::clone(&call.tenant), id, version, body).await;
    match &applied {
        Ok(applied) => {
            event.outcome = RequestOutcome::Answered;
            event.charge(&applied.receipt);
        }
        Err(problem) => record::note_failure(&mut event, problem),
    }
    record::end(app, event, started_ms);
    let applied = applied?;
    let mut headers = call.head.dialect.limit_headers(&applied.limit_states, app.clock.now());
    headers.extend(call.head.dialect.json_headers(&call.head.request_id));
    Ok(reply::whole(&call.head, StatusCode::OK, headers, applied.body))
}
