//! `POST /guardrail/{id}/version/{version}/apply`.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Body, Call, auth, record, reply};
use crate::{
    app::App,
    broker::{self, Applied},
    chat::Problem,
    telemetry::{Outcome, RequestEvent},
};

/// Applies one of the account's guardrails.
///
/// # Errors
/// What to tell the caller.
pub async fn apply(app: &App, call: &Call, id: &str, version: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let started_ms = app.clock.now_ms();
    let mut event = record::event(call, "POST /guardrail/{id}/version/{version}/apply");
    let applied = applied(app, call, id, version, body, &mut event).await;
    match &applied {
        Ok(applied) => {
            event.outcome = Outcome::Answered;
            event.charge(&applied.receipt);
        }
        Err(problem) => record::note_failure(&mut event, problem),
    }
    record::end(app, event, started_ms);
    let applied = applied?;
    let mut headers = call.dialect.limit_headers(&applied.limits, app.clock.now_ms());
    headers.extend(call.dialect.json_headers(&call.request_id));
    Ok(reply::whole(call, StatusCode::OK, headers, applied.body))
}

async fn applied(
    app: &App,
    call: &Call,
    id: &str,
    version: &str,
    body: Bytes,
    event: &mut RequestEvent,
) -> Result<Applied, Problem> {
    let tenant = auth::tenant(app, &call.parts).await?;
    event.tenant = Some(tenant.name.clone());
    event.parent = tenant.parent.clone();
    broker::apply_guardrail(app, tenant, id, version, body).await
}
