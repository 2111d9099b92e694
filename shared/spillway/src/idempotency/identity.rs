//! Call identity: which requests are attempts at one call.

use http::{HeaderMap, request::Parts};
use sha2::{Digest, Sha256};

use super::key::{self, IdempotencyKey};
use crate::units::Millis;

const SDK_INVOCATION_ID: &str = "amz-sdk-invocation-id";
const SDK_REQUEST: &str = "amz-sdk-request";
const STAINLESS_RETRY_COUNT: &str = "x-stainless-retry-count";

/// Headers in which the OpenAI and Anthropic SDKs send their timeout in seconds: the first in
/// Python, the second in other languages.
const STAINLESS_TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];

/// Default read timeout of boto3 and the AWS CLI (botocore, `DEFAULT_TIMEOUT`). An AWS SDK does not
/// announce its timeout.
const AWS_READ_TIMEOUT: Millis = Millis::from_s(60);

/// Identity of a call. Requests with the same key are attempts at one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallIdentity {
    /// Key of the call: a digest that includes the tenant, so that tenants never share a call.
    pub key: [u8; 32],
    /// Digest of the request: its method, path and body, and the headers that the answer depends
    /// on. An explicit key must not be used for requests with different fingerprints.
    pub fingerprint: [u8; 32],
    /// Source of the key.
    pub source: KeySource,
}

/// Source of the key of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// An `Idempotency-Key` header. The call must run once, even across processes.
    Explicit,
    /// The invocation id that an AWS SDK sends with all attempts at a call.
    SdkInvocation { is_retry: bool },
    /// The fingerprint of the request. SDKs made by Stainless send no id, only the number of the
    /// retry, so a retry is recognised by its content. `client_timeout` is the timeout that the
    /// client announces.
    Fingerprint { is_retry: bool, client_timeout: Option<Millis> },
}

impl KeySource {
    /// Whether there may be an earlier attempt. The first request with an `Idempotency-Key` looks
    /// like its retries.
    pub fn may_be_retry(self) -> bool {
        match self {
            Self::Explicit => true,
            Self::SdkInvocation { is_retry } | Self::Fingerprint { is_retry, .. } => is_retry,
        }
    }
}

impl KeySource {
    /// Whether a retry in another process can find the call. Without a timeout, nothing shows that
    /// a request with the same content is a retry.
    pub fn is_found_by_retries(self) -> bool {
        self.patience().is_some()
    }

    /// Whether a retry may arrive after the end of a call whose client `waited` for the first byte
    /// of its answer. No SDK sends a request again once it has read a byte of the answer.
    pub fn expects_retry(self, waited: Millis) -> bool {
        self.patience().is_some_and(|patience| patience <= waited)
    }

    /// Returns the time after which the client sends its request again.
    fn patience(self) -> Option<Millis> {
        match self {
            // The client may send it again at any time.
            Self::Explicit => Some(Millis::ZERO),
            Self::SdkInvocation { .. } => Some(AWS_READ_TIMEOUT),
            Self::Fingerprint { client_timeout, .. } => client_timeout,
        }
    }
}

/// Whether `headers` contain one that a [`CallIdentity`] can be made from. Other requests need not
/// be hashed.
pub fn has_retry_headers(headers: &HeaderMap) -> bool {
    [key::HEADER, SDK_INVOCATION_ID, STAINLESS_RETRY_COUNT].iter().any(|name| headers.contains_key(*name))
}

impl CallIdentity {
    /// Returns the identity of the call that a request of `tenant` is an attempt at, or `None` if
    /// no header identifies it. `key` is the `Idempotency-Key` of the request.
    pub fn for_request(tenant: &str, key: Option<&IdempotencyKey>, parts: &Parts, body: &[u8]) -> Option<Self> {
        let fingerprint = fingerprint(parts, body);
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let identity = |kind: &str, id: &[u8], source: KeySource| {
            Some(Self { key: digest([tenant.as_bytes(), kind.as_bytes(), id]), fingerprint, source })
        };
        if let Some(key) = key {
            return identity("explicit", key.as_bytes(), KeySource::Explicit);
        }
        let invocation = text(SDK_INVOCATION_ID);
        if !invocation.is_empty() {
            let is_retry = sdk_attempt(text(SDK_REQUEST)).is_some_and(|attempt| attempt > 1);
            // With the fingerprint: a client that reuses an id must not get the answer to another
            // request.
            let id = digest([invocation.as_bytes(), &fingerprint]);
            return identity("invocation", &id, KeySource::SdkInvocation { is_retry });
        }
        let count = text(STAINLESS_RETRY_COUNT).parse::<u32>().ok()?;
        let client_timeout = client_timeout(&parts.headers);
        identity("counted", &fingerprint, KeySource::Fingerprint { is_retry: count > 0, client_timeout })
    }
}

/// Returns the timeout that the client announces.
pub fn client_timeout(headers: &HeaderMap) -> Option<Millis> {
    let seconds = |name: &&str| headers.get(*name)?.to_str().ok()?.parse::<f64>().ok();
    let timeout_s = STAINLESS_TIMEOUTS.iter().find_map(seconds).filter(|seconds| *seconds > 0.0)?;
    // The cast saturates: an infinite timeout becomes the longest length.
    Some(Millis::from_ms((timeout_s * 1_000.0) as u64))
}

/// Digest of a request, without credentials, signatures and dates, which differ between attempts.
fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let is_relevant = |name: &str| name.starts_with("anthropic-") || name.starts_with("x-amzn-bedrock-");
    let mut headers: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| is_relevant(name))
        .collect();
    headers.sort_unstable();
    let headers = headers.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
    digest([parts.method.as_str().as_bytes(), target.as_bytes(), body].into_iter().chain(headers))
}

/// Returns the number of the attempt in a header such as `attempt=2; max=3`.
fn sdk_attempt(request: &str) -> Option<u32> {
    request.split(';').find_map(|part| part.trim().strip_prefix("attempt=")?.parse().ok())
}

/// Digest of several parts. Each part is preceded by its length, so that bytes cannot move from one
/// part to the next.
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

    type Headers<'a> = &'a [(&'static str, &'static str)];

    fn parts(target: &str, headers: Headers<'_>) -> Parts {
        let mut request = http::Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn identity(tenant: &str, target: &str, headers: Headers<'_>, body: &str) -> Option<CallIdentity> {
        let parts = parts(target, headers);
        let key = IdempotencyKey::from_headers(&parts.headers).expect("a valid key");
        CallIdentity::for_request(tenant, key.as_ref(), &parts, body.as_bytes())
    }

    #[test]
    fn a_request_without_retry_headers_has_no_identity() {
        let plain = [("content-type", "application/json"), ("user-agent", "curl/8")];
        assert!(!has_retry_headers(&parts("/v1/messages", &plain).headers));
        assert_eq!(identity("t", "/v1/messages", &plain, "{}"), None);
    }

    #[test]
    fn a_request_with_malformed_retry_headers_has_no_identity() {
        assert_eq!(identity("t", "/v1/messages", &[("x-stainless-retry-count", "many")], "{}"), None);
        assert_eq!(identity("t", "/v1/messages", &[("amz-sdk-invocation-id", "")], "{}"), None);
    }

    #[test]
    fn attempts_with_one_invocation_id_are_one_call() {
        let first = [("amz-sdk-invocation-id", "i"), ("amz-sdk-request", "attempt=1; max=3"), ("authorization", "a")];
        let second = [("amz-sdk-invocation-id", "i"), ("amz-sdk-request", "ttl=1; attempt=2"), ("authorization", "b")];
        let first = identity("t", "/p", &first, "{}").expect("an identity");
        let second = identity("t", "/p", &second, "{}").expect("an identity");
        assert_eq!((first.key, first.fingerprint), (second.key, second.fingerprint));
        assert_eq!(first.source, KeySource::SdkInvocation { is_retry: false });
        assert_eq!(second.source, KeySource::SdkInvocation { is_retry: true });
    }

    #[test]
    fn attempts_of_a_stainless_sdk_are_recognised_by_their_content() {
        let python = [("x-stainless-retry-count", "1"), ("x-stainless-read-timeout", "2.5")];
        let python = identity("t", "/p", &python, "{}").expect("an identity");
        let client_timeout = Some(Millis::from_ms(2_500));
        assert_eq!(python.source, KeySource::Fingerprint { is_retry: true, client_timeout });
        let node = [("x-stainless-retry-count", "0"), ("x-stainless-timeout", "600")];
        let node = identity("t", "/p", &node, "{}").expect("an identity");
        let client_timeout = Some(Millis::from_s(600));
        assert_eq!(node.source, KeySource::Fingerprint { is_retry: false, client_timeout });
        assert_eq!(python.key, node.key);
        let no_timeout = [("x-stainless-retry-count", "0"), ("x-stainless-timeout", "NOT_GIVEN")];
        let no_timeout = identity("t", "/p", &no_timeout, "{}").expect("an identity");
        assert_eq!(no_timeout.source, KeySource::Fingerprint { is_retry: false, client_timeout: None });
    }

    #[test]
    fn a_retry_is_expected_once_the_client_has_timed_out() {
        let aws = KeySource::SdkInvocation { is_retry: false };
        assert!(!aws.expects_retry(Millis::from_ms(59_999)) && aws.expects_retry(Millis::from_s(60)));
        let counted = |client_timeout| KeySource::Fingerprint { is_retry: false, client_timeout };
        let impatient = counted(Some(Millis::from_s(5)));
        assert!(!impatient.expects_retry(Millis::from_ms(4_999)) && impatient.expects_retry(Millis::from_s(5)));
        assert!(!counted(None).expects_retry(Millis::MAX) && !counted(None).is_found_by_retries());
        assert!(KeySource::Explicit.expects_retry(Millis::ZERO));
    }

    #[test]
    fn a_different_tenant_body_path_or_header_is_a_different_call() {
        for header in [("amz-sdk-invocation-id", "i"), ("x-stainless-retry-count", "1")] {
            let call = identity("t", "/p", &[header], "{}").expect("an identity");
            let different = [
                identity("u", "/p", &[header], "{}"),
                identity("t", "/p?beta=true", &[header], "{}"),
                identity("t", "/p", &[header], "{ }"),
                identity("t", "/p", &[header, ("anthropic-beta", "b")], "{}"),
                identity("t", "/p", &[header, ("x-amzn-bedrock-guardrailidentifier", "g")], "{}"),
            ];
            for different in different {
                assert_ne!(call.key, different.expect("an identity").key);
            }
        }
    }

    #[test]
    fn the_fingerprint_shows_that_an_idempotency_key_is_used_for_a_different_request() {
        let headers = [("idempotency-key", "\"k\""), ("amz-sdk-invocation-id", "i")];
        let quoted = identity("t", "/p", &headers, "{}").expect("an identity");
        let bare = identity("t", "/p", &[("idempotency-key", "k")], "{}").expect("an identity");
        assert_eq!(quoted, bare);
        assert_eq!(quoted.source, KeySource::Explicit);
        let different = identity("t", "/p", &headers, "{ }").expect("an identity");
        assert_eq!(quoted.key, different.key);
        assert_ne!(quoted.fingerprint, different.fingerprint);
        assert_ne!(quoted.key, identity("u", "/p", &headers, "{}").expect("an identity").key);
    }

    #[test]
    fn bytes_that_move_between_parts_change_the_digest() {
        assert_ne!(digest([&b"ab"[..], b"c"]), digest([&b"a"[..], b"bc"]));
    }
}
