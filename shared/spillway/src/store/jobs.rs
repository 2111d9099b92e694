//! Jobs: rows of the jobs table. A write replaces a job only if the job has not changed since it
//! was read.
//!
//! A job has up to three kinds of rows. `<id>` has its state and stays small, so that claims and
//! deferrals are cheap. `<id>#request` has the body of the request and is written once.
//! `<id>#<fence>` has the answer of the drain that claimed the job under that fence. A body that is
//! too large for the last two is in the bucket. The job's row names the fence of the one answer
//! that counts. Jobs that are followed while they run have more rows (`partial_output`).

mod bodies;
pub(super) mod line_counts;
mod lists;
mod partial_output;
mod repair;
mod rows;
mod shared_looks;
mod waiting;

use aws_sdk_dynamodb::Client;
use bytes::Bytes;
use uuid::{NoContext, Timestamp, Uuid};

use self::{bodies::Bodies, rows::JobRows, shared_looks::SharedLooks};
pub use self::{
    lists::{JobQuery, Page},
    partial_output::Streams,
    repair::{OpenJob, RedriveOutcome, SweepOutcome},
    waiting::MAX_COUNTED,
};
use super::{StoreError, WriteOutcome, registry::Registry, rows::MAX_CHANGE_TRIES};
use crate::{
    blobs::Blobs,
    job::{Job, JobOutcome, JobReader, JobStatus, JobWait, NewJob, NextStep, StoredResult},
    retention,
    units::{Millis, UnixMs},
};

/// Maximum size of a body in a row, which has 400 KiB in DynamoDB. Larger bodies are in the bucket.
pub const MAX_ROW_BODY_BYTES: usize = 350 * 1024;

/// Outcome of claiming a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The job is claimed until its lease ends: run it.
    Run { job: Box<Job>, body: Bytes },
    /// The job cannot be claimed before this time.
    NotYet { until: UnixMs },
    /// The job has ended. It may have ended just now, because it expired or was given up.
    Ended(JobStatus),
    /// The job does not exist.
    Missing,
}

/// Outcome of cancelling a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The job is cancelled.
    Cancelled,
    /// The job is running or has ended.
    TooLate(JobStatus),
    /// The tenant has no such job.
    Missing,
}

/// The jobs table.
#[derive(Clone)]
pub struct Jobs {
    rows: JobRows,
    bodies: Bodies,
    looks: SharedLooks,
    /// The registry, which knows whether a tenant has webhooks. `None` without webhooks.
    registry: Option<Registry>,
}

impl Jobs {
    /// The jobs in `table`, whose large bodies are in `blobs`.
    pub fn new(client: Client, table: &str, blobs: Option<Blobs>) -> Self {
        Self {
            rows: JobRows::new(client, table),
            bodies: Bodies::new(blobs),
            looks: SharedLooks::default(),
            registry: None,
        }
    }

    /// The same jobs, with webhooks: the end of a job is noted as a pending event if its tenant has
    /// an endpoint in `registry` that subscribes to it.
    pub fn with_webhooks(self, registry: Registry) -> Self {
        Self { registry: Some(registry), ..self }
    }

    /// Accepts a request as a job whose answer is fetched later.
    ///
    /// # Errors
    /// As [`submit_for`](Self::submit_for).
    pub async fn submit(&self, new: &NewJob) -> Result<Job, StoreError> {
        self.submit_for(JobReader::Later, new).await
    }

    /// Accepts a request as a job with an answer for `reader`. From here on the job is stored,
    /// whether or not its message is sent. If `new` has an id and that job exists, returns it
    /// unchanged.
    ///
    /// # Errors
    /// Returns an error if the body is too large, or if the store is unavailable.
    pub async fn submit_for(&self, reader: JobReader, new: &NewJob) -> Result<Job, StoreError> {
        let id = id_for(new);
        if new.id.is_some()
            && let Some(existing) = self.get(&id).await?
        {
            return Ok(existing);
        }
        let job = Job { reader, ..Job::accepted(id, new) };
        let key = format!("{}/{}/request", job.tenant, job.id);
        let body = self.bodies.store("the request", key, &new.body).await?;
        // A lease that begins just before the expiry still needs the request.
        self.rows.put_request(&job.id, body, kept_until_s(new.expires_at)).await?;
        match self.rows.create(job, kept_until_s(new.expires_at)).await? {
            WriteOutcome::Written(job) | WriteOutcome::Conflict(Some(job)) => Ok(job),
            WriteOutcome::Conflict(None) => Err(StoreError::Contended { row: "a new job".to_owned() }),
        }
    }

    /// Ends a line of a batch that has not started, with the final `status`. If the line has no job
    /// yet, it gets a job that has ended. A job that is running or has ended stays unchanged.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn end_line(
        &self,
        new: &NewJob,
        status: JobStatus,
        error: Option<&str>,
        now: UnixMs,
    ) -> Result<Job, StoreError> {
        let id = id_for(new);
        let mut found = self.rows.get(&id).await?;
        for _ in 0..MAX_CHANGE_TRIES {
            let outcome = match &found {
                Some(job) if job.status != JobStatus::Queued => return Ok(job.clone()),
                Some(job) => self.replace(job, job.ended(status, error.map(str::to_owned), now)).await?,
                None => {
                    let job = Job::accepted(id.clone(), new).ended(status, error.map(str::to_owned), now);
                    self.rows.create(job, kept_until_s(new.expires_at.max(now))).await?
                }
            };
            match outcome {
                WriteOutcome::Written(job) => return Ok(job),
                WriteOutcome::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id })
    }

    /// Returns the job with this id, of any tenant.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn get(&self, id: &str) -> Result<Option<Job>, StoreError> {
        let Some(id) = canonical(id) else { return Ok(None) };
        self.rows.get(&id).await
    }

    /// Claims the job `id` for `lease`, if it should run now.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable, or if the job's request cannot be read.
    pub async fn claim(&self, id: &str, lease: Millis, now: UnixMs) -> Result<ClaimOutcome, StoreError> {
        let Some(job) = self.get(id).await? else { return Ok(ClaimOutcome::Missing) };
        self.claim_job(job, lease, now).await
    }

    /// Claims a job that was just read for `lease`, if it should run now.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn claim_job(&self, job: Job, lease: Millis, now: UnixMs) -> Result<ClaimOutcome, StoreError> {
        let (id, mut job) = (job.id.clone(), job);
        let mut body = None;
        for _ in 0..MAX_CHANGE_TRIES {
            let changed = match job.next_step(now) {
                NextStep::Run => {
                    // Read the body before the claim, so that an unavailable body costs no attempt.
                    if body.is_none() {
                        body = Some(self.bodies.fetch(self.rows.request(&job.id).await?).await?);
                    }
                    job.claimed(lease, now)
                }
                NextStep::Wait { until } => return Ok(ClaimOutcome::NotYet { until }),
                NextStep::Drop(status) => return Ok(ClaimOutcome::Ended(status)),
                NextStep::Expire | NextStep::GiveUp => expired_or_given_up(&job, now),
            };
            match self.replace(&job, changed).await? {
                WriteOutcome::Written(job) => {
                    return Ok(match body {
                        Some(body) if job.status == JobStatus::Running => {
                            ClaimOutcome::Run { job: Box::new(job), body }
                        }
                        _ => ClaimOutcome::Ended(job.status),
                    });
                }
                WriteOutcome::Conflict(Some(current)) => job = current,
                WriteOutcome::Conflict(None) => return Ok(ClaimOutcome::Missing),
            }
        }
        Err(StoreError::Contended { row: id })
    }

    /// Postpones a queued job because of `wait`, unless it has changed since it was read: then
    /// another process handles it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn postpone(&self, job: &Job, wait: &JobWait, ready_at: UnixMs) -> Result<(), StoreError> {
        self.replace(job, job.postponed(wait, ready_at)).await.map(drop)
    }

    /// Puts a claimed job back into the queue because of `wait`. Returns `false` if another drain
    /// holds it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn defer(&self, claimed: &Job, wait: &JobWait, ready_at: UnixMs) -> Result<bool, StoreError> {
        self.change_held(claimed, |job| job.deferred(wait, ready_at)).await
    }

    /// Parks a claimed job because its tenant's limits have no room until `ready_at`. Returns
    /// `false` if another drain holds it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn park(&self, claimed: &Job, wait: &JobWait, ready_at: UnixMs, now: UnixMs) -> Result<bool, StoreError> {
        self.change_held(claimed, |job| job.parked(wait, ready_at, now)).await
    }

    /// Puts a claimed job back into the queue because the attempt failed. Returns `false` if
    /// another drain holds it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn retry(&self, claimed: &Job, ready_at: UnixMs) -> Result<bool, StoreError> {
        self.change_held(claimed, |job| job.retried(ready_at)).await
    }

    /// Ends a claimed job with its outcome. If it fails, the reason why it waited is the one of
    /// `claimed`. Returns `false` if another drain holds it or has ended
    /// it: then the answer of that drain counts. The call can be repeated safely.
    ///
    /// # Errors
    /// Returns an error if the answer is too large, or if the store is unavailable.
    pub async fn finish(&self, claimed: &Job, outcome: &JobOutcome, now: UnixMs) -> Result<bool, StoreError> {
        let (status, error, result) = match outcome {
            JobOutcome::Succeeded(result) => (JobStatus::Succeeded, None, result),
            JobOutcome::Failed { error, result } => (JobStatus::Failed, Some(error.clone()), result),
        };
        let key = format!("{}/{}/{}", claimed.tenant, claimed.id, claimed.fence);
        let body = self.bodies.store("the answer", key, &result.body).await?;
        self.rows.put_result(&claimed.id, claimed.fence, result, body, kept_until_s(now)).await?;
        self.change_held(claimed, |job| Job {
            result_fence: Some(job.fence),
            pending_event: job.end_event(status, Some(result)),
            ..Job { wait: claimed.wait.clone(), ..job.clone() }.ended(status, error.clone(), now)
        })
        .await
    }

    /// Cancels a job of this tenant, unless it has been claimed.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn cancel(&self, id: &str, tenant: &str, now: UnixMs) -> Result<CancelOutcome, StoreError> {
        self.cancel_if(id, tenant, now, |status| status == JobStatus::Queued).await
    }

    /// Cancels a job of this tenant even if it is running. The call to the model continues and is
    /// charged. Its drain no longer holds the job, so the answer is dropped.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn cancel_even_running(&self, id: &str, tenant: &str, now: UnixMs) -> Result<CancelOutcome, StoreError> {
        self.cancel_if(id, tenant, now, |status| !status.is_final()).await
    }

    async fn cancel_if(
        &self,
        id: &str,
        tenant: &str,
        now: UnixMs,
        can_cancel: impl Fn(JobStatus) -> bool,
    ) -> Result<CancelOutcome, StoreError> {
        let mut found = self.get(id).await?;
        for _ in 0..MAX_CHANGE_TRIES {
            let Some(job) = found.filter(|job| job.tenant == tenant) else { return Ok(CancelOutcome::Missing) };
            match job.status {
                status if can_cancel(status) => {}
                JobStatus::Cancelled => return Ok(CancelOutcome::Cancelled),
                status => return Ok(CancelOutcome::TooLate(status)),
            }
            match self.replace(&job, job.ended(JobStatus::Cancelled, None, now)).await? {
                WriteOutcome::Written(_) => return Ok(CancelOutcome::Cancelled),
                WriteOutcome::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id.to_owned() })
    }

    /// Returns the answer of a job that succeeded or failed, or `None` if it has none or the answer
    /// is no longer kept.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn result(&self, job: &Job) -> Result<Option<StoredResult>, StoreError> {
        let Some(fence) = job.result_fence else { return Ok(None) };
        let Some((result, body)) = self.rows.result(&job.id, fence).await? else { return Ok(None) };
        Ok(Some(StoredResult { body: self.bodies.fetch(body).await?, ..result }))
    }

    /// Notes that the end of the job was reported. If the job has changed since it was read, the
    /// end is reported again.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn clear_pending_event(&self, job: &Job) -> Result<(), StoreError> {
        self.replace(job, Job { pending_event: None, ..job.clone() }).await.map(drop)
    }

    /// Changes the job while it is held under the fence of `claimed`.
    async fn change_held(&self, claimed: &Job, change: impl Fn(&Job) -> Job) -> Result<bool, StoreError> {
        let mut job = claimed.clone();
        for _ in 0..MAX_CHANGE_TRIES {
            let changed = change(&job);
            match self.replace(&job, changed.clone()).await? {
                WriteOutcome::Written(_) => return Ok(true),
                WriteOutcome::Conflict(Some(current)) if current.is_held_under(claimed.fence) => job = current,
                // A repeated call finds the change of the first call.
                WriteOutcome::Conflict(current) => {
                    return Ok(current.is_some_and(|current| is_same_change(&current, &changed)));
                }
            }
        }
        Err(StoreError::Contended { row: claimed.id.clone() })
    }

    /// Replaces a job. Every change goes through here, and with it every end.
    async fn replace(&self, job: &Job, changed: Job) -> Result<WriteOutcome<Job>, StoreError> {
        let ends = changed.status.is_final() && !job.status.is_final();
        let changed = if ends { self.with_pending_event(changed).await } else { changed };
        let last_needed_at = changed.finished_at.unwrap_or(changed.expires_at.max(changed.ready_at));
        self.rows.replace(&job.etag, changed, kept_until_s(last_needed_at)).await
    }

    /// Adds the event that reports the end of the job, if its tenant has an endpoint that
    /// subscribes to it. If the registry is unavailable, adds the event: a missed report costs more
    /// than a row for the sweep.
    async fn with_pending_event(&self, ended: Job) -> Job {
        let event = ended.pending_event.or_else(|| ended.end_event(ended.status, None));
        let (Some(event), Some(registry)) = (event, &self.registry) else { return ended.with_pending_event(None) };
        let has_receiver = match registry.endpoints(&ended.tenant).await {
            Ok(endpoints) => endpoints.iter().any(|endpoint| endpoint.is_subscribed_to(event)),
            Err(_) => true,
        };
        ended.with_pending_event(has_receiver.then_some(event))
    }
}

/// The job after it expired or was given up.
fn expired_or_given_up(job: &Job, now: UnixMs) -> Job {
    match job.next_step(now) {
        NextStep::GiveUp => {
            job.ended(JobStatus::Failed, Some("every attempt to run it was interrupted".to_owned()), now)
        }
        _ => job.ended(JobStatus::Expired, Some(job.expiry_reason()), now),
    }
}

fn is_same_change(current: &Job, changed: &Job) -> bool {
    (current.fence, current.status, current.ready_at, current.result_fence)
        == (changed.fence, changed.status, changed.ready_at, changed.result_fence)
}

/// Returns the canonical form of a job's id. Ids come from callers, and one with a `#` would name
/// another row.
fn canonical(id: &str) -> Option<String> {
    Uuid::try_parse(id).ok().map(|id| id.hyphenated().to_string())
}

fn id_for(new: &NewJob) -> String {
    new.id.clone().unwrap_or_else(|| new_id(new.created_at))
}

fn new_id(created_at: UnixMs) -> String {
    let nanos = u32::try_from(created_at.as_ms() % 1_000).unwrap_or_default() * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, created_at.as_s(), nanos)).hyphenated().to_string()
}

/// Returns the time when DynamoDB may delete a row that is last needed at `last_needed_at`, in
/// seconds since 1970.
fn kept_until_s(last_needed_at: UnixMs) -> u64 {
    (last_needed_at + retention::JOB).as_s()
}
