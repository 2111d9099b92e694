//! Presigned URLs: the signature in the query must be valid, as on AWS. So their expiry, their
//! object and their headers cannot be changed.

use s3s::{
    S3Result,
    access::{S3Access, S3AccessContext},
    auth::{S3Auth, SecretKey},
};

/// The secrets of access keys. The stand-ins have no users, so each access key id is its own
/// secret, as in the credentials that the command uses and prints.
pub(super) struct Secrets;

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(access_key))
    }
}

/// Access for everyone, also without a signature.
pub(super) struct Everyone;

#[async_trait::async_trait]
impl S3Access for Everyone {
    async fn check(&self, _context: &mut S3AccessContext<'_>) -> S3Result<()> {
        Ok(())
    }
}
