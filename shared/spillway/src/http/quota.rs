//! `GET /v1/quota`: the limits of the tenant, their use and reset times.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, reply};
use crate::{
    app::App,
    broker,
    problem::Problem,
    quota::{Allowance, Attribute},
};

/// Answers with the state of the tenant's limits, and with the sum of its settled requests.
///
/// # Errors
/// Returns an error if the ledger is unavailable.
pub async fn quota(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let account = broker::account_for(tenant);
    let images = app.ledger.images(&account).await?;
    let limits: Vec<Value> = account
        .states(&images, app.clock.now())
        .into_iter()
        .map(|state| {
            json!({
                "limit": state.limit, "cap": state.cap, "used": state.used, "remaining": state.remaining(),
                "reset_ms": state.resets_in,
            })
        })
        .collect();
    let other_limit = |of: Allowance| json!({ "limit": of.name(), "cap": tenant.max(of) });
    let other_limits = Allowance::ALL.map(other_limit);
    let total = |attribute| images.iter().map(|image| image.get(attribute)).sum::<u64>();
    let body = json!({
        "tenant": tenant.name,
        "parent": tenant.parent,
        "class": tenant.class,
        "limits": limits,
        "other_limits": other_limits,
        "settled": {
            "requests": total(Attribute::SettledRequests),
            "input_tokens": total(Attribute::SettledInput),
            "output_tokens": total(Attribute::SettledOutput),
            "cost_microusd": total(Attribute::SettledCost),
        },
        "regained_tokens": total(Attribute::Regained),
    });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}
