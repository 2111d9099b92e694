//! Uploads of tenants, without their content: rows of the jobs table.

use aws_sdk_dynamodb::Client;

use super::{
    StoreError, WriteOutcome,
    documents::{DocumentAttributes, Documents},
    rows,
};
use crate::{
    batch::{MAX_UPLOAD_TIME, ResourceKind, Upload},
    quota::allowance::MIN_OBJECT_BYTES,
    retention,
    units::UnixMs,
};

/// The uploads in the jobs table.
#[derive(Clone)]
pub struct Uploads {
    documents: Documents,
}

impl Uploads {
    /// The uploads in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { documents: Documents::new(client, table) }
    }

    /// Stores a new upload.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn create(&self, upload: Upload) -> Result<Upload, StoreError> {
        self.documents.create(&attributes(&upload), upload).await
    }

    /// Returns the upload with this id, of any tenant.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn get(&self, id: &str) -> Result<Option<Upload>, StoreError> {
        if ResourceKind::from_id(id) != Some(ResourceKind::Upload) {
            return Ok(None);
        }
        self.documents.get(id).await
    }

    /// Returns the sum of the announced sizes of a tenant's uploads that have not expired, as
    /// stored bytes count. Until then, content can be sent to the URL of an upload, even if it is
    /// completed or cancelled.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn sum_open_bytes(&self, tenant: &str, now: UnixMs) -> Result<u64, StoreError> {
        let open_bytes = |upload: &Upload| match now < upload.expires_at {
            true => upload.bytes.max(MIN_OBJECT_BYTES),
            false => 0,
        };
        self.documents.sum_since(tenant, ResourceKind::Upload, now - MAX_UPLOAD_TIME, open_bytes).await
    }

    /// Replaces `read` by `changed`, if the upload has not changed since it was read.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn replace(&self, read: &Upload, changed: Upload) -> Result<WriteOutcome<Upload>, StoreError> {
        let changed = Upload { etag: rows::new_etag(), ..changed };
        self.documents.replace(&read.etag, &attributes(&changed), changed).await
    }
}

fn attributes(upload: &Upload) -> DocumentAttributes {
    DocumentAttributes {
        id: upload.id.clone(),
        tenant: upload.tenant.clone(),
        kind: ResourceKind::Upload,
        created_at: upload.created_at,
        etag: upload.etag.clone(),
        due_at: None,
        expires_s: upload.expires_at.as_s() + retention::UPLOAD_S,
    }
}
