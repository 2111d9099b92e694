//! Authentication: finds the tenant of a request.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION, request::Parts};

use super::Caller;
use crate::{
    app::App,
    problem::{Kind, Problem},
    tenant::{ApiKey, Tenant, caller_id},
};

/// Header with the session token of AWS credentials.
const SESSION_TOKEN: &str = "x-amz-security-token";

/// Maximum length of a caller's id in an error, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// Returns the tenant of the key in the request: in `Authorization: Bearer`, in `x-api-key`, or in
/// the session token of AWS credentials (`x-amz-security-token`), which an AWS SDK sends with every
/// signed request. Without a key, returns the tenant of the [`Caller`] that the front door has
/// verified. Also returns the id of the key.
///
/// # Errors
/// Returns an error if the request has neither a valid key nor a known caller (401), or if the
/// registry is unavailable (503).
pub async fn tenant(app: &App, parts: &Parts) -> Result<(Arc<Tenant>, Option<String>), Problem> {
    match (key(&parts.headers), parts.extensions.get::<Caller>()) {
        (Some(key), _) => tenant_for_key(app, key).await,
        (None, Some(Caller(identity))) => Ok((tenant_for_caller(app, identity).await?, None)),
        (None, None) if parts.headers.contains_key(SESSION_TOKEN) => Err(invalid_key()),
        (None, None) => Err(Problem::new(
            Kind::Unauthenticated,
            "The request has no API key. Send it as Authorization: Bearer, as x-api-key, or as the session token of \
             AWS credentials.",
        )),
    }
}

async fn tenant_for_key(app: &App, key: &str) -> Result<(Arc<Tenant>, Option<String>), Problem> {
    let key = ApiKey::parse(key).ok_or_else(invalid_key)?;
    let tenant = app.registry.authenticate(&key).await?.ok_or_else(invalid_key)?;
    Ok((tenant, Some(key.id().to_owned())))
}

async fn tenant_for_caller(app: &App, identity: &str) -> Result<Arc<Tenant>, Problem> {
    let Some(id) = caller_id(identity) else {
        return Err(Problem::new(Kind::Unauthenticated, "The identity of the caller is malformed."));
    };
    let tenant = app.registry.tenant_of_caller(&id).await?;
    tenant.ok_or_else(|| {
        let shown: String = id.chars().take(MAX_SHOWN_CHARS).collect();
        let message = format!("No tenant has the caller {shown}, and the request has no API key.");
        Problem::new(Kind::Unauthenticated, message)
    })
}

fn invalid_key() -> Problem {
    Problem::new(Kind::Unauthenticated, "This API key is not valid.")
}

/// The key in the headers, which may be invalid. A session token counts only if it has the prefix
/// of a key, because temporary AWS credentials have real session tokens.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let session_token = || text(SESSION_TOKEN).filter(|token| token.starts_with(ApiKey::PREFIX));
    bearer.or_else(|| text("x-api-key")).or_else(session_token)
}
