//! Whose request it is.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION, request::Parts};

use super::Caller;
use crate::{
    app::App,
    problem::{Kind, Problem},
    tenant::{ApiKey, Tenant, caller_id},
};

/// The tenant whose key the request carries: as `Authorization: Bearer`, as `x-api-key`, or as the session token of AWS
/// credentials (`x-amz-security-token`), which is how an AWS SDK that signs can carry it. Without a key it is the tenant of
/// the [`Caller`] that the front tells.
///
/// # Errors
/// Neither a key nor a caller, or not a valid one (401), or the registry cannot be reached (503).
pub async fn tenant(app: &App, parts: &Parts) -> Result<Arc<Tenant>, Problem> {
    match (presented(&parts.headers), parts.extensions.get::<Caller>()) {
        (Some(key), _) => of_key(app, key).await,
        (None, Some(Caller(identity))) => of_caller(app, identity).await,
        (None, None) if parts.headers.contains_key(SESSION_TOKEN) => Err(invalid_key()),
        (None, None) => Err(Problem::new(
            Kind::Unauthenticated,
            "No API key. Send one as Authorization: Bearer, as x-api-key, or as the session token of AWS credentials.",
        )),
    }
}

async fn of_key(app: &App, presented: &str) -> Result<Arc<Tenant>, Problem> {
    let key = ApiKey::parse(presented).ok_or_else(invalid_key)?;
    let tenant = app.registry.authenticate(&key).await?;
    tenant.ok_or_else(invalid_key)
}

async fn of_caller(app: &App, identity: &str) -> Result<Arc<Tenant>, Problem> {
    let Some(id) = caller_id(identity) else {
        return Err(Problem::new(Kind::Unauthenticated, "The identity of the caller cannot be read."));
    };
    let tenant = app.registry.tenant_of_caller(&id).await?;
    tenant.ok_or_else(|| {
        let shown: String = id.chars().take(LONGEST_SHOWN).collect();
        Problem::new(Kind::Unauthenticated, format!("No tenant has the caller {shown}, and there is no API key."))
    })
}

fn invalid_key() -> Problem {
    Problem::new(Kind::Unauthenticated, "This API key is not valid.")
}

const SESSION_TOKEN: &str = "x-amz-security-token";

/// How much of a caller's id an error repeats, in characters.
const LONGEST_SHOWN: usize = 200;

/// The key that a request carries, valid or not. A session token is only one if it looks like one: temporary AWS
/// credentials have a token of their own.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let token = || text(SESSION_TOKEN).filter(|token| token.starts_with(ApiKey::PREFIX));
    bearer.or_else(|| text("x-api-key")).or_else(token)
}
