//! `GET /inference-profiles`: the part of Bedrock's control plane in which clients look for models.
//! It is answered from the registry.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, models::UNKNOWN_TIME, reply};
use crate::{app::App, problem::Problem};

/// `GET /inference-profiles`: the models that the tenant may call, each as a profile (Amazon
/// Bedrock API Reference, "ListInferenceProfiles"). No model is an application profile.
///
/// # Errors
/// Returns an error if the registry is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let models = app.registry.models_for(&call.tenant).await?;
    let is_for_applications = call.head.parts.uri.query().is_some_and(|query| query.contains("type=APPLICATION"));
    let profiles = models.iter().filter(|_| !is_for_applications);
    let profiles: Vec<Value> = profiles.map(|model| profile(&model.name)).collect();
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "inferenceProfileSummaries": profiles })))
}

/// `GET /inference-profiles/{id}`.
///
/// # Errors
/// Returns an error if the tenant may not call such a model, or if the registry is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let model = app.registry.model_for(&call.tenant, id).await?;
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
        "createdAt": UNKNOWN_TIME,
        "updatedAt": UNKNOWN_TIME,
    })
}
