//! Errors of the store, and the problems that callers receive when the store or the bucket fails.

use std::{
    error::Error,
    fmt::{Debug, Display},
};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tracing::error;

use crate::{
    blobs::BlobError,
    connections::OutOfTime,
    error_chain::with_causes,
    problem::{Kind, Problem},
    units::Millis,
};

/// An error of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is throttled, unreachable or broken, or the request timed out. It may work later,
    /// and a write may have succeeded.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// The store refused the request: a missing table, a missing permission, an invalid request. It
    /// will not work later.
    #[error("the store refused: {0}")]
    Refused(String),
    /// A row does not have the format of this version.
    #[error("{row} in the store cannot be read: {reason}")]
    Unreadable {
        /// Key of the row.
        row: String,
        /// What is wrong with the row.
        reason: String,
    },
    /// A body is too large for the store.
    #[error("{what} has {bytes} bytes, but the maximum is {limit}")]
    TooLarge {
        /// Name of the body.
        what: &'static str,
        /// Size of the body.
        bytes: usize,
        /// Maximum size.
        limit: usize,
    },
    /// This machine's clock differs too much from the store's.
    #[error("{0}; nothing is charged by a clock that is off")]
    Clock(String),
    /// Other processes kept changing the row.
    #[error("{row} in the store changes too often")]
    Contended {
        /// Key of the row.
        row: String,
    },
}

impl<E, R> From<SdkError<E, R>> for StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        let Some(service_error) = error.as_service_error() else { return Self::Unavailable(with_causes(&error)) };
        let code = service_error.code().unwrap_or("an error without a code");
        let what = format!("{code}: {}", service_error.message().unwrap_or("no message"));
        if TRANSIENT.contains(&code) { Self::Unavailable(what) } else { Self::Refused(what) }
    }
}

impl From<OutOfTime> for StoreError {
    fn from(error: OutOfTime) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Errors of DynamoDB that may not occur on the next call (Amazon DynamoDB Developer Guide, "Error
/// handling").
const TRANSIENT: [&str; 8] = [
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "an error without a code",
];

/// The registry failed, so no caller can be authenticated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too many unknown keys or callers have been looked up.
    #[error("too many unknown keys or callers have been looked up")]
    TooManyUnknown {
        /// Time until the next one is looked up.
        retry_after: Millis,
    },
}

/// The ledger failed, so no request can be admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct LedgerError(#[from] pub StoreError);

impl From<OutOfTime> for LedgerError {
    fn from(error: OutOfTime) -> Self {
        Self(error.into())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        unavailable("job store", &error)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Store(error) => unavailable("registry", &error),
            RegistryError::TooManyUnknown { retry_after } => {
                let message = "Too many requests have unknown API keys or identities. Try again.";
                Problem { retry_after: Some(retry_after), ..Problem::new(Kind::Throttled, message) }
            }
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        unavailable("ledger", &error.0)
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        unavailable("file store", &error)
    }
}

/// The problem that the caller receives. The cause is for the operator and is logged.
fn unavailable(service: &'static str, error: &impl Display) -> Problem {
    error!(service, %error, "a service is unavailable");
    Problem::unavailable(service)
}
