//! Jobs that nobody carries on: those whose message was lost, whose end was not told, or that failed and are brought back.

use super::{
    Jobs, MOST_TRIES, over,
    rows::{self, Replaced},
};
use crate::{
    job::{Job, Next, RESEND_AFTER_MS, Status},
    store::StoreError,
};

/// What the sweep does about a job without a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sweep {
    /// Its message is to be sent again.
    Resend(Job),
    /// It has ended just now: its time or its attempts were over.
    Ended(Job),
    /// It had ended, but that is still to be told.
    Tell(Job),
    /// Nothing: it is not overdue after all, or another sweep has it.
    Nothing,
}

/// What became of bringing a failed job back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redrive {
    /// It is queued again, and its message can be sent.
    Queued(Box<Job>),
    /// It has not failed.
    Not(Status),
    /// There is no such job any more.
    Missing,
}

/// A job whose message may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenJob {
    /// The job's id.
    pub id: String,
    /// When its message should have been seen, in milliseconds since 1970.
    pub due_ms: u64,
}

impl Jobs {
    /// Jobs whose message should have been seen so long ago that it may be lost, at most `most`, the oldest of each
    /// part of the index first.
    pub async fn overdue(&self, most: usize, now_ms: u64) -> Result<Vec<OpenJob>, StoreError> {
        let due_ms = now_ms.saturating_sub(RESEND_AFTER_MS).saturating_add(1);
        let mut open = Vec::new();
        for part in rows::OPEN_PARTS {
            let share = most.div_ceil(rows::OPEN_PARTS.len()).min(most - open.len());
            if share > 0 {
                open.extend(self.rows.open_due_before(part, due_ms, share).await?);
            }
        }
        Ok(open)
    }

    /// Ends an overdue job whose time or attempts are over; of any other one notes that its message is sent again, before it
    /// is: whoever gets the job back sends it.
    pub async fn sweep(&self, id: &str, now_ms: u64) -> Result<Sweep, StoreError> {
        let Some(job) = self.get(id).await?.filter(|job| job.is_overdue(now_ms)) else { return Ok(Sweep::Nothing) };
        let had_ended = job.status.is_final();
        let changed = match job.next(now_ms) {
            Next::Expire | Next::GiveUp => over(&job, now_ms),
            _ => job.resent(now_ms),
        };
        Ok(match self.replace(&job, changed).await? {
            Replaced::Done(job) if had_ended => Sweep::Tell(job),
            Replaced::Done(job) if job.status.is_final() => Sweep::Ended(job),
            Replaced::Done(job) => Sweep::Resend(job),
            Replaced::Conflict(_) => Sweep::Nothing,
        })
    }

    /// Puts a job that failed back into the queue, before its message is sent.
    ///
    /// # Errors
    /// Its request is no longer kept, or the store cannot be reached.
    pub async fn redrive(&self, id: &str, now_ms: u64) -> Result<Redrive, StoreError> {
        let mut found = self.get(id).await?;
        for _ in 0..MOST_TRIES {
            let Some(job) = found else { return Ok(Redrive::Missing) };
            if job.status != Status::Failed {
                return Ok(Redrive::Not(job.status));
            }
            self.rows.request(&job.id).await?;
            match self.replace(&job, job.redriven(now_ms)).await? {
                Replaced::Done(job) => return Ok(Redrive::Queued(Box::new(job))),
                Replaced::Conflict(current) => found = current,
            }
        }
        Err(StoreError::Contended { row: id.to_owned() })
    }
}
