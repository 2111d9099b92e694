//! Whose request it is.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    app::App,
    broker,
    chat::{Kind, Problem},
    tenant::{ApiKey, Tenant},
};

/// The tenant whose key the request carries: as `Authorization: Bearer`, as `x-api-key`, or as the session token of AWS
/// credentials (`x-amz-security-token`), which is how an AWS SDK that signs can carry it.
///
/// # Errors
/// No key or not a valid one (401), or the registry cannot be reached (503).
pub async fn tenant(app: &App, headers: &HeaderMap) -> Result<Arc<Tenant>, Problem> {
    let Some(presented) = presented(headers) else {
        return Err(Problem::new(
            Kind::Unauthenticated,
            "No API key. Send one as Authorization: Bearer, as x-api-key, or as the session token of AWS credentials.",
        ));
    };
    let unknown = || Problem::new(Kind::Unauthenticated, "This API key is not valid.");
    let key = ApiKey::parse(presented).ok_or_else(unknown)?;
    let tenant = app.registry.authenticate(&key).await.map_err(|error| broker::unreachable("registry", &error))?;
    tenant.ok_or_else(unknown)
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text("x-api-key")).or_else(|| text("x-amz-security-token"))
}
