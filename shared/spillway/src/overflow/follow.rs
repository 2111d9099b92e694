//! Follows a job: its row, the pieces of its stream while they come, and its answer. Any process can, since all of it is in
//! the store.

use bytes::{Bytes, BytesMut};
use tracing::warn;

use crate::{
    app::App,
    job::{Differs, Job, Position, Status, StoredResult},
    problem::{Kind, Problem},
    store::StoreError,
};

/// How long after one look the next one follows, in milliseconds: at first, and at most while nothing changes.
const PAUSES_MS: (u64, u64) = (250, 1_000);

/// How long after one look at a stream that comes the next one follows, in milliseconds.
const LIVE_MS: u64 = 500;

/// A job that is not ready is looked at this often all the same, in milliseconds: it can be cancelled.
const LONGEST_PAUSE_MS: u64 = 5_000;

/// How many looks in a row may fail.
const MOST_FAILURES: u32 = 10;

/// What there is to see of a job.
#[derive(Debug)]
pub enum Seen {
    /// Nothing new.
    Nothing,
    /// The next bytes of its stream.
    Bytes(Bytes),
    /// It was answered; of a stream, `rest` is what has not been seen yet.
    Answered { answer: StoredResult, rest: Bytes },
    /// It ended without an answer; if it failed, with what the call would have been answered.
    Ended { job: Box<Job>, result: Option<StoredResult> },
}

/// A reader of one job.
pub struct Follower {
    app: App,
    /// As it was seen last.
    job: Job,
    position: Position,
    /// The fence whose pieces are read, and the number of the next one.
    reading: Option<(u64, u64)>,
    pause_ms: u64,
    failures: u32,
}

impl Follower {
    pub fn new(app: &App, job: Job) -> Self {
        let (app, position) = (app.clone(), Position::default());
        Self { app, job, position, reading: None, pause_ms: PAUSES_MS.0, failures: 0 }
    }

    /// The job as it was seen last.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Takes `bytes` for passed on: the start of every attempt's stream.
    pub fn pass(&mut self, bytes: &Bytes) {
        // Nothing was passed on before, so nothing can differ.
        let _ = self.position.read(bytes.clone());
    }

    /// Looks at the job once.
    ///
    /// # Errors
    /// The job is gone; another attempt tells a stream in other words than those that were seen; or the store could not be
    /// reached for long.
    pub async fn look(&mut self) -> Result<Seen, Problem> {
        match self.try_look().await {
            Ok(seen) => {
                self.failures = 0;
                seen
            }
            Err(error) if self.failures < MOST_FAILURES => {
                warn!(job_id = self.job.id, %error, "a job could not be looked at");
                self.failures += 1;
                Ok(Seen::Nothing)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn try_look(&mut self) -> Result<Result<Seen, Problem>, StoreError> {
        let Some(job) = self.app.jobs.get(&self.job.id).await?.filter(|job| !job.is_deleted) else {
            return Ok(Err(gone()));
        };
        if (job.status, job.ready_ms) != (self.job.status, self.job.ready_ms) {
            self.pause_ms = PAUSES_MS.0;
        }
        self.job = job;
        match self.job.status {
            Status::Queued => Ok(Ok(Seen::Nothing)),
            Status::Running if self.job.is_followed() => self.pieces().await,
            Status::Running => Ok(Ok(Seen::Nothing)),
            Status::Succeeded => self.answer().await,
            Status::Failed | Status::Cancelled | Status::Expired => {
                let result = self.app.jobs.result(&self.job).await?;
                Ok(Ok(Seen::Ended { job: Box::new(self.job.clone()), result }))
            }
        }
    }

    /// The pieces that have come since the last look.
    async fn pieces(&mut self) -> Result<Result<Seen, Problem>, StoreError> {
        let fence = self.job.fence;
        let mut part = match self.reading {
            Some((reading, part)) if reading == fence => part,
            _ => {
                self.position.restart();
                0
            }
        };
        let mut new = BytesMut::new();
        while let Some(bytes) = self.app.jobs.part(&self.job.id, fence, part).await? {
            match self.position.read(bytes) {
                Ok(bytes) => new.extend_from_slice(&bytes),
                Err(Differs) => return Ok(Err(begun_again())),
            }
            part += 1;
            self.reading = Some((fence, part));
        }
        self.reading = Some((fence, part));
        Ok(Ok(if new.is_empty() { Seen::Nothing } else { Seen::Bytes(new.freeze()) }))
    }

    async fn answer(&mut self) -> Result<Result<Seen, Problem>, StoreError> {
        let Some(answer) = self.app.jobs.result(&self.job).await? else { return Ok(Err(gone())) };
        self.position.restart();
        let rest = self.position.read(answer.body.clone()).and_then(|rest| self.position.end().map(|()| rest));
        Ok(rest.map(|rest| Seen::Answered { answer, rest }).map_err(|Differs| begun_again()))
    }

    /// Waits until it is worth another look, but not beyond `until_ms`.
    pub async fn pause(&mut self, until_ms: u64) {
        let now_ms = self.app.clock.now_ms();
        let pause_ms = match self.job.status {
            // Nobody can claim it sooner.
            Status::Queued if self.job.ready_ms > now_ms + self.pause_ms => self.job.ready_ms - now_ms,
            Status::Running if self.job.is_followed() => LIVE_MS,
            _ => {
                let pause_ms = self.pause_ms;
                self.pause_ms = (pause_ms * 3 / 2).min(PAUSES_MS.1);
                pause_ms
            }
        };
        let next_ms = now_ms + pause_ms.min(LONGEST_PAUSE_MS);
        self.app.clock.sleep_until(crate::units::UnixMs::from_ms(next_ms.min(until_ms).max(now_ms + 1))).await;
    }
}

fn gone() -> Problem {
    Problem::new(Kind::NotFound, "The answer is no longer kept.")
}

/// The parts of two answers do not make one.
fn begun_again() -> Problem {
    let told = "The answer broke off and was begun again in other words, so its stream cannot go on. ";
    Problem::new(Kind::Unavailable, format!("{told}Read it from the start."))
}
