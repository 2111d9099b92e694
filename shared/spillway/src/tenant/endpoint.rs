//! Where a tenant's events go, and what they are signed with.

use std::fmt::{self, Debug, Formatter};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use standardwebhooks::{Webhook, WebhookError};

use super::EventType;
use crate::validate;

/// How many endpoints a tenant may have.
pub const MOST_ENDPOINTS: usize = 10;

/// How long a secret that was replaced may be used, in milliseconds.
pub const LONGEST_OVERLAP_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// How many bytes of a secret are random. Standard Webhooks ("Signature scheme") wants 24 to 64.
const SECRET_BYTES: usize = 32;

const SECRET_PREFIX: &str = "whsec_";
const LONGEST_URL: usize = 2_048;

/// A secret as its receiver is given it: `whsec_` and Base64. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A new secret from the operating system's random source.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes))))
    }

    /// The secret, to be shown once to whom it is for.
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

/// A secret that was replaced, and still signs for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// The secret.
    pub secret: Secret,
    /// Until when it signs, in milliseconds since 1970.
    pub until_ms: u64,
}

/// An endpoint, as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Unique among all endpoints.
    pub id: String,
    /// Whose events it gets.
    pub tenant: String,
    /// Where they are posted to.
    pub url: String,
    /// What it wants to hear of; empty means everything.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub events: Vec<EventType>,
    /// What its events are signed with.
    pub secret: Secret,
    /// What they are signed with as well, for a while.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub replaced: Option<Replaced>,
    /// When it answered a challenge, in milliseconds since 1970. Until then it gets nothing else.
    #[serde(default, skip_serializing_if = "validate::is_default")]
    pub verified_ms: Option<u64>,
}

impl Endpoint {
    /// A new endpoint, which has not been verified yet.
    ///
    /// # Errors
    /// The system has no random bytes.
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
            replaced: None,
            verified_ms: None,
        })
    }

    /// What is wrong with this entry, each as `field: what would be right`. Where the URL leads is
    /// not looked at.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        validate::name("id", &self.id, 64, "_", &mut wrong);
        validate::name("tenant", &self.tenant, 64, "._-", &mut wrong);
        if self.url.len() > LONGEST_URL {
            wrong.push(format!("url: it has {} bytes; at most {LONGEST_URL} can be used", self.url.len()));
        }
        wrong
    }

    /// Whether it is to be told of events of this kind.
    pub fn wants(&self, kind: EventType) -> bool {
        self.verified_ms.is_some() && (self.events.is_empty() || self.events.contains(&kind))
    }

    /// The endpoint with a new secret. The one that it had signs as well for another `overlap_ms`;
    /// 0 ends it now.
    pub fn rotated(&self, secret: Secret, overlap_ms: u64, now_ms: u64) -> Self {
        let until_ms = now_ms.saturating_add(overlap_ms.min(LONGEST_OVERLAP_MS));
        let replaced = (overlap_ms > 0).then(|| Replaced { secret: self.secret.clone(), until_ms });
        Self { secret, replaced, ..self.clone() }
    }

    /// The value of `webhook-signature`: one signature per secret, the current one first (Standard
    /// Webhooks, "Webhook headers").
    ///
    /// # Errors
    /// A secret is not what this version makes.
    pub fn signatures(&self, id: &str, now_ms: u64, body: &str) -> Result<String, WebhookError> {
        let timestamp_s = now_ms / 1_000;
        let mut signatures = self.secret.sign(id, timestamp_s, body)?;
        if let Some(replaced) = self.replaced.as_ref().filter(|replaced| now_ms < replaced.until_ms) {
            signatures.push(' ');
            signatures.push_str(&replaced.secret.sign(id, timestamp_s, body)?);
        }
        Ok(signatures)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderMap;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn endpoint() -> Endpoint {
        let endpoint = Endpoint::new("acme", "https://example.com/hook", Vec::new()).expect("random bytes");
        Endpoint { verified_ms: Some(NOW_MS), ..endpoint }
    }

    /// Whether a receiver with `secret` takes what was signed just now.
    fn is_taken(endpoint: &Endpoint, secret: &Secret, body: &str) -> bool {
        let now_ms = u64::try_from(UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("small");
        let signatures = endpoint.signatures("evt_1", now_ms, "{\"ä\":1}").expect("signed");
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "evt_1".parse().expect("text"));
        headers.insert("webhook-timestamp", (now_ms / 1_000).into());
        headers.insert("webhook-signature", signatures.parse().expect("text"));
        Webhook::new(secret.expose()).expect("a secret").verify(body.as_bytes(), &headers).is_ok()
    }

    #[test]
    fn what_is_signed_is_taken_by_the_reference_implementation() {
        let endpoint = endpoint();
        assert!(is_taken(&endpoint, &endpoint.secret, "{\"ä\":1}"));
        assert!(!is_taken(&endpoint, &endpoint.secret, "{\"ä\":2}"));
        assert!(!is_taken(&endpoint, &Secret::generate().expect("random bytes"), "{\"ä\":1}"));
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
    fn while_a_secret_is_replaced_both_sign() {
        let before = endpoint();
        let far_ms = 2 * NOW_MS;
        let rotated = before.rotated(Secret::generate().expect("random bytes"), LONGEST_OVERLAP_MS, far_ms);
        assert_ne!(rotated.secret, before.secret);
        for secret in [&rotated.secret, &before.secret] {
            assert!(is_taken(&rotated, secret, "{\"ä\":1}"));
        }
        let count = |endpoint: &Endpoint, now_ms| {
            endpoint.signatures("evt_1", now_ms, "{}").expect("signed").split(' ').count()
        };
        let until_ms = far_ms + LONGEST_OVERLAP_MS;
        assert_eq!((count(&rotated, until_ms - 1), count(&rotated, until_ms)), (2, 1));
        let at_once = before.rotated(Secret::generate().expect("random bytes"), 0, far_ms);
        assert_eq!((&at_once.replaced, count(&at_once, far_ms)), (&None, 1));
    }

    #[test]
    fn an_endpoint_hears_of_what_it_wants_once_it_is_verified() {
        let all = endpoint();
        assert!(all.wants(EventType::JobFailed) && all.wants(EventType::BatchCompleted));
        let some = Endpoint { events: vec![EventType::BatchCompleted], ..endpoint() };
        assert!(!some.wants(EventType::JobFailed) && some.wants(EventType::BatchCompleted));
        assert!(!Endpoint { verified_ms: None, ..endpoint() }.wants(EventType::JobFailed));
    }

    #[test]
    fn a_secret_is_random_long_enough_and_never_shown() {
        let endpoint = endpoint();
        let rotated = endpoint.rotated(Secret::generate().expect("random bytes"), 1, NOW_MS);
        let encoded = endpoint.secret.expose().strip_prefix("whsec_").expect("the prefix");
        assert_eq!(STANDARD.decode(encoded).expect("Base64").len(), 32);
        let shown = format!("{rotated:?}");
        assert!(shown.contains("whsec_…"), "{shown}");
        assert!(!shown.contains(encoded) && !shown.contains(&rotated.secret.expose()[6..]), "{shown}");
    }

    #[test]
    fn what_the_registry_holds_is_read_as_it_was_written() {
        let rotated = endpoint().rotated(Secret::generate().expect("random bytes"), 1, NOW_MS);
        let rotated = Endpoint { events: vec![EventType::ResponseIncomplete], ..rotated };
        let written = serde_json::to_value(&rotated).expect("JSON");
        assert_eq!(written["events"][0], "response.incomplete");
        assert_eq!(serde_json::from_value::<Endpoint>(written).expect("an endpoint"), rotated);
        assert_eq!(rotated.check(), Vec::<String>::new());
        let long = Endpoint { url: "h".repeat(3_000), ..rotated };
        assert_eq!(long.check(), ["url: it has 3000 bytes; at most 2048 can be used"]);
    }
}
