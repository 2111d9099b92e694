//! `POST /guardrail/{id}/version/{version}/apply`: guardrails without a model.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Body, Call, record, reply};
use crate::{
    app::App,
    broker::{self, GuardrailResult, NamedGuardrail},
    dialect::{GuardrailContent, unlisted_guardrail},
    problem::Problem,
    telemetry::RequestOutcome,
};

/// Applies a guardrail, which the operator has listed for the tenant, to the content in `body`.
///
/// # Errors
/// Returns an error if the tenant may not apply the guardrail, if the body is invalid, if the
/// tenant has no room for the request, or if Bedrock is unavailable.
pub async fn apply(app: &App, call: &Call, id: &str, version: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let started = app.clock.now();
    let mut event = record::event(call);
    let applied = apply_listed(app, call, id, version, &body).await;
    match &applied {
        Ok(applied) => {
            event.outcome = RequestOutcome::Answered;
            event.charge(&applied.receipt);
        }
        Err(problem) => record::fail(&mut event, &call.head, problem),
    }
    record::end(app, event, started);
    let applied = applied?;
    let mut headers = call.head.dialect.limit_headers(&applied.limit_states, app.clock.now());
    headers.extend(call.head.dialect.json_headers(&call.head.request_id));
    Ok(reply::whole(&call.head, StatusCode::OK, headers, applied.body))
}

async fn apply_listed(
    app: &App,
    call: &Call,
    id: &str,
    version: &str,
    body: &[u8],
) -> Result<GuardrailResult, Problem> {
    let tenant = &call.tenant;
    let grant = tenant.guardrail(id, version).ok_or_else(|| unlisted_guardrail(tenant, "guardrailIdentifier"))?;
    let content = GuardrailContent::parse(body)?;
    broker::apply_guardrail(app, Arc::clone(tenant), NamedGuardrail { id, version, grant }, content).await
}
