//! Rows of the jobs table with one document each, which are listed for their tenant: batches and
//! files.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, operation::put_item::builders::PutItemFluentBuilder};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Item, StoreError,
    list_index::{ListRange, MAX_TIME, list_key},
    rows::{self, Consistency, Rows, WriteOutcome, document_in, text, unreadable},
};
use crate::{batch::ResourceKind, units::UnixMs};

/// Number of documents in one read of a sum.
const PAGE_DOCUMENTS: usize = 100;

/// Attributes of a row beside its document.
pub(super) struct DocumentAttributes {
    pub id: String,
    pub tenant: String,
    pub kind: ResourceKind,
    pub created_at: UnixMs,
    /// Changes with every write. Empty for documents that never change.
    pub etag: String,
    /// Time from which the sweep looks at the row, while it is open.
    pub due_at: Option<UnixMs>,
    pub expires_s: u64,
}

/// Which documents of a kind to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentQuery<'a> {
    /// The oldest first instead of the newest.
    pub oldest_first: bool,
    /// Only documents after this document: its id, and the time when it was created.
    pub after: Option<(&'a str, UnixMs)>,
    /// Maximum of documents.
    pub limit: usize,
}

/// The jobs table, document by document.
#[derive(Clone)]
pub(super) struct Documents {
    rows: Rows,
}

impl Documents {
    pub(super) fn new(client: Client, table: &str) -> Self {
        Self { rows: Rows::new(client, table) }
    }

    /// Writes a new row. If the row exists, returns its document unchanged.
    pub(super) async fn create<T: Serialize + DeserializeOwned>(
        &self,
        attributes: &DocumentAttributes,
        document: T,
    ) -> Result<T, StoreError> {
        let request = rows::if_absent(self.put(attributes, &document)?);
        match rows::write_if(request, document, &attributes.etag).await? {
            WriteOutcome::Written(document) | WriteOutcome::Conflict(Some(document)) => Ok(document),
            WriteOutcome::Conflict(None) => Err(StoreError::Contended { row: attributes.id.clone() }),
        }
    }

    /// Replaces the row if it still has the etag `read_etag`.
    pub(super) async fn replace<T: Serialize + DeserializeOwned>(
        &self,
        read_etag: &str,
        attributes: &DocumentAttributes,
        document: T,
    ) -> Result<WriteOutcome<T>, StoreError> {
        let request = rows::if_unchanged(self.put(attributes, &document)?, read_etag);
        rows::write_if(request, document, &attributes.etag).await
    }

    fn put<T: Serialize>(
        &self,
        attributes: &DocumentAttributes,
        document: &T,
    ) -> Result<PutItemFluentBuilder, StoreError> {
        let DocumentAttributes { id, tenant, kind, created_at, etag, due_at, expires_s } = attributes;
        let document = serde_json::to_string(document).map_err(|error| unreadable(id, &error.to_string()))?;
        let request = self.rows.put(id, *expires_s).item("tenant", text(tenant));
        let request = request.item("listed", text(&list_key(kind.name(), *created_at, id)));
        let request = request.item("etag", text(etag)).item("doc", text(&document));
        Ok(match due_at {
            Some(due_at) => rows::in_open_index(request, id, *due_at),
            None => request,
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, StoreError> {
        self.rows.get(id).await?.as_ref().map(document_in).transpose()
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.rows.delete(key).await.map(drop)
    }

    /// Lists the tenant's documents of `kind`. Documents that were created within the last second
    /// may be missing, because the index lags behind.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        tenant: &str,
        kind: ResourceKind,
        query: &DocumentQuery<'_>,
    ) -> Result<Vec<T>, StoreError> {
        let after = query.after.map(|(id, created_at)| (id.to_owned(), list_key(kind.name(), created_at, id)));
        let range = ListRange::new(kind.name(), UnixMs::default(), MAX_TIME);
        let range = range.oldest_first(query.oldest_first).after(after);
        let ids = self.rows.list(tenant, &range, query.limit).await?;
        let mut items = self.items(&ids).await?;
        ids.iter().filter_map(|id| items.remove(id).map(|item| document_in(&item))).collect()
    }

    /// Reads all of the tenant's documents of `kind` that were created from `from` on, and adds up
    /// what `measure` makes of them.
    pub(super) async fn sum_since<T: DeserializeOwned>(
        &self,
        tenant: &str,
        kind: ResourceKind,
        from: UnixMs,
        measure: impl Fn(&T) -> u64,
    ) -> Result<u64, StoreError> {
        let mut range = ListRange::new(kind.name(), from, MAX_TIME);
        let mut sum = 0;
        loop {
            let rows = self.rows.list_keys(tenant, &range, PAGE_DOCUMENTS).await?;
            let ids: Vec<String> = rows.iter().map(|(id, _)| id.clone()).collect();
            for item in self.items(&ids).await?.values() {
                sum += measure(&document_in(item)?);
            }
            match rows.into_iter().nth(PAGE_DOCUMENTS - 1) {
                Some(last) => range.continue_after(last),
                None => return Ok(sum),
            }
        }
    }

    /// Reads the rows with these keys that exist, by key.
    pub(super) async fn items(&self, keys: &[String]) -> Result<HashMap<String, Item>, StoreError> {
        self.rows.get_all(keys, Consistency::Strong).await
    }
}
