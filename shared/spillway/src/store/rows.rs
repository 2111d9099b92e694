//! Rows of the jobs table: how they are read and written, whatever they contain.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    operation::{
        put_item::{PutItemError, builders::PutItemFluentBuilder},
        update_item::builders::UpdateItemFluentBuilder,
    },
    primitives::Blob,
    types::{AttributeValue, KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Item, StoreError, tables};
use crate::units::UnixMs;

/// Maximum of tries of a change whose row changes meanwhile.
pub(super) const MAX_CHANGE_TRIES: usize = 8;

/// Maximum of tries to read rows that a busy table leaves out.
const MAX_READ_TRIES: usize = 8;

/// Maximum of rows in a `BatchGetItem` (Amazon DynamoDB API Reference, "BatchGetItem").
const MAX_BATCH_ROWS: usize = 100;

/// Number of partitions of the index of open rows, so that no single partition takes all writes. A
/// partition takes 1,000 writes per second (Amazon DynamoDB Developer Guide, "Best practices for
/// designing and using partition keys effectively").
const OPEN_PARTITIONS: u8 = 32;

/// Outcome of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome<T> {
    /// The row is written.
    Written(T),
    /// The row has changed since it was read. This is the current row, if there is one.
    Conflict(Option<T>),
}

/// How a row is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consistency {
    /// Recent writes may be missing.
    Eventual,
    /// All writes are visible.
    Strong,
}

/// The jobs table, row by row.
#[derive(Clone)]
pub(super) struct Rows {
    pub client: Client,
    pub table: Arc<str>,
}

impl Rows {
    pub fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// Reads a row, with all writes visible.
    pub async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        Ok(request.key("pk", text(key)).send().await?.item)
    }

    /// Reads the rows with these keys that exist, by key.
    pub async fn get_all(
        &self,
        keys: &[String],
        consistency: Consistency,
    ) -> Result<HashMap<String, Item>, StoreError> {
        let mut found = HashMap::new();
        for keys in keys.chunks(MAX_BATCH_ROWS) {
            self.get_batch(keys, consistency, &mut found).await?;
        }
        Ok(found)
    }

    async fn get_batch(
        &self,
        keys: &[String],
        consistency: Consistency,
        found: &mut HashMap<String, Item>,
    ) -> Result<(), StoreError> {
        let key = |key: &String| HashMap::from([("pk".to_owned(), text(key))]);
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(key).collect()))
            .consistent_read(consistency == Consistency::Strong);
        let keys = keys.build().map_err(|error| unreadable("a list of rows", &error.to_string()))?;
        let mut unread = Some(HashMap::from([(self.table.to_string(), keys)]));
        for _ in 0..MAX_READ_TRIES {
            let Some(keys) = unread.take().filter(|keys| !keys.is_empty()) else { return Ok(()) };
            let response = self.client.batch_get_item().set_request_items(Some(keys)).send().await?;
            for item in response.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                if let Some(key) = text_in(&item, "pk").map(str::to_owned) {
                    found.insert(key, item);
                }
            }
            unread = response.unprocessed_keys;
        }
        match unread.is_some_and(|keys| !keys.is_empty()) {
            true => Err(StoreError::Contended { row: "a list of rows".to_owned() }),
            false => Ok(()),
        }
    }

    /// Begins a write of the row `key`.
    pub fn put(&self, key: &str, expires_s: u64) -> PutItemFluentBuilder {
        let request = self.client.put_item().table_name(&*self.table);
        request.item("pk", text(key)).item(tables::EXPIRES_S, number(expires_s))
    }

    /// Begins a change of the row `key`.
    pub fn update(&self, key: &str) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&*self.table).key("pk", text(key))
    }

    /// Deletes a row and returns it, if there was one.
    pub async fn delete(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let request = self.client.delete_item().table_name(&*self.table).key("pk", text(key));
        Ok(request.return_values(ReturnValue::AllOld).send().await?.attributes)
    }
}

/// Returns the etag of a new version of a row.
pub(super) fn new_etag() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Adds the condition that the row does not exist.
pub(super) fn if_absent(request: PutItemFluentBuilder) -> PutItemFluentBuilder {
    request.condition_expression("attribute_not_exists(pk)")
}

/// Adds the condition that the row still has the etag `read_etag`.
pub(super) fn if_unchanged(request: PutItemFluentBuilder, read_etag: &str) -> PutItemFluentBuilder {
    request.condition_expression("etag = :read").expression_attribute_values(":read", text(read_etag))
}

/// Sends a conditional write of `row`, which has the new `etag`.
pub(super) async fn write_if<T: DeserializeOwned>(
    request: PutItemFluentBuilder,
    row: T,
    etag: &str,
) -> Result<WriteOutcome<T>, StoreError> {
    match put_if(request).await? {
        Put::Written => Ok(WriteOutcome::Written(row)),
        Put::Conflict(current) => after_conflict(row, etag, current.as_ref()),
    }
}

/// The outcome of a write of `row` whose condition failed because of the row `current`. The SDK may
/// repeat a write whose response was lost. The row then has the new etag, so it is written.
pub(super) fn after_conflict<T: DeserializeOwned>(
    row: T,
    etag: &str,
    current: Option<&Item>,
) -> Result<WriteOutcome<T>, StoreError> {
    match current {
        Some(item) if text_in(item, "etag") == Some(etag) => Ok(WriteOutcome::Written(row)),
        current => Ok(WriteOutcome::Conflict(current.map(document_in).transpose()?)),
    }
}

/// Outcome of a conditional write, before the current row is parsed.
pub(super) enum Put {
    Written,
    Conflict(Option<Item>),
}

/// Sends a conditional write.
pub(super) async fn put_if(request: PutItemFluentBuilder) -> Result<Put, StoreError> {
    let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    match request.send().await {
        Ok(_) => Ok(Put::Written),
        Err(error) => match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => Ok(Put::Conflict(failed.item().cloned())),
            _ => Err(error.into()),
        },
    }
}

/// Parses the document of a row.
pub(super) fn document_in<T: DeserializeOwned>(item: &Item) -> Result<T, StoreError> {
    let key = text_in(item, "pk").unwrap_or("a row without a pk");
    let document = text_in(item, "doc").ok_or_else(|| unreadable(key, "it has no doc"))?;
    serde_json::from_str(document).map_err(|error| unreadable(key, &error.to_string()))
}

/// Returns all partitions of the index of open rows.
pub(super) fn open_partitions() -> impl Iterator<Item = String> {
    (0..OPEN_PARTITIONS).map(|partition| partition.to_string())
}

/// Adds the row `id` to the index of open rows, where the sweep looks at it from `due_at` on.
pub(super) fn in_open_index(request: PutItemFluentBuilder, id: &str, due_at: UnixMs) -> PutItemFluentBuilder {
    request.item("open", text(&open_partition(id))).item("due_ms", number(due_at.as_ms()))
}

/// Returns the partition of an id in the index of open rows. Ids are hashed, so any ids spread
/// evenly.
fn open_partition(id: &str) -> String {
    (Sha256::digest(id)[0] % OPEN_PARTITIONS).to_string()
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(super) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn text_in<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(super) fn number_in(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn bytes_in(item: &Item, name: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(item.get(name)?.as_b().ok()?.as_ref()))
}

pub(super) fn unreadable(row: &str, reason: &str) -> StoreError {
    StoreError::Unreadable { row: row.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn open_rows_spread_evenly_over_the_partitions_of_their_index() {
        let ids_of_jobs = (0..16_000).map(|_| Uuid::now_v7().to_string());
        let ids_of_tenants = (0..16_000).map(|number| format!("backlog#tenant-{number}"));
        let mut counts: BTreeMap<String, u32> = open_partitions().map(|partition| (partition, 0)).collect();
        for id in ids_of_jobs.chain(ids_of_tenants) {
            *counts.get_mut(&open_partition(&id)).expect("a partition that the sweep reads") += 1;
        }
        assert!(counts.len() >= 32);
        assert!(counts.values().all(|count| (800..=1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_sweep_also_reads_the_four_partitions_of_former_versions() {
        let partitions: Vec<String> = open_partitions().collect();
        assert!(["0", "1", "2", "3"].iter().all(|former| partitions.iter().any(|partition| partition == former)));
    }
}
