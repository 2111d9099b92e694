//! Bodies: in a row, or where they are too large for one in the bucket (the claim check pattern). What is in the bucket is
//! there before a row names it, and a row names its digest, so that nothing else is ever taken for it.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::MAX_ROW_BODY_BYTES;
use crate::{
    blobs::{BlobError, Blobs},
    store::StoreError,
};

/// The most bytes of a body in the bucket: more than a request can have, and what one answer of a model can come to.
const LARGEST_BLOB: usize = 64 * 1024 * 1024;

/// Where a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the row itself.
    Row(Bytes),
    /// In the bucket: under which key, of how many bytes and with which SHA-256.
    Blob { key: String, bytes: u64, sha256: Bytes },
}

/// Puts bodies into their places.
#[derive(Clone)]
pub(super) struct Bodies {
    blobs: Option<Blobs>,
}

impl Bodies {
    /// Without a bucket, everything must fit in a row.
    pub(super) fn new(blobs: Option<Blobs>) -> Self {
        Self { blobs }
    }

    /// Finds a place for `body`, which is under `key` if it is in the bucket.
    pub(super) async fn place(&self, what: &'static str, key: String, body: &Bytes) -> Result<Place, StoreError> {
        let limit = if self.blobs.is_some() { LARGEST_BLOB } else { MAX_ROW_BODY_BYTES };
        match &self.blobs {
            _ if body.len() <= MAX_ROW_BODY_BYTES => Ok(Place::Row(body.clone())),
            Some(blobs) if body.len() <= limit => {
                blobs.put(&key, body.clone()).await?;
                Ok(Place::Blob { key, bytes: body.len() as u64, sha256: digest(body) })
            }
            _ => Err(StoreError::TooLarge { what, bytes: body.len(), limit }),
        }
    }

    /// The body at `place`.
    pub(super) async fn fetch(&self, place: Place) -> Result<Bytes, StoreError> {
        let (key, bytes, sha256) = match place {
            Place::Row(body) => return Ok(body),
            Place::Blob { key, bytes, sha256 } => (key, bytes, sha256),
        };
        let unreadable = |why: &str| StoreError::Unreadable { row: key.clone(), why: why.to_owned() };
        let blobs = self.blobs.as_ref().ok_or_else(|| unreadable("there is no bucket"))?;
        let body = blobs.get(&key).await?.ok_or_else(|| unreadable("it is gone"))?;
        if body.len() as u64 == bytes && digest(&body) == sha256 {
            Ok(body)
        } else {
            Err(unreadable("it is not what was put there"))
        }
    }

    /// Deletes what is in the bucket under `key`.
    pub(super) async fn discard(&self, key: &str) -> Result<(), StoreError> {
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
