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
    /// Keys of the objects that the content consists of, in order. None if it is the single object
    /// [`key`](Self::key).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

impl File {
    /// Key of content that is a single object.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.id)
    }

    /// Keys of the content in the bucket, in order.
    pub fn keys(&self) -> Vec<String> {
        if self.objects.is_empty() { vec![self.key()] } else { self.objects.clone() }
    }
}
