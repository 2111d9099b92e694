//! HTTP headers as text, for storing them beside a body and reading them back.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Headers as pairs of lower-case name and value, in the order in which they were sent.
///
/// A header whose value is not ASCII text is left out when headers are stored, and a pair that is
/// not a valid header is left out when they are read back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredHeaders(Vec<(String, String)>);

impl StoredHeaders {
    /// The value of the first header called `name`, which must be lower-case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(stored, _)| stored == name).map(|(_, value)| value.as_str())
    }

    /// Returns the headers in the types of the `http` crate.
    pub fn parse(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        self.0.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
    }

    /// Whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&HeaderMap> for StoredHeaders {
    fn from(headers: &HeaderMap) -> Self {
        headers.iter().collect()
    }
}

impl From<&[(HeaderName, HeaderValue)]> for StoredHeaders {
    fn from(headers: &[(HeaderName, HeaderValue)]) -> Self {
        headers.iter().map(|(name, value)| (name, value)).collect()
    }
}

impl From<&StoredHeaders> for HeaderMap {
    fn from(headers: &StoredHeaders) -> Self {
        headers.parse().collect()
    }
}

impl<'h> FromIterator<(&'h HeaderName, &'h HeaderValue)> for StoredHeaders {
    fn from_iter<I: IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>>(headers: I) -> Self {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        Self(headers.into_iter().filter_map(text).collect())
    }
}

impl<'h> FromIterator<(&'h str, &'h str)> for StoredHeaders {
    fn from_iter<I: IntoIterator<Item = (&'h str, &'h str)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for StoredHeaders {
    fn from(headers: [(&str, &str); N]) -> Self {
        headers.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_storing() {
        let mut map = HeaderMap::new();
        map.append("retry-after", HeaderValue::from_static("7"));
        map.append("link", HeaderValue::from_static("a"));
        map.append("link", HeaderValue::from_static("b"));
        let json = serde_json::to_string(&StoredHeaders::from(&map)).expect("JSON");
        assert_eq!(json, r#"[["retry-after","7"],["link","a"],["link","b"]]"#);
        let stored: StoredHeaders = serde_json::from_str(&json).expect("headers");
        assert_eq!(HeaderMap::from(&stored), map);
    }

    #[test]
    fn invalid_headers_are_left_out() {
        let pairs = [(HeaderName::from_static("x-a"), HeaderValue::from_bytes(b"\xff").expect("a value"))];
        assert!(StoredHeaders::from(&pairs[..]).is_empty());
        let stored = StoredHeaders::from([("no name", "a"), ("x-a", "line\nbreak"), ("x-b", "c")]);
        assert_eq!(stored.parse().collect::<Vec<_>>(), [("x-b".parse().unwrap(), "c".parse().unwrap())]);
        assert_eq!(stored.get("x-b"), Some("c"));
        assert_eq!(stored.get("x-c"), None);
    }
}
