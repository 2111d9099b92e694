//! The jobs: rows that are only ever replaced by what follows from what was read.
//!
//! A job is up to three kinds of rows. `<id>` says how it stands and stays small, so that claims and deferrals are
//! cheap; `<id>#request` is the client's body, written once; `<id>#<fence>` is the answer of the drain that claimed it
//! at that count. The last two name a place in the bucket where the body is too large for them. The job's row names the one
//! answer that counts. Streams that are followed while they come have more (`parts`).

mod bodies;
pub(super) mod counting;
pub(super) mod indexes;
mod lists;
mod partial_output;
mod repair;
pub(super) mod rows;

use aws_sdk_dynamodb::Client;
use bytes::Bytes;
use uuid::{NoContext, Timestamp, Uuid};

use self::{
    bodies::Bodies,
    rows::{Replaced, Rows},
};
pub use self::{
    indexes::Waiting,
    lists::{Page, Wanted},
    partial_output::Streams,
    repair::{OpenJob, Redrive, Sweep},
};
use super::{StoreError, registry::Registry};
use crate::{
    blobs::Blobs,
    job::{Job, NewJob, Next, Outcome, Reader, Status, StoredResult},
};

/// The most bytes of a request's or an answer's body in a row, which has 400 KiB in DynamoDB. A larger one is in the bucket.
pub const MAX_ROW_BODY_BYTES: usize = 350 * 1024;

/// How long jobs and answers are kept after the end, in milliseconds.
pub const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How often a change is tried again because the job changed meanwhile.
const MOST_TRIES: usize = 8;

/// What a message about a job led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The job is ours until its lease ends: run it.
    Run { job: Box<Job>, body: Bytes },
    /// Too early: the job can be claimed at this time, in milliseconds since 1970.
    NotYet { until_ms: u64 },
    /// The job has ended, perhaps just now because its time or its attempts were over.
    Ended(Status),
    /// There is no such job.
    Missing,
}

/// What a cancellation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The job will not run.
    Cancelled,
    /// It runs or has ended.
    TooLate(Status),
    /// The tenant has no such job.
    Missing,
}

/// The jobs table.
#[derive(Clone)]
pub struct Jobs {
    rows: Rows,
    bodies: Bodies,
    /// Where it says whose ends are to be told; without it, nobody's are.
    told: Option<Registry>,
}

impl Jobs {
    /// The jobs in `table`, whose large bodies are in `blobs`.
    pub fn new(client: Client, table: &str, blobs: Option<Blobs>) -> Self {
        Self { rows: Rows::new(client, table), bodies: Bodies::new(blobs), told: None }
    }

    /// The same, but the end of each job of a tenant that has webhooks in `registry` is noted as still to be told.
    pub fn announced_by(self, registry: Registry) -> Self {
        Self { told: Some(registry), ..self }
    }

    /// Accepts a request as a job. It is kept from here on, whether or not a message about it is sent. If the job has an id
    /// and is there already, it stays as it is.
    pub async fn submit(&self, new: &NewJob) -> Result<Job, StoreError> {
        self.submit_for(Reader::Later, new).await
    }

    /// The same, with an answer for `reader`.
    pub async fn submit_for(&self, reader: Reader, new: &NewJob) -> Result<Job, StoreError> {
        let id = new.id.clone().unwrap_or_else(|| new_id(new.created_ms));
        if new.id.is_some()
            && let Some(earlier) = self.get(&id).await?
        {
            return Ok(earlier);
        }
        let job = Job { reader, ..Job::accepted(id, new) };
        // A lease that began just before the expiry still needs it.
        let body = self.bodies.place("the request", format!("{}/{}/request", job.tenant, job.id), &new.body).await?;
        self.rows.put_request(&job.id, body, kept_until_s(new.expires_ms)).await?;
        match self.rows.create(job, kept_until_s(new.expires_ms)).await? {
            Replaced::Done(job) | Replaced::Conflict(Some(job)) => Ok(job),
            Replaced::Conflict(None) => Err(StoreError::Contended { row: "a new job".to_owned() }),
        }
    }

    /// Notes that a batch's line will never run, with its end: where there is no job yet, one that has ended. One that runs
    /// or has ended stays as it is. The end must be final.
    pub async fn end_line(
        &self,
        new: &NewJob,
        status: Status,
        error: Option<&str>,
        now_ms: u64,
    ) -> Result<Job, StoreError> {
        let id = new.id.clone().unwrap_or_else(|| new_id(new.created_ms));
        let mut found = self.rows.get(&id).await?;
        for _ in 0..MOST_TRIES {
            let written = match &found {
                Some(job) if job.status != Status::Queued => return Ok(job.clone()),
                Some(job) => self.replace(job, job.ended(status, error.map(str::to_owned), now_ms)).await?,
                None => {
                    let job = Job::accepted(id.clone(), new).ended(status, error.map(str::to_owned), now_ms);
                    self.rows.create(job, kept_until_s(new.expires_ms.max(now_ms))).await?
                }
            };
            match written {
                Replaced::Done(job) => return Ok(job),
                Replaced::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id })
    }

    /// The job with this id, whoever owns it.
    pub async fn get(&self, id: &str) -> Result<Option<Job>, StoreError> {
        let Some(id) = canonical(id) else { return Ok(None) };
        self.rows.get(&id).await
    }

    /// Takes the job for `lease_ms`, if a message about it means that it should run now.
    pub async fn claim(&self, id: &str, lease_ms: u64, now_ms: u64) -> Result<Claim, StoreError> {
        let Some(job) = self.get(id).await? else { return Ok(Claim::Missing) };
        self.claim_seen(job, lease_ms, now_ms).await
    }

    /// The same for a job that was just read.
    pub async fn claim_seen(&self, job: Job, lease_ms: u64, now_ms: u64) -> Result<Claim, StoreError> {
        let (id, mut job) = (job.id.clone(), job);
        let mut body = None;
        for _ in 0..MOST_TRIES {
            let changed = match job.next(now_ms) {
                Next::Run => {
                    // Before the claim: a body that cannot be had now costs no attempt.
                    if body.is_none() {
                        body = Some(self.bodies.fetch(self.rows.request(&job.id).await?).await?);
                    }
                    job.claimed(lease_ms, now_ms)
                }
                Next::Wait { until_ms } => return Ok(Claim::NotYet { until_ms }),
                Next::Drop(status) => return Ok(Claim::Ended(status)),
                Next::Expire | Next::GiveUp => over(&job, now_ms),
            };
            match self.replace(&job, changed).await? {
                Replaced::Done(job) => {
                    return Ok(match body {
                        Some(body) if job.status == Status::Running => Claim::Run { job: Box::new(job), body },
                        _ => Claim::Ended(job.status),
                    });
                }
                Replaced::Conflict(Some(current)) => job = current,
                Replaced::Conflict(None) => return Ok(Claim::Missing),
            }
        }
        Err(StoreError::Contended { row: id })
    }

    /// Puts off a job that was not claimed, unless it has changed meanwhile: then it is in other hands.
    pub async fn postpone(&self, job: &Job, ready_ms: u64) -> Result<(), StoreError> {
        self.replace(job, job.postponed(ready_ms)).await.map(drop)
    }

    /// Puts a claimed job back into the queue because there was no room; `false` if another drain holds it by now.
    pub async fn defer(&self, claimed: &Job, ready_ms: u64) -> Result<bool, StoreError> {
        self.change_held(claimed, |job| job.deferred(ready_ms)).await
    }

    /// Puts a claimed job back into the queue because the attempt failed; `false` if another drain holds it by now.
    pub async fn retry(&self, claimed: &Job, ready_ms: u64) -> Result<bool, StoreError> {
        self.change_held(claimed, |job| job.retried(ready_ms)).await
    }

    /// Ends a claimed job with its answer; `false` if another drain holds it by now, or has ended it: then that one's
    /// answer is the one that counts. Repeating a call that got no answer is harmless.
    pub async fn finish(&self, claimed: &Job, outcome: &Outcome, now_ms: u64) -> Result<bool, StoreError> {
        let (status, error, result) = match outcome {
            Outcome::Succeeded(result) => (Status::Succeeded, None, result),
            Outcome::Failed { error, result } => (Status::Failed, Some(error.clone()), result),
        };
        let key = format!("{}/{}/{}", claimed.tenant, claimed.id, claimed.fence);
        let body = self.bodies.place("the answer", key, &result.body).await?;
        self.rows.put_result(&claimed.id, claimed.fence, result, body, kept_until_s(now_ms)).await?;
        self.change_held(claimed, |job| Job {
            answered_at_fence: Some(job.fence),
            announce: job.end_event(status, Some(result)),
            ..job.ended(status, error.clone(), now_ms)
        })
        .await
    }

    /// Takes a job of this tenant back, if it has not been claimed yet.
    pub async fn cancel(&self, id: &str, tenant: &str, now_ms: u64) -> Result<Cancel, StoreError> {
        self.cancel_if(id, tenant, now_ms, |status| status == Status::Queued).await
    }

    /// Takes a job of this tenant back, even if it runs: the call to the model goes on and is charged, and whoever made it
    /// finds that it no longer holds the job, so that its answer is dropped.
    pub async fn cancel_even_running(&self, id: &str, tenant: &str, now_ms: u64) -> Result<Cancel, StoreError> {
        self.cancel_if(id, tenant, now_ms, |status| !status.is_final()).await
    }

    async fn cancel_if(
        &self,
        id: &str,
        tenant: &str,
        now_ms: u64,
        is_in_time: impl Fn(Status) -> bool,
    ) -> Result<Cancel, StoreError> {
        let mut found = self.get(id).await?;
        for _ in 0..MOST_TRIES {
            let Some(job) = found.filter(|job| job.tenant == tenant) else { return Ok(Cancel::Missing) };
            match job.status {
                status if is_in_time(status) => {}
                Status::Cancelled => return Ok(Cancel::Cancelled),
                status => return Ok(Cancel::TooLate(status)),
            }
            match self.replace(&job, job.ended(Status::Cancelled, None, now_ms)).await? {
                Replaced::Done(_) => return Ok(Cancel::Cancelled),
                Replaced::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id.to_owned() })
    }

    /// The answer of a job that succeeded or failed; `None` if it has none, or is no longer kept.
    pub async fn result(&self, job: &Job) -> Result<Option<StoredResult>, StoreError> {
        let Some(fence) = job.answered_at_fence else { return Ok(None) };
        let Some((result, body)) = self.rows.result(&job.id, fence).await? else { return Ok(None) };
        Ok(Some(StoredResult { body: self.bodies.fetch(body).await?, ..result }))
    }

    /// Notes that the end of the job has been told. If another has changed the job meanwhile, it is told again.
    pub async fn announced(&self, job: &Job) -> Result<(), StoreError> {
        self.replace(job, Job { announce: None, ..job.clone() }).await.map(drop)
    }

    /// Changes the job as long as it is held under the fence of `claimed`.
    async fn change_held(&self, claimed: &Job, change: impl Fn(&Job) -> Job) -> Result<bool, StoreError> {
        let mut job = claimed.clone();
        for _ in 0..MOST_TRIES {
            let changed = change(&job);
            match self.replace(&job, changed.clone()).await? {
                Replaced::Done(_) => return Ok(true),
                Replaced::Conflict(Some(current)) if current.is_held_under(claimed.fence) => job = current,
                // A call that was repeated finds what the first one did.
                Replaced::Conflict(current) => {
                    return Ok(current.is_some_and(|current| is_same_change(&current, &changed)));
                }
            }
        }
        Err(StoreError::Contended { row: claimed.id.clone() })
    }

    /// Every change goes through here, and with it every end.
    async fn replace(&self, job: &Job, changed: Job) -> Result<Replaced, StoreError> {
        let ends = changed.status.is_final() && !job.status.is_final();
        let changed = if ends { self.to_be_told(changed).await } else { changed };
        let last_needed_ms = changed.finished_ms.unwrap_or(changed.expires_ms.max(changed.ready_ms));
        self.rows.replace(&job.etag, changed, kept_until_s(last_needed_ms)).await
    }
}

/// The job at the end that comes of itself: expired, or given up.
fn over(job: &Job, now_ms: u64) -> Job {
    match job.next(now_ms) {
        Next::GiveUp => job.ended(Status::Failed, Some("every attempt to run it was interrupted".to_owned()), now_ms),
        _ => job.ended(Status::Expired, Some("no room was found in time".to_owned()), now_ms),
    }
}

impl Jobs {
    /// An ended job, with what its end is to be told as if its tenant has anybody to tell. When that cannot be found out it is
    /// assumed: the end of a job is worth more than a row too many for the sweep.
    async fn to_be_told(&self, ended: Job) -> Job {
        let kind = ended.announce.or_else(|| ended.end_event(ended.status, None));
        let (Some(kind), Some(registry)) = (kind, &self.told) else { return ended.to_be_told(None) };
        let endpoints = registry.endpoints(&ended.tenant).await;
        let is_heard = endpoints.map_or(true, |endpoints| endpoints.iter().any(|endpoint| endpoint.wants(kind)));
        ended.to_be_told(is_heard.then_some(kind))
    }
}

fn is_same_change(current: &Job, wanted: &Job) -> bool {
    (current.fence, current.status, current.ready_ms, current.answered_at_fence)
        == (wanted.fence, wanted.status, wanted.ready_ms, wanted.answered_at_fence)
}

/// Names in the API are not trusted to be ids: `#` would reach rows that are no jobs.
fn canonical(id: &str) -> Option<String> {
    Uuid::try_parse(id).ok().map(|id| id.hyphenated().to_string())
}

fn new_id(created_ms: u64) -> String {
    let nanos = u32::try_from(created_ms % 1000).unwrap_or_default() * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, created_ms / 1000, nanos)).hyphenated().to_string()
}

/// When DynamoDB may delete a row that is last needed at `last_needed_ms`, in seconds since 1970.
fn kept_until_s(last_needed_ms: u64) -> u64 {
    last_needed_ms.saturating_add(KEPT_MS) / 1000
}
