//! Rows of the jobs table that hold one document each and are listed for their tenant: batches and files.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::{PutItemError, builders::PutItemFluentBuilder},
    types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Item, StoreError,
    jobs::{
        indexes::{Stretch, listed_key},
        rows::{Rows, number, open_part, text, text_in, unreadable},
    },
};
use crate::batch::Kind;

/// How many rows one `BatchGetItem` gives (Amazon DynamoDB API Reference, "BatchGetItem").
const MOST_AT_ONCE: usize = 100;

/// How often what a busy table did not give is asked for again.
const MOST_TRIES: usize = 8;

/// How a row is found beside its document.
pub(super) struct Head<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub kind: Kind,
    pub created_ms: u64,
    /// Changes with every change; nothing for what never does.
    pub etag: &'a str,
    /// When the sweep looks at it, while it is open.
    pub due_ms: Option<u64>,
    pub expires_s: u64,
}

/// Which rows of one kind a tenant wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The oldest first instead of the newest.
    pub oldest_first: bool,
    /// Only what follows this one: its id, and when it was made in milliseconds since 1970.
    pub after: Option<(&'a str, u64)>,
    /// How many at most.
    pub limit: usize,
}

/// The last time of thirteen digits: in the year 2286.
const LAST_MS: u64 = 9_999_999_999_999;

/// The table, document by document.
#[derive(Clone)]
pub(super) struct Documents {
    rows: Rows,
}

impl Documents {
    pub(super) fn new(client: Client, table: &str) -> Self {
        Self { rows: Rows::new(client, table) }
    }

    /// Writes a new row; gives what is there if there is one.
    pub(super) async fn create<T: Serialize + DeserializeOwned>(
        &self,
        head: &Head<'_>,
        document: &T,
    ) -> Result<Option<T>, StoreError> {
        written(self.put(head, document)?.condition_expression("attribute_not_exists(pk)"), head).await
    }

    /// Writes over the row whose etag is `seen`; gives what is there if that is another.
    pub(super) async fn replace<T: Serialize + DeserializeOwned>(
        &self,
        seen: &str,
        head: &Head<'_>,
        document: &T,
    ) -> Result<Replaced<T>, StoreError> {
        let request = self.put(head, document)?.condition_expression("etag = :seen");
        let request = request.expression_attribute_values(":seen", text(seen));
        match_there(request, head).await
    }

    fn put<T: Serialize>(&self, head: &Head<'_>, document: &T) -> Result<PutItemFluentBuilder, StoreError> {
        let document = serde_json::to_string(document).map_err(|error| unreadable(head.id, &error.to_string()))?;
        let request = self.rows.put(head.id, head.expires_s).item("tenant", text(head.tenant));
        let request = request.item("listed", text(&listed_key(head.kind.name(), head.created_ms, head.id)));
        let request = request.item("etag", text(head.etag)).item("doc", AttributeValue::S(document));
        Ok(match head.due_ms {
            Some(due_ms) => request.item("open", text(open_part(head.id))).item("due_ms", number(due_ms)),
            None => request,
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, StoreError> {
        self.rows.item(id).await?.as_ref().map(|item| read(id, item)).transpose()
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request = self.rows.client.delete_item().table_name(&*self.rows.table).key("pk", text(key));
        request.send().await?;
        Ok(())
    }

    /// What `tenant` has of `kind`. What was made within the last second may be missing: the index follows.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        tenant: &str,
        kind: Kind,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<T>, StoreError> {
        let name = kind.name();
        // `~` sorts behind every id.
        let stretch = Stretch {
            from: listed_key(name, 0, ""),
            to: listed_key(name, LAST_MS, "~"),
            newest_first: !wanted.oldest_first,
            after: wanted.after.map(|(id, created_ms)| (id.to_owned(), listed_key(name, created_ms, id))),
        };
        let ids = self.rows.listed(tenant, &stretch, wanted.limit).await?;
        let mut items = self.items(&ids).await?;
        ids.iter().filter_map(|id| items.remove(id).map(|item| read(id, &item))).collect()
    }

    /// The rows of these keys that are there, by key, as they are now.
    pub(super) async fn items(&self, keys: &[String]) -> Result<HashMap<String, Item>, StoreError> {
        let mut found = HashMap::new();
        for keys in keys.chunks(MOST_AT_ONCE) {
            self.collect(keys, &mut found).await?;
        }
        Ok(found)
    }

    async fn collect(&self, keys: &[String], found: &mut HashMap<String, Item>) -> Result<(), StoreError> {
        let key = |key: &String| HashMap::from([("pk".to_owned(), text(key))]);
        let keys = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys.iter().map(key).collect()));
        let keys = keys.build().map_err(|error| unreadable("a list of rows", &error.to_string()))?;
        let mut asked = Some(HashMap::from([(self.rows.table.to_string(), keys)]));
        for _ in 0..MOST_TRIES {
            let Some(keys) = asked.take().filter(|keys| !keys.is_empty()) else { return Ok(()) };
            let answer = self.rows.client.batch_get_item().set_request_items(Some(keys)).send().await?;
            for item in answer.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                if let Some(key) = text_in(&item, "pk").map(str::to_owned) {
                    found.insert(key, item);
                }
            }
            asked = answer.unprocessed_keys;
        }
        match asked.is_some_and(|keys| !keys.is_empty()) {
            true => Err(StoreError::Contended { row: "a list of rows".to_owned() }),
            false => Ok(()),
        }
    }
}

/// What became of replacing a row.
pub(super) enum Replaced<T> {
    /// It is what it was to be.
    Done,
    /// It had changed; this is what is there, if anything.
    Conflict(Option<T>),
}

async fn written<T: DeserializeOwned>(request: PutItemFluentBuilder, head: &Head<'_>) -> Result<Option<T>, StoreError> {
    match match_there(request, head).await? {
        Replaced::Done => Ok(None),
        Replaced::Conflict(Some(there)) => Ok(Some(there)),
        Replaced::Conflict(None) => Err(StoreError::Contended { row: head.id.to_owned() }),
    }
}

/// Sends a conditional write. The SDK may repeat one whose answer was lost: if what is there is what we wrote, it is done.
async fn match_there<T: DeserializeOwned>(
    request: PutItemFluentBuilder,
    head: &Head<'_>,
) -> Result<Replaced<T>, StoreError> {
    let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let there = match request.send().await {
        Ok(_) => return Ok(Replaced::Done),
        Err(error) => match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => failed.item().cloned(),
            _ => return Err(error.into()),
        },
    };
    match there {
        Some(there) if text_in(&there, "etag") == Some(head.etag) => Ok(Replaced::Done),
        there => Ok(Replaced::Conflict(there.as_ref().map(|item| read(head.id, item)).transpose()?)),
    }
}

fn read<T: DeserializeOwned>(id: &str, item: &Item) -> Result<T, StoreError> {
    let document = text_in(item, "doc").ok_or_else(|| unreadable(id, "it has no doc"))?;
    serde_json::from_str(document).map_err(|error| unreadable(id, &error.to_string()))
}
