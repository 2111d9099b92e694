//! `POST /v1/messages/count_tokens` and `/model/{id}/count-tokens`: free of charge and of quota.

use bytes::Bytes;
use http::Response;

use super::{Body, Call, record, reply};
use crate::{
    app::App,
    broker::{self, TokenCount},
    dialect::{Api, Draft},
    problem::Problem,
    telemetry::{RequestEvent, RequestOutcome},
};

/// Counts the input tokens of a request. One that Bedrock cannot count is estimated, and the answer says so.
///
/// # Errors
/// What to tell the caller.
pub async fn count(
    app: &App,
    call: &Call,
    api: Api,
    path_model: Option<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let started = app.clock.now();
    let mut event = record::event(call);
    let counted = counted(app, call, api.read(&body, path_model.as_deref(), false), &mut event).await;
    match &counted {
        Ok(_) => event.outcome = RequestOutcome::Answered,
        Err(problem) => record::note_failure(&mut event, problem),
    }
    record::end(app, event, started);
    let count = counted?;
    let rendered = api.count(&call.head.request_id, count.input_tokens);
    let mut headers = rendered.headers;
    headers.extend(count.is_estimate.then(|| reply::header("x-spillway-estimated", "true")).flatten());
    Ok(reply::whole(&call.head, rendered.status, headers, rendered.body))
}

async fn counted(
    app: &App,
    call: &Call,
    draft: Result<Draft, Problem>,
    event: &mut RequestEvent,
) -> Result<TokenCount, Problem> {
    let draft = draft?;
    let model = app.registry.catalogue().await?.resolve_for(&call.tenant, draft.model())?;
    event.model = Some(model.name.clone());
    let request = draft.to_count(model.format(), &call.head.parts.headers)?;
    broker::count_tokens(app, &model, &request).await
}
