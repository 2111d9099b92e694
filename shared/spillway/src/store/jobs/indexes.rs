//! What the table is asked for beside its keys: a tenant's jobs by time, and those of them that wait.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    operation::query::builders::QueryFluentBuilder,
    types::{KeysAndAttributes, Select},
};

use super::rows::{Rows, number, number_in, read_job, text, text_in, unreadable};
use crate::{
    job::{Job, Priority},
    store::{StoreError, tables},
};

/// How many rows one `BatchGetItem` gives (Amazon DynamoDB API Reference, "BatchGetItem").
const MOST_AT_ONCE: usize = 100;

/// How often what a busy table did not give is asked for again.
const MOST_TRIES: usize = 8;

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its id.
    pub id: String,
    /// How urgent it is.
    pub priority: Priority,
    /// When it may first be claimed.
    pub ready_ms: u64,
}

/// The key of a row in the index of what tenants have, which sorts by kind and time. The end of all times has no id.
pub(in crate::store) fn listed_key(kind: &str, created_ms: u64, id: &str) -> String {
    format!("{kind}#{created_ms:013}#{id}")
}

/// A stretch of that index, both ends included.
pub(in crate::store) struct Stretch {
    pub from: String,
    pub to: String,
    pub newest_first: bool,
    /// Only what follows this row: its id and its key in the index.
    pub after: Option<(String, String)>,
}

impl Rows {
    /// The ids of what `tenant` has in `stretch`, at most `most`.
    pub(in crate::store) async fn listed(
        &self,
        tenant: &str,
        stretch: &Stretch,
        most: usize,
    ) -> Result<Vec<String>, StoreError> {
        let request = self.client.query().table_name(&*self.table).index_name(tables::LISTED_INDEX);
        let request = request.key_condition_expression("tenant = :tenant AND listed BETWEEN :from AND :to");
        let request = request.expression_attribute_values(":tenant", text(tenant));
        let request = request.expression_attribute_values(":from", text(&stretch.from));
        let request = request.expression_attribute_values(":to", text(&stretch.to));
        let request = request.scan_index_forward(!stretch.newest_first);
        let start = stretch.after.as_ref().map(|(id, listed)| {
            [("pk", id.as_str()), ("tenant", tenant), ("listed", listed)]
                .map(|(name, value)| (name.to_owned(), text(value)))
        });
        let request = request.set_exclusive_start_key(start.map(HashMap::from));
        let found = request.limit(i32::try_from(most).unwrap_or(i32::MAX)).send().await?;
        let id =
            |item| text_in(item, "pk").map(str::to_owned).ok_or_else(|| unreadable("a listed row", "it has no pk"));
        found.items().iter().map(id).collect()
    }

    /// The jobs of these ids that are there, in the same order.
    pub(super) async fn jobs(&self, ids: &[String]) -> Result<Vec<Job>, StoreError> {
        let mut found = HashMap::new();
        for ids in ids.chunks(MOST_AT_ONCE) {
            self.collect(ids, &mut found).await?;
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    async fn collect(&self, ids: &[String], found: &mut HashMap<String, Job>) -> Result<(), StoreError> {
        let key = |id: &String| HashMap::from([("pk".to_owned(), text(id))]);
        let keys = KeysAndAttributes::builder().set_keys(Some(ids.iter().map(key).collect())).build();
        let keys = keys.map_err(|error| unreadable("a list of jobs", &error.to_string()))?;
        let mut asked = Some(HashMap::from([(self.table.to_string(), keys)]));
        for _ in 0..MOST_TRIES {
            let Some(keys) = asked.take().filter(|keys| !keys.is_empty()) else { return Ok(()) };
            let answer = self.client.batch_get_item().set_request_items(Some(keys)).send().await?;
            for item in answer.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                let job = read_job(&item)?;
                found.insert(job.id.clone(), job);
            }
            asked = answer.unprocessed_keys;
        }
        if asked.is_some_and(|keys| !keys.is_empty()) {
            return Err(StoreError::Contended { row: "a list of jobs".to_owned() });
        }
        Ok(())
    }

    /// The waiting jobs of `tenant` before `place_ms`, at most `most`, the next one first.
    pub(super) async fn waiting_before(
        &self,
        tenant: &str,
        place_ms: u64,
        most: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let request = self.waiting(tenant, place_ms).limit(i32::try_from(most).unwrap_or(i32::MAX));
        let found = request.send().await?;
        let read = |item| {
            let id = text_in(item, "pk")?.to_owned();
            let priority = Priority::of_name(text_in(item, "priority")?)?;
            Some(Waiting { id, priority, ready_ms: number_in(item, "ready_ms")? })
        };
        let read = |item| read(item).ok_or_else(|| unreadable("a waiting job", "an attribute is missing"));
        found.items().iter().map(read).collect()
    }

    /// How many jobs of `tenant` wait before `place_ms`, counted up to what one page of the index holds: about ten thousand.
    pub(super) async fn count_waiting_before(&self, tenant: &str, place_ms: u64) -> Result<u64, StoreError> {
        let counted = self.waiting(tenant, place_ms).select(Select::Count).send().await?;
        Ok(counted.count().try_into().unwrap_or_default())
    }

    fn waiting(&self, tenant: &str, place_ms: u64) -> QueryFluentBuilder {
        let request = self.client.query().table_name(&*self.table).index_name(tables::WAITING_INDEX);
        let request = request.key_condition_expression("waiting = :tenant AND place_ms < :place_ms");
        let request = request.expression_attribute_values(":tenant", text(tenant));
        request.expression_attribute_values(":place_ms", number(place_ms))
    }
}
