//! Which requests are attempts at one call. Pure.

use http::{HeaderMap, HeaderValue, Method};
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};

/// The most characters of an `Idempotency-Key`.
pub const MAX_KEY_LENGTH: usize = 255;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const AMZ_INVOCATION: &str = "amz-sdk-invocation-id";
const AMZ_REQUEST: &str = "amz-sdk-request";
const STAINLESS_COUNT: &str = "x-stainless-retry-count";
/// The clients of OpenAI and Anthropic tell their own timeout, in seconds: in Python by the first, elsewhere by the second.
const STAINLESS_TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];

/// An `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<[u8]>);

impl IdempotencyKey {
    /// Reads the header: a string in quotes, as the draft has it, or bare, as most clients send it.
    ///
    /// # Errors
    /// Returns an error if the key is empty, too long, or has other characters.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes) else { return Ok(None) };
        let key = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        if (1..=MAX_KEY_LENGTH).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) {
            return Ok(Some(Self(key.into())));
        }
        let message = format!("An Idempotency-Key has 1 to {MAX_KEY_LENGTH} visible ASCII characters, such as a UUID.");
        Err(Problem { param: Some("Idempotency-Key".to_owned()), ..Problem::new(Kind::Invalid, message) })
    }

    /// The characters of the key, without quotes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What makes a request an attempt at a call: the same of two requests means that they are the same call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Names the call; holds its tenant, so that no tenant ever meets another's.
    pub key: [u8; 32],
    /// What is asked: method, path, the headers that an answer depends on, and body.
    pub payload: [u8; 32],
    /// How the caller named the call.
    pub name: Name,
}

/// How a caller names a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// By an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): it asks for one call, whatever happens.
    Explicit,
    /// By an id that an AWS SDK sends with all attempts at a call.
    Invocation { is_repetition: bool },
    /// Not at all: SDKs made by Stainless only count their attempts, so a repetition is known by asking the same again.
    /// `patience_ms` is how long such a client waits for an answer, if it tells.
    Counted { is_repetition: bool, patience_ms: Option<u64> },
}

impl Name {
    /// Whether there was an attempt before this one, as far as the caller says.
    pub fn is_repetition(self) -> bool {
        match self {
            Self::Explicit => true,
            Self::Invocation { is_repetition } | Self::Counted { is_repetition, .. } => is_repetition,
        }
    }
}

/// Whether [`Identity::for_request`] can find one in `headers`: without, nothing has to be hashed.
pub fn is_named(headers: &HeaderMap) -> bool {
    [IDEMPOTENCY_KEY, AMZ_INVOCATION, STAINLESS_COUNT].iter().any(|name| headers.contains_key(*name))
}

impl Identity {
    /// Returns the identity of a request of `tenant`, if it has one. `key` is its `Idempotency-Key`; `target` is path and
    /// query.
    pub fn for_request(
        tenant: &str,
        key: Option<&IdempotencyKey>,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Self> {
        let payload = payload(method, target, headers, body);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let identity = |kind: &str, id: &[u8], name: Name| {
            Some(Self { key: digest([tenant.as_bytes(), kind.as_bytes(), id]), payload, name })
        };
        if let Some(key) = key {
            return identity("explicit", key.as_bytes(), Name::Explicit);
        }
        let invocation = text(AMZ_INVOCATION);
        if !invocation.is_empty() {
            let name = Name::Invocation { is_repetition: sdk_attempt(text(AMZ_REQUEST)).is_some_and(|n| n > 1) };
            // With what is asked: an id that somebody else made up again reads no answer to another question.
            let id = digest([invocation.as_bytes(), &payload]);
            return identity("invocation", &id, name);
        }
        let count = text(STAINLESS_COUNT).parse::<u32>().ok()?;
        let name = Name::Counted { is_repetition: count > 0, patience_ms: client_timeout_ms(headers) };
        identity("counted", &payload, name)
    }
}

/// Timeout that the client announces, in milliseconds.
pub fn client_timeout_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds = |name: &&str| headers.get(*name)?.to_str().ok()?.parse::<f64>().ok();
    let patience_s = STAINLESS_TIMEOUTS.iter().find_map(seconds);
    // A float that is no number of milliseconds becomes the nearest that is.
    patience_s.filter(|seconds| *seconds > 0.0).map(|seconds| (seconds * 1_000.0) as u64)
}

/// What is asked. Credentials, signatures and dates differ between attempts and are no part of it.
fn payload(method: &Method, target: &str, headers: &HeaderMap, body: &[u8]) -> [u8; 32] {
    let is_asked = |name: &str| name.starts_with("anthropic-") || name.starts_with("x-amzn-bedrock-");
    let mut asked: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| is_asked(name))
        .collect();
    asked.sort_unstable();
    let asked = asked.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
    digest([method.as_str().as_bytes(), target.as_bytes(), body].into_iter().chain(asked))
}

/// The number in `attempt=2; max=3`.
fn sdk_attempt(request: &str) -> Option<u32> {
    request.split(';').find_map(|part| part.trim().strip_prefix("attempt=")?.parse().ok())
}

/// A digest of several texts, each with its length, so that none can pass for another's part.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut sha256 = Sha256::new();
    for part in parts {
        sha256.update(part.len().to_be_bytes());
        sha256.update(part);
    }
    sha256.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    fn of(tenant: &str, target: &str, pairs: &[(&'static str, &'static str)], body: &str) -> Option<Identity> {
        {
            let headers = headers(pairs);
            let key = IdempotencyKey::from_headers(&headers).expect("a valid key");
            Identity::for_request(tenant, key.as_ref(), &Method::POST, target, &headers, body.as_bytes())
        }
    }

    #[test]
    fn what_names_no_call_has_no_identity() {
        let plain = [("content-type", "application/json"), ("user-agent", "curl/8")];
        assert!(!is_named(&headers(&plain)));
        assert_eq!(of("t", "/v1/messages", &plain, "{}"), None);
        assert_eq!(of("t", "/v1/messages", &[("x-stainless-retry-count", "many")], "{}"), None);
        assert_eq!(of("t", "/v1/messages", &[("amz-sdk-invocation-id", "")], "{}"), None);
    }

    #[test]
    fn attempts_with_one_invocation_id_are_one_call() {
        let first = [("amz-sdk-invocation-id", "i"), ("amz-sdk-request", "attempt=1; max=3"), ("authorization", "a")];
        let second = [("amz-sdk-invocation-id", "i"), ("amz-sdk-request", "ttl=1; attempt=2"), ("authorization", "b")];
        let (first, second) = (of("t", "/p", &first, "{}").expect("one"), of("t", "/p", &second, "{}").expect("one"));
        assert_eq!((first.key, first.payload), (second.key, second.payload));
        assert_eq!(first.name, Name::Invocation { is_repetition: false });
        assert_eq!(second.name, Name::Invocation { is_repetition: true });
    }

    #[test]
    fn attempts_of_a_stainless_sdk_are_known_by_what_they_ask() {
        let python = [("x-stainless-retry-count", "1"), ("x-stainless-read-timeout", "2.5")];
        let python = of("t", "/p", &python, "{}").expect("one");
        assert_eq!(python.name, Name::Counted { is_repetition: true, patience_ms: Some(2_500) });
        let node = [("x-stainless-retry-count", "0"), ("x-stainless-timeout", "600")];
        let node = of("t", "/p", &node, "{}").expect("one");
        assert_eq!(node.name, Name::Counted { is_repetition: false, patience_ms: Some(600_000) });
        assert_eq!(python.key, node.key);
        let untold = [("x-stainless-retry-count", "0"), ("x-stainless-timeout", "NOT_GIVEN")];
        let untold = of("t", "/p", &untold, "{}").expect("one");
        assert_eq!(untold.name, Name::Counted { is_repetition: false, patience_ms: None });
    }

    #[test]
    fn another_tenant_body_path_or_header_is_another_call() {
        for named in [("amz-sdk-invocation-id", "i"), ("x-stainless-retry-count", "1")] {
            let one = of("t", "/p", &[named], "{}").expect("one");
            let others = [
                of("u", "/p", &[named], "{}"),
                of("t", "/p?beta=true", &[named], "{}"),
                of("t", "/p", &[named], "{ }"),
                of("t", "/p", &[named, ("anthropic-beta", "b")], "{}"),
                of("t", "/p", &[named, ("x-amzn-bedrock-guardrailidentifier", "g")], "{}"),
            ];
            for other in others {
                assert_ne!(one.key, other.expect("one").key);
            }
        }
    }

    #[test]
    fn an_idempotency_key_names_the_call_and_tells_when_something_else_is_asked() {
        let key = [("idempotency-key", "\"k\""), ("amz-sdk-invocation-id", "i")];
        let one = of("t", "/p", &key, "{}").expect("one");
        let bare = of("t", "/p", &[("idempotency-key", "k")], "{}").expect("one");
        assert_eq!(one, bare);
        assert_eq!(one.name, Name::Explicit);
        let other = of("t", "/p", &key, "{ }").expect("one");
        assert_eq!(one.key, other.key);
        assert_ne!(one.payload, other.payload);
        assert_ne!(one.key, of("u", "/p", &key, "{}").expect("one").key);
    }

    #[test]
    fn an_idempotency_key_that_cannot_be_one_is_refused() {
        for bad in ["", "\"\"", "two words", &"k".repeat(MAX_KEY_LENGTH + 1)] {
            let mut headers = HeaderMap::new();
            headers.insert(IDEMPOTENCY_KEY, bad.parse().expect("a value"));
            let refused = IdempotencyKey::from_headers(&headers).expect_err("refused");
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, Some("Idempotency-Key")), "{bad}");
        }
    }

    #[test]
    fn parts_of_a_digest_do_not_run_into_each_other() {
        assert_ne!(digest([&b"ab"[..], b"c"]), digest([&b"a"[..], b"bc"]));
    }
}
