//! DynamoDB: what Spillway knows beyond one request. Three tables, each with one reader and writer here.

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
pub mod refusal_log;
pub mod registry;
pub mod tables;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

pub use errors::{LedgerError, RegistryError, StoreError};

/// A row, by attribute name.
type Item = HashMap<String, AttributeValue>;
