//! Webhook endpoints: where a tenant's events are sent, and the secrets that sign them.

use std::fmt::{self, Debug, Formatter};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use standardwebhooks::{Webhook, WebhookError};

use super::EventType;
use crate::{
    units::{Millis, UnixMs},
    validate,
};

/// Maximum of endpoints of a tenant.
pub const MAX_ENDPOINTS: usize = 10;

/// Maximum time for which a previous secret still signs.
pub const MAX_OVERLAP: Millis = Millis::from_s(7 * 24 * 60 * 60);

/// Number of random bytes in a secret. Standard Webhooks ("Signature scheme") requires 24 to 64.
const SECRET_BYTES: usize = 32;

const SECRET_PREFIX: &str = "whsec_";
/// Maximum length of a URL.
const MAX_URL_BYTES: usize = 2_048;

/// A secret as the receiver configures it: `whsec_` and Base64. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Generates a secret from the operating system's random source.
    ///
    /// # Errors
    /// Returns an error if the system cannot generate random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes))))
    }

    /// The secret, to be printed once for its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn sign(&self, id: &str, timestamp_s: u64, body: &str) -> Result<String, WebhookError> {
        let timestamp_s = i64::try_from(timestamp_s).map_err(|_| WebhookError::InvalidTimestamp)?;
        Webhook::new(&self.0)?.sign(id, timestamp_s, body.as_bytes())
    }
}

impl Debug for Secret {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({SECRET_PREFIX}…)")
    }
}

/// A secret that was replaced and still signs for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousSecret {
    /// The secret.
    pub secret: Secret,
    /// Time until which the secret signs.
    #[serde(rename = "until_ms")]
    pub until: UnixMs,
}

/// An endpoint in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Id, unique among all endpoints.
    pub id: String,
    /// Name of the tenant whose events it receives.
    pub tenant: String,
    /// URL that events are posted to.
    pub url: String,
    /// Types of events that it subscribes to. Empty means all.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub events: Vec<EventType>,
    /// Secret that signs its events.
    pub secret: Secret,
    /// Secret that also signs its events for a while.
    #[serde(rename = "replaced", default, skip_serializing_if = "validate::is_default")]
    pub previous_secret: Option<PreviousSecret>,
    /// Time when it answered a challenge. Until then it receives no events.
    #[serde(rename = "verified_ms", default, skip_serializing_if = "validate::is_default")]
    pub verified_at: Option<UnixMs>,
}

impl Endpoint {
    /// A new endpoint, which is not verified yet.
    ///
    /// # Errors
    /// Returns an error if the system cannot generate random bytes.
    pub fn new(tenant: &str, url: &str, events: Vec<EventType>) -> Result<Self, getrandom::Error> {
        let mut id = [0; 6];
        getrandom::fill(&mut id)?;
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(Self {
            id: format!("we_{id}"),
            tenant: tenant.to_owned(),
            url: url.to_owned(),
            events,
            secret: Secret::generate()?,
            previous_secret: None,
            verified_at: None,
        })
    }

    /// Returns the errors in this entry, each as `field: what would be right`. Whether the URL is
    /// public is not checked here.
    pub fn check(&self) -> Vec<String> {
        let mut errors = Vec::new();
        validate::name("id", &self.id, 64, "_", &mut errors);
        validate::name("tenant", &self.tenant, 64, "._-", &mut errors);
        if self.url.len() > MAX_URL_BYTES {
            errors.push(format!("url: it has {} bytes, but the maximum is {MAX_URL_BYTES}", self.url.len()));
        }
        errors
    }

    /// Whether it receives events of this type.
    pub fn is_subscribed_to(&self, kind: EventType) -> bool {
        self.verified_at.is_some() && (self.events.is_empty() || self.events.contains(&kind))
    }

    /// The endpoint with a new secret. The old secret also signs for `overlap`. Zero ends it
    /// immediately.
    pub fn rotated(&self, secret: Secret, overlap: Millis, now: UnixMs) -> Self {
        let until = now + overlap.min(MAX_OVERLAP);
        let previous_secret = (!overlap.is_zero()).then(|| PreviousSecret { secret: self.secret.clone(), until });
        Self { secret, previous_secret, ..self.clone() }
    }

    /// Returns the value of `webhook-signature`: one signature per secret, that of the current
    /// secret first (Standard Webhooks, "Webhook headers").
    ///
    /// # Errors
    /// Returns an error if a secret is malformed.
    pub fn signatures(&self, id: &str, now: UnixMs, body: &str) -> Result<String, WebhookError> {
        let timestamp_s = now.as_s();
        let mut signatures = self.secret.sign(id, timestamp_s, body)?;
        if let Some(previous) = self.previous_secret.as_ref().filter(|previous| now < previous.until) {
            signatures.push(' ');
            signatures.push_str(&previous.secret.sign(id, timestamp_s, body)?);
        }
        Ok(signatures)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderMap;

    use super::*;

    const NOW: UnixMs = UnixMs::from_ms(1_800_000_000_000);
    const MS: Millis = Millis::from_ms(1);

    fn endpoint() -> Endpoint {
        let endpoint = Endpoint::new("acme", "https://example.com/hook", Vec::new()).expect("random bytes");
        Endpoint { verified_at: Some(NOW), ..endpoint }
    }

    /// Whether a receiver with `secret` accepts an event that was signed just now.
    fn is_accepted(endpoint: &Endpoint, secret: &Secret, body: &str) -> bool {
        let now = UnixMs::default() + Millis::from(UNIX_EPOCH.elapsed().expect("after 1970"));
        let signatures = endpoint.signatures("evt_1", now, "{\"ä\":1}").expect("signed");
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "evt_1".parse().expect("text"));
        headers.insert("webhook-timestamp", now.as_s().into());
        headers.insert("webhook-signature", signatures.parse().expect("text"));
        Webhook::new(secret.expose()).expect("a secret").verify(body.as_bytes(), &headers).is_ok()
    }

    #[test]
    fn the_reference_implementation_accepts_signed_events() {
        let endpoint = endpoint();
        assert!(is_accepted(&endpoint, &endpoint.secret, "{\"ä\":1}"));
        assert!(!is_accepted(&endpoint, &endpoint.secret, "{\"ä\":2}"));
        assert!(!is_accepted(&endpoint, &Secret::generate().expect("random bytes"), "{\"ä\":1}"));
    }

    #[test]
    fn a_signature_is_that_of_the_reference_implementation() {
        // The example in the test of the reference implementations.
        let secret = Secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".into());
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = secret.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body).expect("signed");
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn both_secrets_sign_during_the_overlap() {
        let before = endpoint();
        let future = NOW + Millis::from_s(50 * 365 * 24 * 60 * 60);
        let rotated = before.rotated(Secret::generate().expect("random bytes"), MAX_OVERLAP, future);
        assert_ne!(rotated.secret, before.secret);
        for secret in [&rotated.secret, &before.secret] {
            assert!(is_accepted(&rotated, secret, "{\"ä\":1}"));
        }
        let count =
            |endpoint: &Endpoint, now| endpoint.signatures("evt_1", now, "{}").expect("signed").split(' ').count();
        let until = future + MAX_OVERLAP;
        assert_eq!((count(&rotated, until - MS), count(&rotated, until)), (2, 1));
        let immediately = before.rotated(Secret::generate().expect("random bytes"), Millis::ZERO, future);
        assert_eq!((&immediately.previous_secret, count(&immediately, future)), (&None, 1));
    }

    #[test]
    fn a_verified_endpoint_receives_the_events_it_subscribes_to() {
        let subscribed_to_all = endpoint();
        assert!(
            subscribed_to_all.is_subscribed_to(EventType::JobFailed)
                && subscribed_to_all.is_subscribed_to(EventType::BatchCompleted)
        );
        let subscribed_to_batches = Endpoint { events: vec![EventType::BatchCompleted], ..endpoint() };
        assert!(
            !subscribed_to_batches.is_subscribed_to(EventType::JobFailed)
                && subscribed_to_batches.is_subscribed_to(EventType::BatchCompleted)
        );
        assert!(!Endpoint { verified_at: None, ..endpoint() }.is_subscribed_to(EventType::JobFailed));
    }

    #[test]
    fn a_secret_is_random_and_long_and_never_printed() {
        let endpoint = endpoint();
        let rotated = endpoint.rotated(Secret::generate().expect("random bytes"), MS, NOW);
        let encoded = endpoint.secret.expose().strip_prefix("whsec_").expect("the prefix");
        assert_eq!(STANDARD.decode(encoded).expect("Base64").len(), 32);
        let printed = format!("{rotated:?}");
        assert!(printed.contains("whsec_…"), "{printed}");
        assert!(!printed.contains(encoded) && !printed.contains(&rotated.secret.expose()[6..]), "{printed}");
    }

    #[test]
    fn an_endpoint_survives_storing() {
        let rotated = endpoint().rotated(Secret::generate().expect("random bytes"), MS, NOW);
        let rotated = Endpoint { events: vec![EventType::ResponseIncomplete], ..rotated };
        let written = serde_json::to_value(&rotated).expect("JSON");
        assert_eq!(written["events"][0], "response.incomplete");
        assert_eq!(serde_json::from_value::<Endpoint>(written).expect("an endpoint"), rotated);
        assert_eq!(rotated.check(), Vec::<String>::new());
        let long = Endpoint { url: "h".repeat(3_000), ..rotated };
        assert_eq!(long.check(), ["url: it has 3000 bytes, but the maximum is 2048"]);
    }
}
