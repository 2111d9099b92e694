//! What becomes of requests to a silent pool.

use serde::{Deserialize, Serialize};

/// What becomes of a request whose stream has no event in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSilence {
    /// The request fails. The model may have worked on it, so the request stays charged.
    #[default]
    Fail,
    /// The next pool is called. Both calls may be billed, and both are charged.
    NextPool,
}
