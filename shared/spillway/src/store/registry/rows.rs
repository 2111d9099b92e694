//! Rows of the registry table: a key, a version that only grows, and a document.
//!
//! A deleted entry keeps its row without the document. A later entry of the same name then has a
//! higher version than the ledger knows.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    pool::Model,
    store::{
        Item, StoreError,
        rows::{Consistency, MAX_CHANGE_TRIES, Put, number, number_in, put_if, text, text_in, unreadable},
    },
    tenant::Endpoint,
};

pub(super) const TENANT: &str = "tenant#";
pub(super) const KEY: &str = "key#";
pub(super) const CALLER: &str = "caller#";
pub(super) const WEBHOOK: &str = "webhook#";
const MODEL: &str = "model";

/// Outcome of a write, with the version that is valid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The entry is new.
    Created { version: u64 },
    /// The entry was different.
    Updated { version: u64 },
    /// The entry was the same.
    Unchanged { version: u64 },
}

/// The primary key of a row.
#[derive(Debug, Clone)]
pub(super) struct RowKey {
    pk: String,
    sk: String,
}

impl RowKey {
    pub(super) fn tenant(name: &str) -> Self {
        Self { pk: format!("{TENANT}{name}"), sk: "-".to_owned() }
    }

    pub(super) fn key(id: &str) -> Self {
        Self { pk: format!("{KEY}{id}"), sk: "-".to_owned() }
    }

    pub(super) fn caller(id: &str) -> Self {
        Self { pk: format!("{CALLER}{id}"), sk: "-".to_owned() }
    }

    /// The endpoints of a tenant share one partition, so that one query reads them.
    pub(super) fn endpoint(tenant: &str, id: &str) -> Self {
        Self { pk: format!("{WEBHOOK}{tenant}"), sk: id.to_owned() }
    }

    /// All models share one partition, so that one query reads the catalogue.
    pub(super) fn model(name: &str) -> Self {
        Self { pk: MODEL.to_owned(), sk: name.to_owned() }
    }

    fn name(&self) -> String {
        format!("{} {}", self.pk, self.sk)
    }
}

/// A row: its version, and its document unless the entry was deleted.
struct StoredEntry {
    version: u64,
    document: Option<Value>,
}

/// The registry table, row by row.
#[derive(Clone)]
pub(super) struct RegistryRows {
    client: Client,
    table: Arc<str>,
}

impl RegistryRows {
    pub(super) fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// Reads an entry, with all writes visible, because the ledger may know that a newer version
    /// was written.
    pub(super) async fn get<T: DeserializeOwned>(&self, key: RowKey) -> Result<Option<T>, StoreError> {
        self.stored(&key).await?.map_or(Ok(None), |stored| stored.entry(&key.name()))
    }

    /// Reads all models.
    pub(super) async fn models(&self, consistency: Consistency) -> Result<Vec<Model>, StoreError> {
        self.partition(MODEL, consistency).await
    }

    /// Reads the webhook endpoints of a tenant, by id.
    pub(super) async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        self.partition(&format!("{WEBHOOK}{tenant}"), Consistency::Strong).await
    }

    /// Reads all entries of a partition. Leaves out malformed entries, so that the rest can be
    /// used.
    async fn partition<T: DeserializeOwned>(&self, pk: &str, consistency: Consistency) -> Result<Vec<T>, StoreError> {
        let is_strong = consistency == Consistency::Strong;
        let request = self.client.query().table_name(&*self.table).consistent_read(is_strong);
        let request = request.key_condition_expression("pk = :pk");
        let request = request.expression_attribute_values(":pk", text(pk));
        let mut pages = request.into_paginator().items().send();
        let mut entries = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item?;
            match parse(&item, &name_of(&item)) {
                Ok(entry) => entries.extend(entry),
                Err(error) => tracing::error!(%error, "left out a malformed entry of the registry"),
            }
        }
        Ok(entries)
    }

    /// Reads all entries whose partition key begins with `prefix`.
    pub(super) async fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        let request = self.client.scan().table_name(&*self.table).consistent_read(true);
        let request = request.filter_expression("begins_with(pk, :prefix)");
        let request = request.expression_attribute_values(":prefix", text(prefix));
        let mut items = request.into_paginator().items().send();
        let mut entries = Vec::new();
        while let Some(item) = items.next().await {
            let item = item?;
            entries.extend(parse(&item, &name_of(&item))?);
        }
        Ok(entries)
    }

    /// Writes an entry under the next version, unless the same entry is stored.
    pub(super) async fn put<T: Serialize>(&self, key: &RowKey, entry: &T) -> Result<Written, StoreError> {
        let document = serde_json::to_value(entry).map_err(|error| unreadable(&key.name(), &error.to_string()))?;
        for _ in 0..MAX_CHANGE_TRIES {
            let old = self.stored(key).await?;
            let version = old.as_ref().map_or(0, |old| old.version);
            let existed = old.as_ref().is_some_and(|old| old.document.is_some());
            if old.and_then(|old| old.document).is_some_and(|old| differ_only_in_version(&old, &document)) {
                return Ok(Written::Unchanged { version });
            }
            if self.replace(key, version, Some(&document)).await? {
                let version = version + 1;
                return Ok(if existed { Written::Updated { version } } else { Written::Created { version } });
            }
        }
        Err(StoreError::Contended { row: key.name() })
    }

    /// Deletes an entry. Returns whether it existed.
    pub(super) async fn delete(&self, key: &RowKey) -> Result<bool, StoreError> {
        for _ in 0..MAX_CHANGE_TRIES {
            match self.stored(key).await? {
                Some(StoredEntry { version, document: Some(_) }) => {
                    if self.replace(key, version, None).await? {
                        return Ok(true);
                    }
                }
                _ => return Ok(false),
            }
        }
        Err(StoreError::Contended { row: key.name() })
    }

    async fn stored(&self, key: &RowKey) -> Result<Option<StoredEntry>, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let request = request.key("pk", text(&key.pk)).key("sk", text(&key.sk));
        request.send().await?.item().map(|item| StoredEntry::parse(item, &key.name())).transpose()
    }

    /// Replaces `version` by `version` + 1, where 0 means that there is no row. Returns `false` if
    /// the row has another version by now.
    async fn replace(&self, key: &RowKey, version: u64, document: Option<&Value>) -> Result<bool, StoreError> {
        let next = number(version + 1);
        let document = document.map(|document| text(&document.to_string()));
        let request = self.client.put_item().table_name(&*self.table);
        let mut request = request.item("pk", text(&key.pk)).item("sk", text(&key.sk)).item("version", next.clone());
        if let Some(document) = document.clone() {
            request = request.item("doc", document);
        }
        let request = match version {
            0 => request.condition_expression("attribute_not_exists(pk)"),
            _ => {
                let request = request.condition_expression("#version = :version");
                let request = request.expression_attribute_names("#version", "version");
                request.expression_attribute_values(":version", number(version))
            }
        };
        // The SDK may repeat a write whose response was lost. The row is then the one that was
        // written.
        let is_written = |item: Item| item.get("version") == Some(&next) && item.get("doc") == document.as_ref();
        Ok(match put_if(request).await? {
            Put::Written => true,
            Put::Conflict(current) => current.is_some_and(is_written),
        })
    }
}

impl StoredEntry {
    fn parse(item: &Item, name: &str) -> Result<Self, StoreError> {
        let version = number_in(item, "version").ok_or_else(|| unreadable(name, "it has no version"))?;
        let document = text_in(item, "doc").map(serde_json::from_str).transpose();
        Ok(Self { version, document: document.map_err(|error| unreadable(name, &error.to_string()))? })
    }

    fn entry<T: DeserializeOwned>(self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(mut document) = self.document else { return Ok(None) };
        // Documents of keys and callers have no version. In other documents, the row's version
        // counts.
        if let Some(version) = document.get_mut("version") {
            *version = self.version.into();
        }
        serde_json::from_value(document).map(Some).map_err(|error| unreadable(name, &error.to_string()))
    }
}

fn parse<T: DeserializeOwned>(item: &Item, name: &str) -> Result<Option<T>, StoreError> {
    StoredEntry::parse(item, name)?.entry(name)
}

fn name_of(item: &Item) -> String {
    let part = |name: &str| text_in(item, name).unwrap_or("?");
    format!("{} {}", part("pk"), part("sk"))
}

fn differ_only_in_version(a: &Value, b: &Value) -> bool {
    let without_version = |document: &Value| {
        let mut document = document.clone();
        document.as_object_mut().map(|fields| fields.remove("version"));
        document
    };
    without_version(a) == without_version(b)
}
