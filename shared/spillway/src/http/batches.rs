//! Batches, as both APIs have them: accepted, found, taken back.

pub mod anthropic;
pub mod openai;

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Call, files, jobs};
use crate::{
    app::App,
    batch::{Batch, BatchStatus, LineCounts, ResourceKind, derive_uuid},
    dialect::Api,
    job::Redelivery,
    overflow,
    problem::{Kind, Problem},
    queue::Queue,
    store::batches::DocumentQuery,
    units::Millis,
};

/// How long a batch may take: a day, as in both APIs.
const WINDOW: Millis = Millis::from_s(24 * 60 * 60);

/// A batch that is to be accepted.
struct New {
    kind: ResourceKind,
    api: Api,
    input_file: Option<String>,
    /// Its lines, as `batch::parse_lines` takes them.
    lines: Bytes,
    /// How many those are, if that is known.
    total: u64,
    metadata: Option<Map<String, Value>>,
    output_kept_s: Option<u64>,
}

/// Accepts a batch; `body` is the request's. Its lines are stored first, then the batch, then its message is sent, so that
/// nothing accepted is ever lost.
async fn accept(app: &App, call: &Call, body: &[u8], new: New) -> Result<Batch, Problem> {
    let (queue, bucket) = (queue(app)?, files::blobs(app)?);
    let now = app.clock.now();
    let last = now + WINDOW;
    let batch = Batch {
        id: new.kind.id(derived_id(call).unwrap_or_else(Uuid::new_v4)),
        tenant: call.tenant.name.clone(),
        dialect: call.head.dialect,
        api: new.api,
        headers: jobs::kept_headers(call),
        input_file: new.input_file,
        metadata: new.metadata,
        fingerprint: derive_uuid(&[body]).simple().to_string(),
        created_at: now,
        expires_at: call.preferences.expires_at(last),
        output_kept_s: new.output_kept_s,
        status: BatchStatus::Validating,
        in_progress_at: None,
        finalizing_at: None,
        cancelling_at: None,
        ended_at: None,
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
    if let Some(earlier) = app.batches.get(&batch.id).await? {
        return same(earlier, &fingerprint);
    }
    bucket.put(&batch.input_key(), new.lines).await.map_err(|error| files::no_bucket(&error))?;
    let batch = app.batches.create(batch).await?;
    let batch = same(batch, &fingerprint)?;
    overflow::send(queue, &batch.id, &batch.tenant, Millis::ZERO).await;
    Ok(batch)
}

/// The id that an `Idempotency-Key` gives a batch: the same in every process, for as long as the batch is kept.
fn derived_id(call: &Call) -> Option<Uuid> {
    let key = call.preferences.idempotency_key.as_ref()?;
    Some(derive_uuid(&[call.tenant.name.as_bytes(), call.head.dialect.name().as_bytes(), b"batch", key.as_bytes()]))
}

fn same(batch: Batch, fingerprint: &str) -> Result<Batch, Problem> {
    if batch.fingerprint == fingerprint {
        return Ok(batch);
    }
    let told = "This Idempotency-Key was used for another batch. Send each batch with a key of its own.";
    Err(Problem::invalid("Idempotency-Key", told))
}

/// Takes the caller's own batch back. One that has ended stays as it is.
async fn cancel(app: &App, call: &Call, kind: ResourceKind, id: &str) -> Result<Batch, Problem> {
    let queue = queue(app)?;
    let batch = find(app, call, kind, id).await?;
    let cancelled = app.batches.cancel(batch, app.clock.now()).await?;
    let batch = cancelled.ok_or_else(missing)?;
    if batch.status == BatchStatus::Cancelling {
        overflow::send(queue, &batch.id, &batch.tenant, Millis::ZERO).await;
    }
    counted(app, batch).await
}

/// The caller's own batch; another tenant's, or another API's, looks as if it did not exist.
async fn find(app: &App, call: &Call, kind: ResourceKind, id: &str) -> Result<Batch, Problem> {
    of_tenant(app, &call.tenant.name, kind, id).await
}

async fn of_tenant(app: &App, tenant: &str, kind: ResourceKind, id: &str) -> Result<Batch, Problem> {
    let batch = app.batches.get(id).await?;
    let own = batch.filter(|batch| batch.tenant == tenant && ResourceKind::from_id(&batch.id) == Some(kind));
    own.ok_or_else(missing)
}

/// A page of a tenant's batches from one that it follows, and whether there are more.
async fn page(
    app: &App,
    tenant: &str,
    kind: ResourceKind,
    after: Option<&str>,
    oldest_first: bool,
    limit: usize,
) -> Result<(Vec<Batch>, bool), Problem> {
    let after = match after {
        Some(id) => Some(of_tenant(app, tenant, kind, id).await?),
        None => None,
    };
    let after = after.as_ref().map(|batch| (batch.id.as_str(), batch.created_at));
    let wanted = DocumentQuery { oldest_first, after, limit: limit + 1 };
    let mut batches = app.batches.list(tenant, kind, &wanted).await?;
    let has_more = batches.len() > limit;
    batches.truncate(limit);
    Ok((batches, has_more))
}

/// The batch with its counts as they are now.
async fn counted(app: &App, batch: Batch) -> Result<Batch, Problem> {
    if batch.status.is_final() || batch.total == 0 {
        return Ok(batch);
    }
    let counts = app.batches.counts(&batch.id).await?;
    Ok(Batch { counts, ..batch })
}

fn queue(app: &App) -> Result<&Queue, Problem> {
    app.queue.as_ref().ok_or_else(|| {
        Problem::new(Kind::NotFound, "There are no batches here, because no queue is configured to carry them.")
    })
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "There is no such batch.")
}
