//! Files: the uploads of tenants for batches, and the output of batches.

use serde::{Deserialize, Serialize};

use crate::units::UnixMs;

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
