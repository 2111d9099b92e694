//! Rows of jobs, of their requests and of their answers.

use aws_sdk_dynamodb::{Client, operation::put_item::builders::PutItemFluentBuilder};
use bytes::Bytes;

use super::{OpenJob, bodies::BodyLocation, lists, waiting};
use crate::{
    job::{Job, JobStatus, StoredResult},
    store::{
        Item, StoreError, WriteOutcome,
        rows::{self, Consistency, Rows, binary, bytes_in, document_in, number, number_in, text, text_in, unreadable},
        tables,
    },
    units::UnixMs,
};

/// The jobs table, job by job.
#[derive(Clone)]
pub(super) struct JobRows {
    pub(super) rows: Rows,
}

impl JobRows {
    pub(super) fn new(client: Client, table: &str) -> Self {
        Self { rows: Rows::new(client, table) }
    }

    /// Writes the row of a new job, unless it exists.
    pub(super) async fn create(&self, job: Job, expires_s: u64) -> Result<WriteOutcome<Job>, StoreError> {
        let (job, request) = self.put_job(job, expires_s)?;
        self.write(rows::if_absent(request), job, expires_s).await
    }

    /// Replaces the row of a job by `changed` if it still has the etag `read_etag`.
    pub(super) async fn replace(
        &self,
        read_etag: &str,
        changed: Job,
        expires_s: u64,
    ) -> Result<WriteOutcome<Job>, StoreError> {
        let (job, request) = self.put_job(changed, expires_s)?;
        self.write(rows::if_unchanged(request, read_etag), job, expires_s).await
    }

    /// Sends the conditional write of a job's row. The end of a batch's line is counted in the same
    /// transaction.
    async fn write(
        &self,
        request: PutItemFluentBuilder,
        job: Job,
        expires_s: u64,
    ) -> Result<WriteOutcome<Job>, StoreError> {
        match job.member.clone() {
            Some(member) if job.status.is_final() => self.write_and_count(request, job, &member, expires_s).await,
            _ => {
                let etag = job.etag.clone();
                rows::write_if(request, job, &etag).await
            }
        }
    }

    pub(super) async fn get(&self, id: &str) -> Result<Option<Job>, StoreError> {
        self.rows.get(id).await?.as_ref().map(document_in).transpose()
    }

    /// Returns the jobs with these ids that exist, in the same order. Recent changes may be
    /// missing.
    pub(super) async fn get_all(&self, ids: &[String]) -> Result<Vec<Job>, StoreError> {
        let items = self.rows.get_all(ids, Consistency::Eventual).await?;
        ids.iter().filter_map(|id| items.get(id)).map(document_in).collect()
    }

    pub(super) async fn put_request(&self, id: &str, body: BodyLocation, expires_s: u64) -> Result<(), StoreError> {
        with_body(self.rows.put(&request_key(id), expires_s), body).send().await?;
        Ok(())
    }

    pub(super) async fn request(&self, id: &str) -> Result<BodyLocation, StoreError> {
        let key = request_key(id);
        let item = self.rows.get(&key).await?.ok_or_else(|| unreadable(&key, "it is gone"))?;
        body_of(&item, &key)
    }

    /// Writes a row that contains only bytes.
    pub(super) async fn put_bytes(&self, key: &str, bytes: &Bytes, expires_s: u64) -> Result<(), StoreError> {
        self.rows.put(key, expires_s).item("body", binary(bytes)).send().await?;
        Ok(())
    }

    /// Returns the bytes of a row that contains only bytes, if it exists.
    pub(super) async fn bytes(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let body = |item: Item| bytes_in(&item, "body").ok_or_else(|| unreadable(key, "it has no body"));
        self.rows.get(key).await?.map(body).transpose()
    }

    pub(super) async fn put_result(
        &self,
        id: &str,
        fence: u64,
        result: &StoredResult,
        body: BodyLocation,
        expires_s: u64,
    ) -> Result<(), StoreError> {
        let key = result_key(id, fence);
        let headers = serde_json::to_string(&result.headers).map_err(|error| unreadable(&key, &error.to_string()))?;
        let request = self.rows.put(&key, expires_s);
        let request = request.item("status", number(result.status.into())).item("headers", text(&headers));
        with_body(request, body).send().await?;
        Ok(())
    }

    /// Returns an answer without its body, and the location of the body.
    pub(super) async fn result(
        &self,
        id: &str,
        fence: u64,
    ) -> Result<Option<(StoredResult, BodyLocation)>, StoreError> {
        let key = result_key(id, fence);
        let Some(item) = self.rows.get(&key).await? else { return Ok(None) };
        let status = number_in(&item, "status").and_then(|status| u16::try_from(status).ok());
        let headers = text_in(&item, "headers").and_then(|headers| serde_json::from_str(headers).ok());
        let (Some(status), Some(headers)) = (status, headers) else {
            return Err(unreadable(&key, "it has no status or no headers"));
        };
        Ok(Some((StoredResult { status, headers, body: Bytes::new() }, body_of(&item, &key)?)))
    }

    /// Returns up to `limit` open rows of a partition of the index that are due before
    /// `due_before`, the oldest first.
    pub(super) async fn open_due_before(
        &self,
        partition: &str,
        due_before: UnixMs,
        limit: usize,
    ) -> Result<Vec<OpenJob>, StoreError> {
        let request = self.rows.client.query().table_name(&*self.rows.table).index_name(tables::OPEN_INDEX);
        let request = request.key_condition_expression("#open = :partition AND due_ms < :due_ms");
        let request = request.expression_attribute_names("#open", "open");
        let request = request.expression_attribute_values(":partition", text(partition));
        let request = request.expression_attribute_values(":due_ms", number(due_before.as_ms()));
        let found = request.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await?;
        let parse = |item| match (text_in(item, "pk"), number_in(item, "due_ms")) {
            (Some(id), Some(due_ms)) => Ok(OpenJob { id: id.to_owned(), due_at: UnixMs::from_ms(due_ms) }),
            _ => Err(unreadable("a row of the index of open jobs", "it has no pk or no due_ms")),
        };
        found.items().iter().map(parse).collect()
    }

    /// Gives the job a new etag, and begins the write of its row. Only open jobs are in the index
    /// of open rows, and only waiting jobs in the index of waiting jobs.
    fn put_job(&self, job: Job, expires_s: u64) -> Result<(Job, PutItemFluentBuilder), StoreError> {
        let job = Job { etag: rows::new_etag(), ..job };
        let document = serde_json::to_string(&job).map_err(|error| unreadable(&job.id, &error.to_string()))?;
        let request = self.rows.put(&job.id, expires_s);
        let request = request.item("tenant", text(&job.tenant)).item("status", text(job.status.name()));
        let request = request.item("etag", text(&job.etag)).item("doc", text(&document));
        // The jobs of a batch are not listed. They are found through the batch.
        let request = match &job.member {
            None => request.item("listed", text(&lists::index_key(&job).1)),
            Some(_) => request,
        };
        if !job.is_open() {
            return Ok((job, request));
        }
        let mut request = rows::in_open_index(request, &job.id, job.redelivery.due_at);
        if job.status == JobStatus::Queued {
            request = request
                .item("waiting", text(&waiting::partition(&job.tenant, job.is_parked)))
                .item("place_ms", number(job.effective_arrival().as_ms()))
                .item("priority", text(job.priority.name()))
                .item("ready_ms", number(job.ready_at.as_ms()));
        }
        Ok((job, request))
    }
}

pub(super) fn request_key(id: &str) -> String {
    format!("{id}#request")
}

pub(super) fn result_key(id: &str, fence: u64) -> String {
    format!("{id}#{fence}")
}

fn with_body(request: PutItemFluentBuilder, body: BodyLocation) -> PutItemFluentBuilder {
    match body {
        BodyLocation::Row(body) => request.item("body", binary(&body)),
        BodyLocation::Blob { key, bytes, sha256 } => {
            let request = request.item("blob", text(&key)).item("bytes", number(bytes));
            request.item("sha256", binary(&sha256))
        }
    }
}

fn body_of(item: &Item, key: &str) -> Result<BodyLocation, StoreError> {
    let in_bucket = || {
        let key = text_in(item, "blob")?.to_owned();
        Some(BodyLocation::Blob { key, bytes: number_in(item, "bytes")?, sha256: bytes_in(item, "sha256")? })
    };
    let body = bytes_in(item, "body").map(BodyLocation::Row).or_else(in_bucket);
    body.ok_or_else(|| unreadable(key, "it has no body"))
}
