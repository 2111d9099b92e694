//! Files: the uploads of tenants for batches, and the output of batches.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::units::UnixMs;

/// How long a file is kept by default, in seconds: thirty days, as OpenAI keeps the files of
/// batches.
pub const FILE_RETENTION_S: u64 = 30 * 24 * 60 * 60;

/// The retentions that a tenant may choose, in seconds (OpenAI API reference, "Upload file",
/// `expires_after`).
pub const FILE_RETENTION_RANGE_S: RangeInclusive<u64> = 3_600..=FILE_RETENTION_S;

/// A file without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// `file-<uuid>`.
    pub id: String,
    /// Name of the tenant.
    pub tenant: String,
    /// Purpose: `batch` or `batch_output`.
    pub purpose: String,
    /// Name from the upload.
    pub name: String,
    /// Size of the content in bytes.
    pub bytes: u64,
    /// Time when the file was created.
    #[serde(rename = "created_ms")]
    pub created_at: UnixMs,
    /// Time when the file is deleted.
    #[serde(rename = "expires_ms")]
    pub expires_at: UnixMs,
}

impl File {
    /// Key of the content in the bucket.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }
}
