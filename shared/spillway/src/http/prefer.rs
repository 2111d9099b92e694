//! The `Prefer` header (RFC 7240): whether the caller can wait for its answer.

use http::HeaderMap;

/// What the caller prefers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `respond-async`: a job is as good as an answer.
    pub respond_async: bool,
    /// `wait=N`: how long to try for an answer first, in milliseconds.
    pub wait_ms: Option<u64>,
}

/// Reads all `Prefer` headers; preferences that we do not know are ignored, as the RFC asks.
pub fn prefer(headers: &HeaderMap) -> Prefer {
    let mut prefer = Prefer::default();
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    for preference in values.flat_map(|value| value.split(',')) {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "respond-async" => prefer.respond_async = true,
            "wait" => {
                prefer.wait_ms = value.trim().trim_matches('"').parse::<u64>().ok().map(|s| s.saturating_mul(1_000));
            }
            _ => {}
        }
    }
    prefer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().expect("a header value"));
        }
        prefer(&headers)
    }

    #[test]
    fn preferences_combine_over_one_or_many_headers() {
        let both = Prefer { respond_async: true, wait_ms: Some(5_000) };
        assert_eq!(read(&["respond-async, wait=5"]), both);
        assert_eq!(read(&["Respond-Async; foo=bar", "wait=\"5\""]), both);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        assert_eq!(read(&["return=minimal, wait=soon"]), Prefer::default());
        assert_eq!(read(&[]), Prefer::default());
    }
}
