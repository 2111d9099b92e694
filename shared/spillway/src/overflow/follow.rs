//! Follows a job: its row, its partial output while it runs, and its answer. Any process can follow
//! a job, because everything is in the store.

use bytes::{Bytes, BytesMut};
use tracing::warn;

use crate::{
    app::App,
    job::{Job, JobStatus, OutputDiffers, Position, StoredResult},
    problem::{Kind, Problem},
    store::StoreError,
    units::{Millis, UnixMs},
};

/// Pause between two looks at a job without partial output, at first.
const FIRST_PAUSE: Millis = Millis::from_ms(250);

/// Maximum pause between two looks at a job that may change at any time. The pause grows up to this
/// while nothing changes.
const MAX_PAUSE: Millis = Millis::from_s(1);

/// Pause between two looks at partial output.
const STREAM_PAUSE: Millis = Millis::from_ms(500);

/// Maximum pause before a deferred job is looked at. It can be cancelled at any time.
const MAX_DEFERRED_PAUSE: Millis = Millis::from_s(5);

/// Maximum of consecutive looks that fail because the store is unavailable.
const MAX_FAILURES: u32 = 10;

/// JobProgress of a job since the last look.
#[derive(Debug)]
pub enum JobProgress {
    /// Nothing new.
    Nothing,
    /// The next bytes of the stream.
    Bytes(Bytes),
    /// The job was answered. Of a stream, `rest` is new.
    Answered { answer: StoredResult, rest: Bytes },
    /// The job ended without an answer. If it failed, `result` is what a synchronous call would
    /// have returned.
    Ended { job: Box<Job>, result: Option<StoredResult> },
}

/// Why a look at a job failed.
enum LookError {
    /// The store is unavailable, perhaps only for a moment.
    Store(StoreError),
    /// The answer cannot be read any more.
    Final(Problem),
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<OutputDiffers> for LookError {
    /// Parts of two answers do not make an answer.
    fn from(_: OutputDiffers) -> Self {
        let message = "The answer was interrupted, and the next attempt answers differently, so the stream cannot \
                       continue. Read it from the start.";
        Self::Final(Problem::new(Kind::Unavailable, message))
    }
}

/// A reader of one job.
pub struct Follower {
    app: App,
    /// The job at the last look.
    job: Job,
    position: Position,
    /// Fence whose chunks are read, and number of the next chunk.
    next_chunk: Option<(u64, u64)>,
    pause: Millis,
    failures: u32,
}

impl Follower {
    pub fn new(app: &App, job: Job) -> Self {
        let (app, position) = (app.clone(), Position::default());
        Self { app, job, position, next_chunk: None, pause: FIRST_PAUSE, failures: 0 }
    }

    /// The job at the last look.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Notes that `bytes`, the start of every attempt's stream, were passed on.
    pub fn pass(&mut self, bytes: &Bytes) {
        // Nothing was passed on before, so nothing can differ.
        let _ = self.position.read(bytes.clone());
    }

    /// Looks at the job.
    ///
    /// # Errors
    /// Returns an error if the answer is gone, if the output of the next attempt differs, or if the
    /// store has been unavailable for several looks.
    pub async fn look(&mut self) -> Result<JobProgress, Problem> {
        let progress = match self.try_look().await {
            Ok(progress) => Ok(progress),
            Err(LookError::Final(problem)) => Err(problem),
            Err(LookError::Store(error)) if self.failures < MAX_FAILURES => {
                warn!(job_id = self.job.id, %error, "failed to look at a job");
                self.failures += 1;
                return Ok(JobProgress::Nothing);
            }
            Err(LookError::Store(error)) => return Err(error.into()),
        };
        self.failures = 0;
        progress
    }

    async fn try_look(&mut self) -> Result<JobProgress, LookError> {
        let job = self.app.jobs.get(&self.job.id).await?.filter(|job| !job.is_deleted);
        let job = job.ok_or_else(gone)?;
        if (job.status, job.ready_at) != (self.job.status, self.job.ready_at) {
            self.pause = FIRST_PAUSE;
        }
        self.job = job;
        match self.job.status {
            JobStatus::Queued => Ok(JobProgress::Nothing),
            JobStatus::Running if self.job.is_followed() => self.chunks().await,
            JobStatus::Running => Ok(JobProgress::Nothing),
            JobStatus::Succeeded => self.answer().await,
            JobStatus::Failed | JobStatus::Cancelled | JobStatus::Expired => {
                let result = self.app.jobs.result(&self.job).await?;
                Ok(JobProgress::Ended { job: Box::new(self.job.clone()), result })
            }
        }
    }

    /// Reads the chunks that were stored since the last look.
    async fn chunks(&mut self) -> Result<JobProgress, LookError> {
        let fence = self.job.fence;
        let mut chunk = match self.next_chunk {
            Some((read_fence, chunk)) if read_fence == fence => chunk,
            _ => {
                self.position.restart();
                0
            }
        };
        let mut new = BytesMut::new();
        while let Some(bytes) = self.app.jobs.chunk(&self.job.id, fence, chunk).await? {
            new.extend_from_slice(&self.position.read(bytes)?);
            chunk += 1;
            self.next_chunk = Some((fence, chunk));
        }
        self.next_chunk = Some((fence, chunk));
        Ok(if new.is_empty() { JobProgress::Nothing } else { JobProgress::Bytes(new.freeze()) })
    }

    async fn answer(&mut self) -> Result<JobProgress, LookError> {
        let answer = self.app.jobs.result(&self.job).await?.ok_or_else(gone)?;
        self.position.restart();
        let rest = self.position.read(answer.body.clone())?;
        self.position.end()?;
        Ok(JobProgress::Answered { answer, rest })
    }

    /// Waits until the job may have changed, but not beyond `until`.
    pub async fn pause(&mut self, until: UnixMs) {
        let now = self.app.clock.now();
        let pause = match self.job.status {
            // No drain is expected to claim it sooner.
            JobStatus::Queued if self.job.ready_at > now + self.pause => self.job.ready_at - now,
            JobStatus::Running if self.job.is_followed() => STREAM_PAUSE,
            _ => {
                let pause = self.pause;
                self.pause = (pause * 3 / 2).min(MAX_PAUSE);
                pause
            }
        };
        let next_look = (now + pause.min(MAX_DEFERRED_PAUSE)).min(until);
        self.app.clock.sleep_until(next_look.max(now + Millis::from_ms(1))).await;
    }
}

fn gone() -> LookError {
    LookError::Final(Problem::new(Kind::NotFound, "The answer is no longer kept."))
}
