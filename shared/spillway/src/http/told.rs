//! What answers tell about themselves.

use http::{HeaderName, HeaderValue};

use super::reply::header;
use crate::broker::Served;

/// What every answer tells about itself: who gave it, the output cap that is not its caller's, and the parameters that had no
/// effect.
pub fn told(ignored: &str, served: &Served) -> Vec<(HeaderName, HeaderValue)> {
    let max_tokens = served.max_tokens_set.map(|set| set.to_string());
    [
        header("x-spillway-pool", &served.pool),
        max_tokens.and_then(|set| header("x-spillway-max-tokens", &set)),
        Some(ignored).filter(|names| !names.is_empty()).and_then(|names| header("x-spillway-ignored", names)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
