//! `GET /v1/quota`: the caller's limits, use and reset times.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, auth, reply};
use crate::{
    app::App,
    broker,
    chat::Problem,
    quota::{Attribute, states},
};

/// The caller's limits and where they stand, and what it has used in all.
pub async fn quota(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = auth::tenant(app, &call.parts.headers).await?;
    let account = broker::account_of(&tenant);
    let image = app.ledger.image(&account.key).await.map_err(|error| broker::unreachable("ledger", &error))?;
    let limits: Vec<Value> = states(&account.policy, &image, app.clock.now_ms())
        .into_iter()
        .map(|state| {
            json!({
                "limit": state.limit, "cap": state.cap, "used": state.used, "remaining": state.remaining(),
                "reset_ms": state.reset_ms,
            })
        })
        .collect();
    let body = json!({
        "tenant": tenant.name,
        "class": tenant.class,
        "limits": limits,
        "settled": {
            "requests": image.get(Attribute::SettledRequests),
            "input_tokens": image.get(Attribute::SettledInput),
            "output_tokens": image.get(Attribute::SettledOutput),
            "cost_microusd": image.get(Attribute::SettledCost),
        },
    });
    Ok(reply::json(call, StatusCode::OK, &body))
}
