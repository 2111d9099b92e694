//! Bodies: in a row, or in the bucket if they are too large for one (the claim check pattern).
//!
//! A body is in the bucket before a row refers to it. The row has the digest of the body, so that
//! no other object is ever taken for it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::MAX_ROW_BODY_BYTES;
use crate::{
    blobs::{BlobError, Blobs},
    store::{StoreError, rows::unreadable},
};

/// Maximum size of a body in the bucket: larger than any request, and than any answer of a model.
const MAX_BLOB_BYTES: usize = 64 * 1024 * 1024;

/// Location of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyLocation {
    /// In the row itself.
    Row(Bytes),
    /// In the bucket, under this key, with this size and this SHA-256.
    Blob { key: String, bytes: u64, sha256: Bytes },
}

/// Stores bodies and reads them back.
#[derive(Clone)]
pub(super) struct Bodies {
    blobs: Option<Blobs>,
}

impl Bodies {
    /// Bodies in rows and in `blobs`. Without a bucket, every body must fit in a row.
    pub(super) fn new(blobs: Option<Blobs>) -> Self {
        Self { blobs }
    }

    /// Stores `body` under `key` if it belongs in the bucket. Returns its location.
    pub(super) async fn store(
        &self,
        what: &'static str,
        key: String,
        body: &Bytes,
    ) -> Result<BodyLocation, StoreError> {
        let limit = if self.blobs.is_some() { MAX_BLOB_BYTES } else { MAX_ROW_BODY_BYTES };
        match &self.blobs {
            _ if body.len() <= MAX_ROW_BODY_BYTES => Ok(BodyLocation::Row(body.clone())),
            Some(blobs) if body.len() <= limit => {
                blobs.put(&key, body.clone()).await?;
                Ok(BodyLocation::Blob { key, bytes: body.len() as u64, sha256: digest(body) })
            }
            _ => Err(StoreError::TooLarge { what, bytes: body.len(), limit }),
        }
    }

    /// Reads the body at `location`.
    pub(super) async fn fetch(&self, location: BodyLocation) -> Result<Bytes, StoreError> {
        let (key, bytes, sha256) = match location {
            BodyLocation::Row(body) => return Ok(body),
            BodyLocation::Blob { key, bytes, sha256 } => (key, bytes, sha256),
        };
        let blobs = self.blobs.as_ref().ok_or_else(|| unreadable(&key, "no bucket is configured"))?;
        let body = blobs.get(&key).await?.ok_or_else(|| unreadable(&key, "it is gone"))?;
        if body.len() as u64 == bytes && digest(&body) == sha256 {
            Ok(body)
        } else {
            Err(unreadable(&key, "its digest differs from the one in the row"))
        }
    }

    /// Deletes the body under `key` in the bucket.
    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match &self.blobs {
            Some(blobs) => Ok(blobs.delete(key).await?),
            None => Ok(()),
        }
    }
}

fn digest(body: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(body))
}

impl From<BlobError> for StoreError {
    fn from(error: BlobError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
