//! Repairs: jobs whose message or whose report was lost, and failed jobs that are queued again.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Jobs, expired_or_given_up};
use crate::{
    job::{Job, JobStatus, NextStep, RESEND_AFTER},
    store::{
        StoreError, WriteOutcome,
        rows::{MAX_CHANGE_TRIES, open_partitions},
    },
    units::{Millis, UnixMs},
};

/// Number of partitions of the index of open jobs that are read concurrently.
const CONCURRENT_PARTITIONS: usize = 8;

/// What the sweep has to do about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SweepOutcome {
    /// Send the job's message again.
    Resend(Job),
    /// Report the end of the job, which has just ended because it expired or was given up.
    Ended(Job),
    /// Report the end of the job, which ended before.
    Report(Job),
    /// Nothing: the job is not overdue any more, or another sweep handles it.
    Nothing,
}

/// Outcome of queueing a failed job again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveOutcome {
    /// The job is queued, and its message can be sent.
    Queued(Box<Job>),
    /// The job has another status.
    NotFailed(JobStatus),
    /// The job does not exist any more.
    Missing,
}

/// A job whose message may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenJob {
    /// Id of the job.
    pub id: String,
    /// Time by which its message should have been handled.
    pub due_at: UnixMs,
}

impl Jobs {
    /// Returns up to `limit` jobs whose message is so late that it may be lost, the oldest of each
    /// partition of the index first.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn overdue(&self, limit: usize, now: UnixMs) -> Result<Vec<OpenJob>, StoreError> {
        let due_before = now - RESEND_AFTER + Millis::from_ms(1);
        let partitions: Vec<String> = open_partitions().collect();
        let share = limit.div_ceil(partitions.len());
        let read = |partition: String| async move { self.rows.open_due_before(&partition, due_before, share).await };
        let mut reads = stream::iter(partitions).map(read).buffered(CONCURRENT_PARTITIONS);
        let mut open = Vec::new();
        while let Some(partition) = reads.try_next().await? {
            open.extend(partition);
        }
        open.truncate(limit);
        Ok(open)
    }

    /// Ends an overdue job that has expired or has no attempts left. For any other overdue job,
    /// notes that its message is about to be sent again, so that only one sweep sends it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn sweep(&self, id: &str, now: UnixMs) -> Result<SweepOutcome, StoreError> {
        let Some(job) = self.get(id).await?.filter(|job| job.is_overdue(now)) else {
            return Ok(SweepOutcome::Nothing);
        };
        let had_ended = job.status.is_final();
        let changed = match job.next_step(now) {
            NextStep::Expire | NextStep::GiveUp => expired_or_given_up(&job, now),
            _ => job.resent(now),
        };
        Ok(match self.replace(&job, changed).await? {
            WriteOutcome::Written(job) if had_ended => SweepOutcome::Report(job),
            WriteOutcome::Written(job) if job.status.is_final() => SweepOutcome::Ended(job),
            WriteOutcome::Written(job) => SweepOutcome::Resend(job),
            WriteOutcome::Conflict(_) => SweepOutcome::Nothing,
        })
    }

    /// Puts a failed job back into the queue. The caller then sends its message.
    ///
    /// # Errors
    /// Returns an error if the job's request is no longer kept, or if the store is unavailable.
    pub async fn redrive(&self, id: &str, now: UnixMs) -> Result<RedriveOutcome, StoreError> {
        let mut found = self.get(id).await?;
        for _ in 0..MAX_CHANGE_TRIES {
            let Some(job) = found else { return Ok(RedriveOutcome::Missing) };
            if job.status != JobStatus::Failed {
                return Ok(RedriveOutcome::NotFailed(job.status));
            }
            self.rows.request(&job.id).await?;
            match self.replace(&job, job.redriven(now)).await? {
                WriteOutcome::Written(job) => return Ok(RedriveOutcome::Queued(Box::new(job))),
                WriteOutcome::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id.to_owned() })
    }
}
