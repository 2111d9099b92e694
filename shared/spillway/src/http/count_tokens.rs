//! `POST /v1/messages/count_tokens` and `/model/{id}/count-tokens`: free of charge and of quota.

use bytes::Bytes;
use http::Response;

use super::{Body, Call, auth, reply};
use crate::{app::App, broker, chat::Problem, dialect::Api};

/// Counts the input tokens of a request. One that Bedrock cannot count is estimated, and the answer says so.
///
/// # Errors
/// What to tell the caller.
pub async fn count(
    app: &App,
    call: &Call,
    api: Api,
    body: Bytes,
    path_model: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let tenant = auth::tenant(app, &call.parts.headers).await?;
    let draft = api.read(&body, path_model, false)?;
    let model = broker::find_model(app, &tenant, draft.model()).await?;
    let request = draft.to_count(model.format(), &call.parts.headers)?;
    let count = broker::count_tokens(app, &model, &request).await?;
    let rendered = api.count(&call.request_id, count.input_tokens);
    let mut headers = rendered.headers;
    headers.extend(count.is_estimate.then(|| reply::header("x-spillway-estimated", "true")).flatten());
    Ok(reply::whole(call, rendered.status, headers, rendered.body))
}
