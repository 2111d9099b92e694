//! S3: bodies that are too large for a row.
//!
//! The bucket encrypts its objects and deletes them when they expire. Every key begins with the
//! name of the tenant. Only the functions read the bucket.
//!
//! A bucket that is silent fails an operation after [`SILENCE`]. An upload or a download may take
//! longer, as long as bytes move.

mod upload;

use std::{error::Error, time::Duration};

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::get_object::GetObjectOutput,
    presigning::PresigningConfig,
    primitives::{ByteStream, SdkBody},
};
use bytes::{Bytes, BytesMut};

use crate::{
    connections::{MAX_SILENT_TIME, OutOfTime, TimeLimits},
    error_chain::with_causes,
    units::Millis,
};
use upload::ObservedUpload;

/// Longest silence of the bucket. S3 copies the largest object, of 64 MiB, in about a second.
const SILENCE: TimeLimits = TimeLimits { for_caller: MAX_SILENT_TIME, in_background: Duration::from_secs(20) };

/// S3 is unavailable, or refused a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bucket failed: {0}")]
pub struct BlobError(String);

/// Longest silence during one attempt at an upload, so that a caller has the patience for two.
const UPLOAD_SILENCE: TimeLimits =
    TimeLimits { for_caller: Duration::from_millis(1_200), in_background: SILENCE.in_background };

/// Maximum of attempts at an upload to a silent bucket. The SDK repeats an upload that fails.
const MAX_UPLOAD_ATTEMPTS: u32 = 2;

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

    /// Returns the name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Creates the bucket unless it exists. For deployments without a template.
    ///
    /// # Errors
    /// Returns an error if the bucket cannot be created.
    pub async fn create(client: Client, bucket: &str) -> Result<Self, BlobError> {
        match SILENCE.apply(client.create_bucket().bucket(bucket).send()).await? {
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
        let mut attempts = 1;
        loop {
            let upload = ObservedUpload::of(body.clone());
            let request = self.client.put_object().bucket(&self.bucket).key(key);
            let request = request.body(ByteStream::new(SdkBody::from(body.clone())));
            let sent = request.customize().interceptor(upload.clone()).send();
            match UPLOAD_SILENCE.apply_while(sent, || upload.progressed_at()).await {
                Ok(sent) => return Ok(sent.map(drop)?),
                Err(_) if attempts < MAX_UPLOAD_ATTEMPTS => attempts += 1,
                Err(silent) => return Err(silent.into()),
            }
        }
    }

    /// Returns a URL at which anyone can store an object of `bytes` bytes under `key`, with a `PUT`
    /// and without a key of AWS, for `valid_for`. The size is part of the signature. S3 needs no
    /// request for this.
    ///
    /// # Errors
    /// Returns an error if the function has no credentials.
    pub async fn put_url(&self, key: &str, bytes: u64, valid_for: Millis) -> Result<String, BlobError> {
        let config = PresigningConfig::expires_in(valid_for.into()).map_err(|error| BlobError(with_causes(&error)))?;
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let request = self.client.put_object().bucket(&self.bucket).key(key).content_length(bytes);
        Ok(request.presigned(config).await?.uri().to_owned())
    }

    /// Copies the object under `from` to `to`, within the bucket. Returns whether there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn copy(&self, from: &str, to: &str) -> Result<bool, BlobError> {
        let source = format!("{}/{from}", self.bucket);
        let request = self.client.copy_object().bucket(&self.bucket).copy_source(source).key(to);
        match SILENCE.apply(request.send()).await? {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("NoSuchKey") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the size of the object under `key` in bytes, if there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, BlobError> {
        match SILENCE.apply(self.client.head_object().bucket(&self.bucket).key(key).send()).await? {
            Ok(object) => Ok(object.content_length.and_then(|bytes| u64::try_from(bytes).ok())),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the sum of what `measure` makes of the sizes of all objects whose keys start with
    /// `prefix`.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn sum_sizes(&self, prefix: &str, measure: impl Fn(u64) -> u64) -> Result<u64, BlobError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let mut pages = request.into_paginator().send();
        let mut sum = 0_u64;
        while let Some(page) = SILENCE.apply(pages.next()).await? {
            let page = page?;
            let sizes = page.contents().iter().map(|object| object.size().and_then(|size| u64::try_from(size).ok()));
            sum = sum.saturating_add(sizes.map(|size| measure(size.unwrap_or_default())).sum());
        }
        Ok(sum)
    }

    /// Returns the object under `key`, if there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, BlobError> {
        let Some(object) = self.open(key).await? else { return Ok(None) };
        let bytes = object.content_length.and_then(|bytes| usize::try_from(bytes).ok());
        let mut content = BytesMut::with_capacity(bytes.unwrap_or_default());
        read_to_end(object, |chunk| content.extend_from_slice(chunk)).await?;
        Ok(Some(content.freeze()))
    }

    /// Returns the objects under `keys` as one, if all of them exist. Together they have `bytes`
    /// bytes, so that the content is in memory only once.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn get_joined(&self, keys: &[String], bytes: u64) -> Result<Option<Bytes>, BlobError> {
        let mut content = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
        for key in keys {
            if !self.read(key, |chunk| content.extend_from_slice(chunk)).await? {
                return Ok(None);
            }
        }
        Ok(Some(content.freeze()))
    }

    /// Passes the object under `key` to `on_chunk`, if there is one. Returns whether there is.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn read(&self, key: &str, on_chunk: impl FnMut(&[u8])) -> Result<bool, BlobError> {
        let Some(object) = self.open(key).await? else { return Ok(false) };
        read_to_end(object, on_chunk).await?;
        Ok(true)
    }

    async fn open(&self, key: &str) -> Result<Option<GetObjectOutput>, BlobError> {
        match SILENCE.apply(self.client.get_object().bucket(&self.bucket).key(key).send()).await? {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the object under `key`, if there is one.
    ///
    /// # Errors
    /// Returns an error if S3 is unavailable.
    pub async fn delete(&self, key: &str) -> Result<(), BlobError> {
        SILENCE.apply(self.client.delete_object().bucket(&self.bucket).key(key).send()).await??;
        Ok(())
    }
}

async fn read_to_end(mut object: GetObjectOutput, mut on_chunk: impl FnMut(&[u8])) -> Result<(), BlobError> {
    while let Some(chunk) = SILENCE.apply(object.body.next()).await? {
        on_chunk(&chunk.map_err(|error| BlobError(with_causes(&error)))?);
    }
    Ok(())
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

impl From<OutOfTime> for BlobError {
    fn from(error: OutOfTime) -> Self {
        Self(error.to_string())
    }
}
