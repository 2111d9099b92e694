//! Backlogs of tenants: rows of the jobs table. A write replaces a backlog only if it has not
//! changed since it was read.

use aws_sdk_dynamodb::{Client, operation::put_item::builders::PutItemFluentBuilder};

use super::{
    StoreError, WriteOutcome,
    rows::{self, MAX_CHANGE_TRIES, Rows, document_in, text, unreadable},
};
use crate::{job::Backlog, retention, units::UnixMs};

/// Prefix of the key of a backlog.
const KEY: &str = "backlog#";

/// The backlogs in the jobs table.
#[derive(Clone)]
pub struct Backlogs {
    rows: Rows,
}

impl Backlogs {
    /// The backlogs in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { rows: Rows::new(client, table) }
    }

    /// Returns the backlog of a tenant.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn get(&self, tenant: &str) -> Result<Option<Backlog>, StoreError> {
        self.rows.get(&key(tenant)).await?.as_ref().map(document_in).transpose()
    }

    /// Notes that a job of `tenant` is parked that expects room at `turn_at`. Returns the backlog
    /// if its next turn has changed: then its message must be sent.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn note_parked(&self, tenant: &str, turn_at: UnixMs, now: UnixMs) -> Result<Option<Backlog>, StoreError> {
        let mut found = self.get(tenant).await?;
        for _ in 0..MAX_CHANGE_TRIES {
            let outcome = match &found {
                None => self.create(Backlog::new(tenant, turn_at, now)).await?,
                Some(backlog) => match backlog.with_parked(turn_at, now) {
                    None => return Ok(None),
                    Some(changed) => self.replace(backlog, changed).await?,
                },
            };
            match outcome {
                WriteOutcome::Written(written) => {
                    let is_new_turn = found.is_none_or(|found| found.turn != written.turn);
                    return Ok(is_new_turn.then_some(written));
                }
                WriteOutcome::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: key(tenant) })
    }

    /// Replaces `read` by `changed`, if the backlog has not changed since it was read.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn replace(&self, read: &Backlog, changed: Backlog) -> Result<WriteOutcome<Backlog>, StoreError> {
        let (request, changed) = self.put(changed)?;
        let etag = changed.etag.clone();
        rows::write_if(rows::if_unchanged(request, &read.etag), changed, &etag).await
    }

    async fn create(&self, backlog: Backlog) -> Result<WriteOutcome<Backlog>, StoreError> {
        let (request, backlog) = self.put(backlog)?;
        let etag = backlog.etag.clone();
        rows::write_if(rows::if_absent(request), backlog, &etag).await
    }

    /// Notes that the message of an overdue turn is about to be sent again. Returns `None` if the
    /// turn is not overdue any more, or if another sweep sends the message.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn take_for_resend(&self, tenant: &str, now: UnixMs) -> Result<Option<Backlog>, StoreError> {
        let Some(backlog) = self.get(tenant).await?.filter(|backlog| backlog.is_overdue(now)) else { return Ok(None) };
        Ok(match self.replace(&backlog, backlog.resent(now)).await? {
            WriteOutcome::Written(backlog) => Some(backlog),
            WriteOutcome::Conflict(_) => None,
        })
    }

    /// Gives the backlog a new etag, and begins the write of its row. Only open backlogs are in the
    /// index of open rows.
    fn put(&self, mut backlog: Backlog) -> Result<(PutItemFluentBuilder, Backlog), StoreError> {
        backlog.etag = rows::new_etag();
        let id = key(&backlog.tenant);
        let document = serde_json::to_string(&backlog).map_err(|error| unreadable(&id, &error.to_string()))?;
        let request = self.rows.put(&id, (backlog.turn_at + retention::JOB).as_s());
        let request = request.item("etag", text(&backlog.etag)).item("doc", text(&document));
        let request = match backlog.is_open {
            true => rows::in_open_index(request, &id, backlog.redelivery.due_at),
            false => request,
        };
        Ok((request, backlog))
    }
}

/// Returns the tenant whose backlog has the row `id`; `None` for other rows.
pub fn tenant_of(id: &str) -> Option<&str> {
    id.strip_prefix(KEY)
}

fn key(tenant: &str) -> String {
    format!("{KEY}{tenant}")
}
