//! Batches: what the APIs of OpenAI and Anthropic have in common.

pub mod anthropic;
pub mod openai;

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Call, files, jobs};
use crate::{
    allowance,
    app::App,
    batch::{Batch, BatchStatus, COMPLETION_WINDOW, File, LineCounter, LineCounts, ResourceKind, derive_uuid},
    blobs::Blobs,
    dialect::Api,
    job::Redelivery,
    overflow,
    problem::{Kind, Problem},
    queue::Queue,
    store::batches::DocumentQuery,
    units::Millis,
};

/// Maximum length of an unknown parameter's name in an error, in characters.
const MAX_SHOWN_CHARS: usize = 40;

/// A batch that is about to be accepted.
struct NewBatch {
    kind: ResourceKind,
    api: Api,
    input_file: Option<String>,
    lines: NewLines,
    /// Number of lines; 0 if they have not been parsed.
    total: u64,
    metadata: Option<Map<String, Value>>,
    /// How long the output is kept, in seconds, if the caller chose it.
    output_retention_s: Option<u64>,
}

/// The lines of a new batch, in the format of `batch::parse_lines`.
enum NewLines {
    /// From the body of the request.
    Body(Bytes),
    /// The content of this file. It is copied within the bucket, so that the caller can delete the
    /// file while the batch runs.
    File(File),
}

impl NewLines {
    /// The objects of a file of several parts.
    fn parts(&self) -> &[String] {
        match self {
            Self::File(File { objects, .. }) if objects.len() > 1 => objects,
            Self::File(_) | Self::Body(_) => &[],
        }
    }

    /// Counts the lines.
    async fn count(&self, blobs: &Blobs) -> Result<u64, Problem> {
        let mut counter = LineCounter::default();
        match self {
            Self::Body(lines) => counter.read(lines),
            Self::File(file) => files::scan(blobs, file, |chunk| counter.read(chunk)).await?,
        }
        Ok(counter.lines())
    }

    /// Size in bytes.
    fn bytes(&self) -> u64 {
        match self {
            Self::Body(lines) => u64::try_from(lines.len()).unwrap_or(u64::MAX),
            Self::File(file) => file.bytes,
        }
    }
}

/// Accepts a batch. The lines are stored first, the batch second, and its message is sent third, so
/// that no accepted batch is lost. `body` is the body of the request.
///
/// A second request with the same idempotency key and the same body returns the first batch.
///
/// # Errors
/// Returns an error if no queue or bucket is configured, if the idempotency key belongs to a
/// different batch, or if a service is unavailable.
async fn accept(app: &App, call: &Call, body: &[u8], new: NewBatch) -> Result<Batch, Problem> {
    let (queue, blobs) = (queue(app)?, files::blobs(app)?);
    let now = app.clock.now();
    let window_ends = now + COMPLETION_WINDOW;
    let batch = Batch {
        id: new.kind.id(derived_id(call).unwrap_or_else(Uuid::new_v4)),
        tenant: call.tenant.name.clone(),
        dialect: call.head.dialect,
        api: new.api,
        headers: jobs::kept_headers(call),
        input_file: new.input_file,
        input_parts: new.lines.parts().len(),
        input_bytes: new.lines.bytes(),
        metadata: new.metadata,
        fingerprint: derive_uuid(&[body]).simple().to_string(),
        created_at: now,
        expires_at: call.preferences.expires_at(window_ends),
        output_kept_s: new.output_retention_s,
        status: BatchStatus::Validating,
        in_progress_at: None,
        finalizing_at: None,
        cancelling_at: None,
        ended_at: None,
        admitted_lines: 0,
        total: new.total,
        expanded: 0,
        counts: LineCounts::default(),
        errors: Vec::new(),
        output_file: None,
        error_file: None,
        stopped: 0,
        is_reported: false,
        redelivery: Redelivery::new(now),
        etag: String::new(),
    };
    let fingerprint = batch.fingerprint.clone();
    if let Some(existing) = app.batches.get(&batch.id).await? {
        return check_fingerprint(existing, &fingerprint);
    }
    let batch = Batch { admitted_lines: new.lines.count(blobs).await?, ..batch };
    allowance::admit_jobs(app, &call.tenant, batch.admitted_lines).await?;
    allowance::admit_object(app, &call.tenant, batch.input_bytes).await?;
    match new.lines {
        NewLines::Body(lines) => blobs.put(&batch.input_key(), lines).await?,
        NewLines::File(file) => files::copy(blobs, &file, &batch.input_keys()).await?,
    }
    let batch = check_fingerprint(app.batches.create(batch).await?, &fingerprint)?;
    overflow::send(queue, &batch.id, &batch.tenant, Millis::ZERO).await;
    Ok(batch)
}

/// The UUID of a batch with an `Idempotency-Key`. It is the same in every process.
fn derived_id(call: &Call) -> Option<Uuid> {
    let key = call.preferences.idempotency_key.as_ref()?;
    Some(derive_uuid(&[call.tenant.name.as_bytes(), call.head.dialect.name().as_bytes(), b"batch", key.as_bytes()]))
}

/// Returns `batch` if the request with this fingerprint created it.
fn check_fingerprint(batch: Batch, fingerprint: &str) -> Result<Batch, Problem> {
    if batch.fingerprint == fingerprint {
        return Ok(batch);
    }
    let message = "This Idempotency-Key was used for a different batch. Use a new key for each batch.";
    Err(Problem::invalid("Idempotency-Key", message))
}

/// Cancels a batch of the caller. A batch that has ended stays unchanged.
async fn cancel(app: &App, call: &Call, kind: ResourceKind, id: &str) -> Result<Batch, Problem> {
    let queue = queue(app)?;
    let batch = find(app, call, kind, id).await?;
    let batch = app.batches.cancel(batch, app.clock.now()).await?.ok_or_else(missing)?;
    if batch.status == BatchStatus::Cancelling {
        overflow::send(queue, &batch.id, &batch.tenant, Millis::ZERO).await;
    }
    with_counts(app, batch).await
}

/// Returns the caller's batch with this id. Batches of other tenants and of the other API count as
/// missing.
async fn find(app: &App, call: &Call, kind: ResourceKind, id: &str) -> Result<Batch, Problem> {
    let is_visible = |batch: &Batch| batch.tenant == call.tenant.name && ResourceKind::from_id(&batch.id) == Some(kind);
    app.batches.get(id).await?.filter(is_visible).ok_or_else(missing)
}

/// Returns a page of the caller's batches, and whether more batches follow. The page begins after
/// the batch with the id `after`, or at the start of the list.
async fn page(
    app: &App,
    call: &Call,
    kind: ResourceKind,
    after: Option<&str>,
    oldest_first: bool,
    limit: usize,
) -> Result<(Vec<Batch>, bool), Problem> {
    let after = match after {
        Some(id) => Some(find(app, call, kind, id).await?),
        None => None,
    };
    let after = after.as_ref().map(|batch| (batch.id.as_str(), batch.created_at));
    let query = DocumentQuery { oldest_first, after, limit: limit + 1 };
    let mut batches = app.batches.list(&call.tenant.name, kind, &query).await?;
    let has_more = batches.len() > limit;
    batches.truncate(limit);
    Ok((batches, has_more))
}

/// Returns the batch with its current counts. A running batch's are in separate rows.
async fn with_counts(app: &App, batch: Batch) -> Result<Batch, Problem> {
    if batch.status.is_final() || batch.total == 0 {
        return Ok(batch);
    }
    let counts = app.batches.counts(&batch.id).await?;
    Ok(Batch { counts, ..batch })
}

/// The problem of an unknown parameter. `message` says so.
pub fn unknown_parameter(name: &str, message: &str) -> Problem {
    let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
    Problem::invalid(shown, message)
}

fn queue(app: &App) -> Result<&Queue, Problem> {
    app.queue
        .as_ref()
        .ok_or_else(|| Problem::new(Kind::NotFound, "No queue is configured, so batches are not available."))
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "There is no such batch.")
}
