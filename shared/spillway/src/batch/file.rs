//! A file: what its tenant uploads for a batch, and what a batch leaves.

use serde::{Deserialize, Serialize};

/// How long a file is kept when nobody says, in seconds: thirty days, as OpenAI keeps those of batches.
pub const KEPT_S: u64 = 30 * 24 * 60 * 60;

/// The shortest and the longest that somebody can say, in seconds (OpenAI API reference, "Upload file", `expires_after`).
pub const KEPT_BETWEEN_S: std::ops::RangeInclusive<u64> = 3_600..=KEPT_S;

/// A file without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// `file-<uuid>`.
    pub id: String,
    /// Whose file it is.
    pub tenant: String,
    /// What it is for: `batch`, or `batch_output`.
    pub purpose: String,
    /// The name that it was given.
    pub name: String,
    /// How long its content is, in bytes.
    pub bytes: u64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it goes, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl File {
    /// The key of its content in the bucket.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }
}
