//! `Idempotency-Key`: the header and its rule.

use http::{HeaderMap, HeaderValue};

use crate::problem::{Kind, Problem};

/// Name of the header.
pub(super) const HEADER: &str = "idempotency-key";

/// Maximum number of characters of a key.
const MAX_LENGTH: usize = 255;

/// An `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII
/// characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<[u8]>);

impl IdempotencyKey {
    /// Reads the header. The key is a string in quotes, as in the draft, or bare, as most clients
    /// send it.
    ///
    /// # Errors
    /// Returns an error if the key is empty, too long, or has other characters.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(HEADER).map(HeaderValue::as_bytes) else { return Ok(None) };
        let key = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        if (1..=MAX_LENGTH).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) {
            return Ok(Some(Self(key.into())));
        }
        let message =
            format!("The Idempotency-Key must be 1 to {MAX_LENGTH} visible ASCII characters, such as a UUID.");
        Err(Problem { param: Some("Idempotency-Key".to_owned()), ..Problem::new(Kind::Invalid, message) })
    }

    /// The characters of the key, without quotes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_idempotency_key_is_refused() {
        for malformed in ["", "\"\"", "two words", &"k".repeat(MAX_LENGTH + 1)] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, malformed.parse().expect("a value"));
            let problem = IdempotencyKey::from_headers(&headers).expect_err("malformed");
            let refused = (problem.kind, problem.param.as_deref());
            assert_eq!(refused, (Kind::Invalid, Some("Idempotency-Key")), "{malformed}");
        }
    }
}
