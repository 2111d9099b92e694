//! The index of a tenant's resources, by kind and time.

use std::collections::HashMap;

use super::{
    StoreError,
    rows::{Rows, text, text_in, unreadable},
    tables,
};
use crate::units::UnixMs;

/// Last time of thirteen digits: in the year 2286.
pub(super) const MAX_TIME: UnixMs = UnixMs::from_ms(9_999_999_999_999);

/// Returns the key of a resource in the index, which sorts by kind and time.
pub(super) fn list_key(kind: &str, created_at: UnixMs, id: &str) -> String {
    format!("{kind}#{:013}#{id}", created_at.as_ms())
}

/// A range of the index.
pub(super) struct ListRange {
    first: String,
    last: String,
    newest_first: bool,
    /// Only rows after this row: its id, and its key in the index.
    after: Option<(String, String)>,
}

impl ListRange {
    /// The resources of `kind` that were created from `from` to `until`, both included.
    pub fn new(kind: &str, from: UnixMs, until: UnixMs) -> Self {
        Self {
            first: list_key(kind, from.min(MAX_TIME), ""),
            // `~` sorts after every id.
            last: list_key(kind, until.min(MAX_TIME), "~"),
            newest_first: true,
            after: None,
        }
    }

    /// The same range, the oldest first.
    pub fn oldest_first(self, oldest_first: bool) -> Self {
        Self { newest_first: !oldest_first, ..self }
    }

    /// The part of the range after the row with this id and this key in the index.
    pub fn after(self, after: Option<(String, String)>) -> Self {
        Self { after, ..self }
    }

    /// Continues the range after this row.
    pub fn continue_after(&mut self, row: (String, String)) {
        self.after = Some(row);
    }

    /// Id of the row after which the range begins.
    pub fn into_after_id(self) -> Option<String> {
        self.after.map(|(id, _)| id)
    }
}

impl Rows {
    /// Returns up to `limit` ids of the tenant's resources in `range`. Resources that were created
    /// within the last second may be missing, because the index lags behind.
    pub async fn list(&self, tenant: &str, range: &ListRange, limit: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.list_keys(tenant, range, limit).await?.into_iter().map(|(id, _)| id).collect())
    }

    /// As [`list`](Self::list), each id with its key in the index.
    pub async fn list_keys(
        &self,
        tenant: &str,
        range: &ListRange,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let request = self.client.query().table_name(&*self.table).index_name(tables::LIST_INDEX);
        let request = request.key_condition_expression("tenant = :tenant AND listed BETWEEN :first AND :last");
        let request = request.expression_attribute_values(":tenant", text(tenant));
        let request = request.expression_attribute_values(":first", text(&range.first));
        let request = request.expression_attribute_values(":last", text(&range.last));
        let request = request.scan_index_forward(!range.newest_first);
        let start = range.after.as_ref().map(|(id, list_key)| {
            [("pk", id.as_str()), ("tenant", tenant), ("listed", list_key)]
                .map(|(name, value)| (name.to_owned(), text(value)))
        });
        let request = request.set_exclusive_start_key(start.map(HashMap::from));
        let found = request.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await?;
        let keys = |item| Some((text_in(item, "pk")?.to_owned(), text_in(item, "listed")?.to_owned()));
        let keys = |item| keys(item).ok_or_else(|| unreadable("a listed row", "it has no pk or no listed"));
        found.items().iter().map(keys).collect()
    }
}
