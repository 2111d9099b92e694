//! S3: bodies that are too large for a row.
//!
//! The bucket encrypts its objects and deletes them when they expire. Every key begins with the
//! name of the tenant. Only the functions read the bucket.

use std::error::Error;

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, SdkBody},
};
use bytes::Bytes;

use crate::error_chain::with_causes;

/// S3 is unavailable, or refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bucket failed: {0}")]
pub struct BlobError(String);

/// The bucket.
#[derive(Debug, Clone)]
pub struct Blobs {
    client: Client,
    bucket: String,
}

impl Blobs {
    /// The bucket called `bucket`.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// Creates the bucket unless it exists. For deployments without a template.
    ///
    /// # Errors
    /// Returns an error if the bucket cannot be created.
    pub async fn create(client: Client, bucket: &str) -> Result<Self, BlobError> {
        match client.create_bucket().bucket(bucket).send().await {
            Ok(_) => {}
            Err(error)
                if error.as_service_error().is_some_and(|error| {
                    error.is_bucket_already_owned_by_you() || error.is_bucket_already_exists()
                }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self::new(client, bucket))
    }

    /// Stores `body` under `key`, replacing an existing object. The request names no cipher,
    /// because it would override the key that the bucket is configured with (Amazon S3 User Guide,
    /// "Setting default server-side encryption behavior").
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), BlobError> {
        let request = self.client.put_object().bucket(&self.bucket).key(key);
        request.body(ByteStream::new(SdkBody::from(body))).send().await?;
        Ok(())
    }

    /// Returns the object under `key`, if there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let body = object.body.collect().await.map_err(|error| BlobError(with_causes(&error)))?;
        Ok(Some(body.into_bytes()))
    }

    /// Deletes the object under `key`, if there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        self.client.delete_object().bucket(&self.bucket).key(key).send().await?;
        Ok(())
    }
}

impl<E, R> From<SdkError<E, R>> for BlobError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        Self(with_causes(&error))
    }
}
