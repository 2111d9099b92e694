//! `GET /inference-profiles`: Bedrock's control plane, as clients ask for it to find models. Answered from the registry.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, reply};
use crate::{app::App, problem::Problem};

/// When nobody knows (1970).
const LONG_AGO: &str = "1970-01-01T00:00:00Z";

/// `GET /inference-profiles`: the models that the tenant may call, each as a profile (Amazon Bedrock API Reference,
/// "ListInferenceProfiles").
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let catalogue = app.registry.catalogue().await?;
    let of_applications = call.head.parts.uri.query().is_some_and(|query| query.contains("type=APPLICATION"));
    let models = catalogue.models().filter(|model| !of_applications && tenant.may_call(&model.name));
    let profiles: Vec<Value> = models.map(|model| profile(&model.name)).collect();
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "inferenceProfileSummaries": profiles })))
}

/// `GET /inference-profiles/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let model = app.registry.catalogue().await?.resolve_for(tenant, id)?;
    Ok(reply::json(&call.head, StatusCode::OK, &profile(&model.name)))
}

fn profile(name: &str) -> Value {
    json!({
        "inferenceProfileId": name,
        "inferenceProfileName": name,
        "inferenceProfileArn": format!("arn:aws:bedrock:::inference-profile/{name}"),
        "description": "A model behind Spillway",
        "type": "SYSTEM_DEFINED",
        "status": "ACTIVE",
        "models": [{ "modelArn": format!("arn:aws:bedrock:::foundation-model/{name}") }],
        "createdAt": LONG_AGO,
        "updatedAt": LONG_AGO,
    })
}
