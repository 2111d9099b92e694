//! Why a store did not do what it was asked, and what a caller reads then.

use std::{error::Error, fmt::Debug};

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use tracing::error;

use crate::{error_chain::with_causes, problem::Problem};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Throttled, timed out, unreachable or broken: it may work later, and what was written may have been written.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
    /// It understood and refused: a missing table, a missing permission, an invalid request. It will not work later.
    #[error("the store refused: {0}")]
    Refused(String),
    /// A row is not what this version writes.
    #[error("{row} in the store cannot be read: {why}")]
    Unreadable {
        /// The row's key.
        row: String,
        /// What is wrong with it.
        why: String,
    },
    /// A body does not fit in a row.
    #[error("{what} has {bytes} bytes; the store takes {limit}")]
    TooLarge {
        /// Which body.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The most it may have.
        limit: usize,
    },
    /// This machine's clock is not what the store's is.
    #[error("{0}; nothing is charged by a clock that is off")]
    Clock(String),
    /// Others kept changing the row.
    #[error("{row} in the store changes too often")]
    Contended {
        /// The row's key.
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
        if PASSING.contains(&code) { Self::Unavailable(what) } else { Self::Refused(what) }
    }
}

/// The errors of DynamoDB that may be gone on the next call (Amazon DynamoDB Developer Guide, "Error handling").
const PASSING: [&str; 8] = [
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "an error without a code",
];

/// The registry failed: without it no caller is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct RegistryError(#[from] pub StoreError);

/// The ledger failed: without it nothing is admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct LedgerError(#[from] pub StoreError);

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        unavailable("job store", &error)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        unavailable("registry", &error.0)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        unavailable("ledger", &error.0)
    }
}

/// The answer to a caller. The cause is for the operator and goes to the log.
fn unavailable(service: &str, error: &StoreError) -> Problem {
    error!(service, %error, "a service is unavailable");
    Problem::unavailable(service)
}
