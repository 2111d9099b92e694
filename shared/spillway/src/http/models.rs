//! `GET /v1/models`: the models that a tenant may call.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, reply};
use crate::{app::App, dialect::Dialect, problem::Problem};

/// Time in objects that must have one, where the time is unknown.
pub const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

/// `GET /v1/models`: all models that the tenant may call.
///
/// # Errors
/// Returns an error if the registry is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let models = app.registry.models_for(&call.tenant).await?;
    let models: Vec<Value> = models.iter().map(|model| object(call.head.dialect, &model.name)).collect();
    let body = match call.head.dialect {
        Dialect::Anthropic => {
            let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
            json!({ "first_id": id(models.first()), "last_id": id(models.last()), "has_more": false, "data": models })
        }
        Dialect::OpenAi | Dialect::Bedrock => json!({ "object": "list", "data": models }),
    };
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/models/{id}`.
///
/// # Errors
/// Returns an error if the tenant may not call such a model, or if the registry is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let model = app.registry.model_for(&call.tenant, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(call.head.dialect, &model.name)))
}

/// The model as an object of the API of `dialect`.
fn object(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::Anthropic => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": UNKNOWN_TIME })
        }
        Dialect::OpenAi | Dialect::Bedrock => {
            json!({ "id": name, "object": "model", "created": 0, "owned_by": "spillway" })
        }
    }
}
