//! `POST /v1/messages/count_tokens` and `POST /model/{id}/count-tokens`. They cost nothing and take
//! no quota of models.

use bytes::Bytes;
use http::Response;

use super::{Body, Call, record, reply};
use crate::{
    allowance,
    app::App,
    broker::{self, TokenCount},
    dialect::{Api, Draft, check_resources},
    heavy_work,
    problem::Problem,
    telemetry::{RequestEvent, RequestOutcome},
};

/// Answers with the number of input tokens of a request in the format of `api`. `path_model` is the
/// model in the path, if the path names one. If the number is an estimate, the header
/// `x-spillway-estimated` says so.
///
/// # Errors
/// Returns an error if the request is malformed, if the tenant may not call the model, or if
/// Bedrock rejects the request as invalid.
pub async fn count(
    app: &App,
    call: &Call,
    api: Api,
    path_model: Option<String>,
    body: Bytes,
) -> Result<Response<Body>, Problem> {
    let started = app.clock.now();
    let mut event = record::event(call);
    let counted = match allowance::admit_request(app, &call.tenant).await {
        Ok(()) => {
            let draft = heavy_work::run(body.len(), || api.read(&body, path_model.as_deref(), false));
            count_draft(app, call, draft, &mut event).await
        }
        Err(refusal) => Err(refusal),
    };
    match &counted {
        Ok(_) => event.outcome = RequestOutcome::Answered,
        Err(problem) => record::fail(&mut event, &call.head, problem),
    }
    record::end(app, event, started);
    let count = counted?;
    let rendered = api.count(&call.head.request_id, count.input_tokens);
    let mut headers = rendered.headers;
    headers.extend(count.is_estimate.then(|| reply::header("x-spillway-estimated", "true")).flatten());
    Ok(reply::whole(&call.head, rendered.status, headers, rendered.body))
}

/// Notes the model in `event`, even if the count fails.
async fn count_draft(
    app: &App,
    call: &Call,
    draft: Result<Draft, Problem>,
    event: &mut RequestEvent,
) -> Result<TokenCount, Problem> {
    let draft = draft?;
    let model = app.registry.model_for(&call.tenant, draft.model()).await?;
    event.model = Some(model.name.clone());
    let request = draft.to_count(model.format(), &call.head.parts.headers)?;
    check_resources(&request, &call.tenant, app.own_bucket())?;
    broker::count_tokens(app, &model, &request).await
}
