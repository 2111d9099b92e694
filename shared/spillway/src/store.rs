//! DynamoDB: three tables. This module is the only one that reads and writes them.

pub mod allowances;
pub mod backlogs;
pub mod batches;
mod cache;
pub mod clock_skew;
mod documents;
mod errors;
pub mod files;
pub mod history;
pub mod idempotency;
pub mod jobs;
pub mod ledger;
mod list_index;
pub mod refusal_log;
pub mod registry;
mod rows;
pub mod tables;
pub mod uploads;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

pub use errors::{LedgerError, RegistryError, StoreError};
pub use rows::WriteOutcome;

/// A row, by attribute name.
type Item = HashMap<String, AttributeValue>;
