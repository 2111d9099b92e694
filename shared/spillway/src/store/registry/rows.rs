//! The rows of the registry table: a key, a version that only grows, and a document.
//!
//! A deleted row stays, without its document, so that an entry of the same name made later has a higher version than
//! the ledger has seen.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::PutItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    pool::Model,
    store::{Item, StoreError},
    tenant::Endpoint,
};

pub(super) const TENANT: &str = "tenant#";
pub(super) const KEY: &str = "key#";
pub(super) const CALLER: &str = "caller#";
pub(super) const WEBHOOK: &str = "webhook#";
const MODEL: &str = "model";

/// What a write did; the version is the one that holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was nothing of this name.
    Created { version: u64 },
    /// There was something else.
    Updated { version: u64 },
    /// It was there already.
    Unchanged { version: u64 },
}

/// The primary key of a row.
pub(super) struct Row {
    pk: String,
    sk: String,
}

impl Row {
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

/// A row as it was read: its version, and its document unless it was deleted.
struct Stored {
    version: u64,
    document: Option<Value>,
}

const MOST_TRIES: usize = 8;

/// The table, row by row.
#[derive(Clone)]
pub(super) struct Rows {
    client: Client,
    table: Arc<str>,
}

impl Rows {
    pub(super) fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// The entry of a row. The reading is consistent, because the ledger may know that a newer one was written.
    pub(super) async fn get<T: DeserializeOwned>(&self, row: Row) -> Result<Option<T>, StoreError> {
        self.stored(&row).await?.map_or(Ok(None), |stored| stored.entry(&row.name()))
    }

    /// All models.
    pub(super) async fn models(&self) -> Result<Vec<Model>, StoreError> {
        self.partition(MODEL).await
    }

    /// The webhook endpoints of a tenant, by id.
    pub(super) async fn endpoints(&self, tenant: &str) -> Result<Vec<Endpoint>, StoreError> {
        self.partition(&format!("{WEBHOOK}{tenant}")).await
    }

    /// All entries of a partition. One that cannot be read is left out: it must not take the others with it.
    async fn partition<T: DeserializeOwned>(&self, pk: &str) -> Result<Vec<T>, StoreError> {
        let request = self.client.query().table_name(&*self.table).consistent_read(true);
        let request = request.key_condition_expression("pk = :pk");
        let request = request.expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()));
        let mut pages = request.into_paginator().items().send();
        let mut entries = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item?;
            match read(&item, &name_of(&item)) {
                Ok(entry) => entries.extend(entry),
                Err(error) => tracing::error!(%error, "an entry of the registry was left out"),
            }
        }
        Ok(entries)
    }

    /// All entries whose partition key begins with `prefix`.
    pub(super) async fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        let request = self.client.scan().table_name(&*self.table).consistent_read(true);
        let request = request.filter_expression("begins_with(pk, :prefix)");
        let request = request.expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()));
        let mut items = request.into_paginator().items().send();
        let mut entries = Vec::new();
        while let Some(item) = items.next().await {
            let item = item?;
            entries.extend(read(&item, &name_of(&item))?);
        }
        Ok(entries)
    }

    /// Writes an entry under the next version, unless it is there already.
    pub(super) async fn put<T: Serialize>(&self, row: &Row, entry: &T) -> Result<Written, StoreError> {
        let document = serde_json::to_value(entry)
            .map_err(|error| StoreError::Unreadable { row: row.name(), why: error.to_string() })?;
        for _ in 0..MOST_TRIES {
            let old = self.stored(row).await?;
            let version = old.as_ref().map_or(0, |old| old.version);
            let existed = old.as_ref().is_some_and(|old| old.document.is_some());
            if old.and_then(|old| old.document).is_some_and(|old| same_but_for_version(&old, &document)) {
                return Ok(Written::Unchanged { version });
            }
            if self.replace(row, version, Some(&document)).await? {
                let version = version + 1;
                return Ok(if existed { Written::Updated { version } } else { Written::Created { version } });
            }
        }
        Err(StoreError::Contended { row: row.name() })
    }

    /// Takes an entry away; whether there was one.
    pub(super) async fn delete(&self, row: &Row) -> Result<bool, StoreError> {
        for _ in 0..MOST_TRIES {
            match self.stored(row).await? {
                Some(Stored { version, document: Some(_) }) => {
                    if self.replace(row, version, None).await? {
                        return Ok(true);
                    }
                }
                _ => return Ok(false),
            }
        }
        Err(StoreError::Contended { row: row.name() })
    }

    async fn stored(&self, row: &Row) -> Result<Option<Stored>, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let request = request.key("pk", AttributeValue::S(row.pk.clone())).key("sk", AttributeValue::S(row.sk.clone()));
        request.send().await?.item().map(|item| Stored::read(item, &row.name())).transpose()
    }

    /// Writes version + 1 over `version`, where 0 means none; `false` if another version is there by now.
    async fn replace(&self, row: &Row, version: u64, document: Option<&Value>) -> Result<bool, StoreError> {
        let next = AttributeValue::N((version + 1).to_string());
        let document = document.map(|document| AttributeValue::S(document.to_string()));
        let request = self.client.put_item().table_name(&*self.table);
        let request =
            request.item("pk", AttributeValue::S(row.pk.clone())).item("sk", AttributeValue::S(row.sk.clone()));
        let mut request = request.item("version", next.clone());
        if let Some(document) = document.clone() {
            request = request.item("doc", document);
        }
        let request = match version {
            0 => request.condition_expression("attribute_not_exists(pk)"),
            _ => {
                let request = request.condition_expression("#version = :version");
                let request = request.expression_attribute_names("#version", "version");
                request.expression_attribute_values(":version", AttributeValue::N(version.to_string()))
            }
        };
        let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                // The SDK may have repeated a write whose answer was lost: what is there is then what we wrote.
                Some(PutItemError::ConditionalCheckFailedException(failed)) => Ok(failed
                    .item()
                    .is_some_and(|item| item.get("version") == Some(&next) && item.get("doc") == document.as_ref())),
                _ => Err(error.into()),
            },
        }
    }
}

impl Stored {
    fn read(item: &Item, name: &str) -> Result<Self, StoreError> {
        let unreadable = |why: String| StoreError::Unreadable { row: name.to_owned(), why };
        let version =
            item.get("version").and_then(|version| version.as_n().ok()).and_then(|version| version.parse().ok());
        let version = version.ok_or_else(|| unreadable("it has no version".to_owned()))?;
        let document = item.get("doc").and_then(|document| document.as_s().ok());
        let document = document.map(|document| serde_json::from_str(document)).transpose();
        Ok(Self { version, document: document.map_err(|error| unreadable(error.to_string()))? })
    }

    fn entry<T: DeserializeOwned>(self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(mut document) = self.document else { return Ok(None) };
        // Keys and callers have no version of their own; where there is one, the row's is the one that counts.
        if let Some(version) = document.get_mut("version") {
            *version = self.version.into();
        }
        let entry = serde_json::from_value(document);
        entry.map(Some).map_err(|error| StoreError::Unreadable { row: name.to_owned(), why: error.to_string() })
    }
}

fn read<T: DeserializeOwned>(item: &HashMap<String, AttributeValue>, name: &str) -> Result<Option<T>, StoreError> {
    Stored::read(item, name)?.entry(name)
}

fn name_of(item: &Item) -> String {
    let part = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map_or("?", String::as_str);
    format!("{} {}", part("pk"), part("sk"))
}

fn same_but_for_version(one: &Value, other: &Value) -> bool {
    let without_version = |document: &Value| {
        let mut document = document.clone();
        document.as_object_mut().map(|fields| fields.remove("version"));
        document
    };
    without_version(one) == without_version(other)
}
