//! Which models a tenant may call.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, reply};
use crate::{app::App, dialect::Dialect, problem::Problem};

/// `GET /v1/models`.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let catalogue = app.registry.catalogue().await?;
    let models: Vec<Value> = catalogue
        .models()
        .filter(|model| tenant.may_call(&model.name))
        .map(|model| entry(call.head.dialect, &model.name))
        .collect();
    let body = match call.head.dialect {
        Dialect::Anthropic => {
            let end = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
            json!({ "first_id": end(models.first()), "last_id": end(models.last()), "has_more": false, "data": models })
        }
        Dialect::OpenAi | Dialect::Bedrock => json!({ "object": "list", "data": models }),
    };
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/models/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let model = app.registry.catalogue().await?.resolve_for(tenant, id)?;
    Ok(reply::json(&call.head, StatusCode::OK, &entry(call.head.dialect, &model.name)))
}

fn entry(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::Anthropic => {
            json!({ "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z" })
        }
        Dialect::OpenAi | Dialect::Bedrock => {
            json!({ "id": name, "object": "model", "created": 0, "owned_by": "spillway" })
        }
    }
}
