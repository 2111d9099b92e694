//! `x-spillway-*` response headers about how a request was served.

use http::{HeaderName, HeaderValue};

use super::Served;

impl Served {
    /// Returns headers with the pool that answered, its model if that is a substitute, the output
    /// cap if the caller set none, and the parameters without effect (`ignored`, separated by
    /// commas).
    pub fn headers(&self, ignored: &str) -> Vec<(HeaderName, HeaderValue)> {
        let max_tokens = self.max_tokens_set.map(|tokens| tokens.to_string());
        let headers = [
            ("x-spillway-pool", Some(self.pool.as_str())),
            ("x-spillway-substitute", self.substitute.as_deref()),
            ("x-spillway-max-tokens", max_tokens.as_deref()),
            ("x-spillway-ignored", Some(ignored).filter(|names| !names.is_empty())),
        ];
        let header = |(name, value): (&'static str, Option<&str>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value?).ok()?))
        };
        headers.into_iter().filter_map(header).collect()
    }
}
