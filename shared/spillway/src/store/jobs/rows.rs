//! The rows of the jobs table: what they hold, and how one is replaced.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::{PutItemError, builders::PutItemFluentBuilder},
    primitives::Blob,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use bytes::Bytes;
use uuid::Uuid;

use super::{OpenJob, bodies::Place, lists};
use crate::{
    job::{Job, Status, StoredResult},
    store::{Item, StoreError, tables},
};

/// The partitions of the index of open jobs, so that no single one takes all writes.
pub(super) const OPEN_PARTS: [&str; 4] = ["0", "1", "2", "3"];

/// What became of replacing a row.
pub(super) enum Replaced {
    /// It is what it was to be.
    Done(Job),
    /// It had changed; this is what is there, if anything.
    Conflict(Option<Job>),
}

/// The table, row by row.
#[derive(Clone)]
pub(in crate::store) struct Rows {
    pub(in crate::store) client: Client,
    pub(in crate::store) table: Arc<str>,
}

impl Rows {
    pub(in crate::store) fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// Writes the row of a new job.
    pub(super) async fn create(&self, job: Job, expires_s: u64) -> Result<Replaced, StoreError> {
        let (job, request) = self.put_job(job, expires_s)?;
        self.write(request.condition_expression("attribute_not_exists(pk)"), &job, expires_s).await
    }

    /// Writes `changed` over the row whose etag is `seen`.
    pub(super) async fn replace(&self, seen: &str, changed: Job, expires_s: u64) -> Result<Replaced, StoreError> {
        let (job, request) = self.put_job(changed, expires_s)?;
        let request = request.condition_expression("etag = :seen");
        let request = request.expression_attribute_values(":seen", text(seen));
        self.write(request, &job, expires_s).await
    }

    /// Sends the conditional write of a job's row. The end of a batch's line is counted in the same transaction.
    async fn write(&self, request: PutItemFluentBuilder, job: &Job, expires_s: u64) -> Result<Replaced, StoreError> {
        match &job.member {
            Some(member) if job.status.is_final() => self.write_and_count(request, job, member, expires_s).await,
            _ => written_or_there(request, job).await,
        }
    }

    pub(super) async fn get(&self, id: &str) -> Result<Option<Job>, StoreError> {
        self.item(id).await?.as_ref().map(read_job).transpose()
    }

    pub(super) async fn put_request(&self, id: &str, body: Place, expires_s: u64) -> Result<(), StoreError> {
        with_body(self.put(&request_key(id), expires_s), body).send().await?;
        Ok(())
    }

    pub(super) async fn request(&self, id: &str) -> Result<Place, StoreError> {
        let key = request_key(id);
        let item = self.item(&key).await?.ok_or_else(|| unreadable(&key, "it is gone"))?;
        body_of(&item, &key)
    }

    /// Writes a row that is bytes and nothing else.
    pub(super) async fn put_bytes(&self, key: &str, bytes: &Bytes, expires_s: u64) -> Result<(), StoreError> {
        self.put(key, expires_s).item("body", blob(bytes)).send().await?;
        Ok(())
    }

    /// The bytes of such a row, if it is there.
    pub(super) async fn bytes(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let read = |item: Item| Some(Bytes::copy_from_slice(item.get("body")?.as_b().ok()?.as_ref()));
        let found = self.item(key).await?.map(|item| read(item).ok_or_else(|| unreadable(key, "it has no body")));
        found.transpose()
    }

    pub(super) async fn put_result(
        &self,
        id: &str,
        fence: u64,
        result: &StoredResult,
        body: Place,
        expires_s: u64,
    ) -> Result<(), StoreError> {
        let key = result_key(id, fence);
        let headers = serde_json::to_string(&result.headers).map_err(|error| unreadable(&key, &error.to_string()))?;
        let request = self.put(&key, expires_s);
        let request = request.item("status", number(result.status.into()));
        let request = request.item("headers", AttributeValue::S(headers));
        with_body(request, body).send().await?;
        Ok(())
    }

    /// The answer without its body, and where that is.
    pub(super) async fn result(&self, id: &str, fence: u64) -> Result<Option<(StoredResult, Place)>, StoreError> {
        let key = result_key(id, fence);
        let Some(item) = self.item(&key).await? else { return Ok(None) };
        let status = number_in(&item, "status").and_then(|status| u16::try_from(status).ok());
        let headers = text_in(&item, "headers").and_then(|headers| serde_json::from_str(headers).ok());
        let (Some(status), Some(headers)) = (status, headers) else {
            return Err(unreadable(&key, "it has no status or no headers"));
        };
        Ok(Some((StoredResult { status, headers, body: Bytes::new() }, body_of(&item, &key)?)))
    }

    /// The open jobs of one part of the index that are due before `due_ms`, oldest first.
    pub(super) async fn open_due_before(
        &self,
        part: &str,
        due_ms: u64,
        most: usize,
    ) -> Result<Vec<OpenJob>, StoreError> {
        let request = self.client.query().table_name(&*self.table).index_name(tables::OPEN_INDEX);
        let request = request.key_condition_expression("#open = :part AND due_ms < :due_ms");
        let request = request.expression_attribute_names("#open", "open");
        let request = request.expression_attribute_values(":part", text(part));
        let request = request.expression_attribute_values(":due_ms", number(due_ms));
        let found = request.limit(i32::try_from(most).unwrap_or(i32::MAX)).send().await?;
        found
            .items()
            .iter()
            .map(|item| match (text_in(item, "pk"), number_in(item, "due_ms")) {
                (Some(id), Some(due_ms)) => Ok(OpenJob { id: id.to_owned(), due_ms }),
                _ => Err(unreadable("a row of the index of open jobs", "it has no pk or no due_ms")),
            })
            .collect()
    }

    pub(in crate::store) async fn item(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        Ok(request.key("pk", text(key)).send().await?.item)
    }

    pub(in crate::store) fn put(&self, key: &str, expires_s: u64) -> PutItemFluentBuilder {
        let request = self.client.put_item().table_name(&*self.table);
        request.item("pk", text(key)).item(tables::EXPIRES_S, number(expires_s))
    }

    /// The job under a new etag, and the request that writes it. Only jobs that something is to be done about are in the index
    /// of open ones, only waiting ones in that of those.
    fn put_job(&self, job: Job, expires_s: u64) -> Result<(Job, PutItemFluentBuilder), StoreError> {
        let job = Job { etag: Uuid::new_v4().simple().to_string(), ..job };
        let document = serde_json::to_string(&job).map_err(|error| unreadable(&job.id, &error.to_string()))?;
        let request = self.put(&job.id, expires_s);
        let request = request.item("tenant", text(&job.tenant)).item("status", text(job.status.name()));
        let request = request.item("etag", text(&job.etag)).item("doc", AttributeValue::S(document));
        // Those of a batch are found by their batch.
        let request = match &job.member {
            None => request.item("listed", text(&lists::key(&job).1)),
            Some(_) => request,
        };
        if !job.is_open() {
            return Ok((job, request));
        }
        let mut request = request.item("open", text(open_part(&job.id))).item("due_ms", number(job.due_ms));
        if job.status == Status::Queued {
            request = request.item("waiting", text(&job.tenant)).item("place_ms", number(job.place_ms()));
            request = request.item("priority", text(job.priority.name())).item("ready_ms", number(job.ready_ms));
        }
        Ok((job, request))
    }
}

/// Sends a conditional write. The SDK may repeat one whose answer was lost: if what is there is then what we wrote, it
/// is done.
async fn written_or_there(request: PutItemFluentBuilder, job: &Job) -> Result<Replaced, StoreError> {
    let request = request.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    let there = match request.send().await {
        Ok(_) => return Ok(Replaced::Done(job.clone())),
        Err(error) => match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failed)) => failed.item().map(read_job).transpose()?,
            _ => return Err(error.into()),
        },
    };
    Ok(match there {
        Some(there) if there.etag == job.etag => Replaced::Done(there),
        there => Replaced::Conflict(there),
    })
}

/// The ids end in random digits, so that they spread evenly.
pub(in crate::store) fn open_part(id: &str) -> &'static str {
    let last = usize::from(id.bytes().next_back().unwrap_or_default());
    OPEN_PARTS[last % OPEN_PARTS.len()]
}

pub(super) fn request_key(id: &str) -> String {
    format!("{id}#request")
}

pub(super) fn result_key(id: &str, fence: u64) -> String {
    format!("{id}#{fence}")
}

pub(in crate::store) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(in crate::store) fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn blob(bytes: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes.to_vec()))
}

fn with_body(request: PutItemFluentBuilder, body: Place) -> PutItemFluentBuilder {
    match body {
        Place::Row(body) => request.item("body", blob(&body)),
        Place::Blob { key, bytes, sha256 } => {
            let request = request.item("blob", text(&key)).item("bytes", number(bytes));
            request.item("sha256", blob(&sha256))
        }
    }
}

pub(in crate::store) fn text_in<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

pub(in crate::store) fn number_in(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn body_of(item: &Item, key: &str) -> Result<Place, StoreError> {
    let bytes = |name| Some(Bytes::copy_from_slice(item.get(name)?.as_b().ok()?.as_ref()));
    let in_bucket = || {
        let key = text_in(item, "blob")?.to_owned();
        Some(Place::Blob { key, bytes: number_in(item, "bytes")?, sha256: bytes("sha256")? })
    };
    bytes("body").map(Place::Row).or_else(in_bucket).ok_or_else(|| unreadable(key, "it has no body"))
}

pub(super) fn read_job(item: &Item) -> Result<Job, StoreError> {
    let id = text_in(item, "pk").unwrap_or("a job without a pk");
    let document = text_in(item, "doc").ok_or_else(|| unreadable(id, "it has no doc"))?;
    serde_json::from_str(document).map_err(|error| unreadable(id, &error.to_string()))
}

pub(in crate::store) fn unreadable(row: &str, why: &str) -> StoreError {
    StoreError::Unreadable { row: row.to_owned(), why: why.to_owned() }
}
