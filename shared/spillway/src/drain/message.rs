//! Handles one message: claims its job, runs it, and updates job and message.

mod defer;

use tracing::{debug, error, warn};

use super::{
    attempt::{self, AttemptOutcome},
    batch,
    concurrency::{self, Slot},
    dead_letters,
    lease::AttemptTimes,
    priority,
    time_budget::TimeBudget,
    turn,
};
use crate::{
    app::App,
    batch::is_batch_id,
    job::{FailureReason, Job, JobOutcome, JobReader, JobStatus, MAX_ATTEMPTS, NextStep, Turn},
    overflow::{self, MAX_EARLY},
    queue::{Handled, Message, Queue},
    store::{StoreError, jobs::ClaimOutcome},
    units::{Millis, UnixMs},
};

/// Delay until the next attempt after a failed one, multiplied by the number of attempts so far.
const RETRY_DELAY: Millis = Millis::from_s(5);

/// Maximum number of times that a turn is tried again. It is smaller than the number of receives
/// after which SQS moves a message to the dead-letter queue.
const MAX_TURN_RETRIES: u32 = 2;

/// Handles one message. It may arrive twice, late, or in two drains concurrently. Only one claim of
/// the job succeeds.
pub async fn handle(app: &App, message: &Message, budget: TimeBudget) -> Handled {
    let Some(queue) = &app.queue else {
        error!("SPILLWAY_QUEUE_URL is not set, so a job cannot be deferred");
        return Handled::Failed;
    };
    match (MessageHandler { app, queue, message, budget }).handle().await {
        Ok(handled) => handled,
        Err(error) => {
            warn!(job_id = loggable(&message.body), error = format!("{error:#}"), "failed to handle a message");
            Handled::Failed
        }
    }
}

/// Handles one message.
struct MessageHandler<'a> {
    app: &'a App,
    queue: &'a Queue,
    message: &'a Message,
    budget: TimeBudget,
}

impl MessageHandler<'_> {
    async fn handle(&self) -> anyhow::Result<Handled> {
        let id = &self.message.body;
        if is_batch_id(id) {
            let _running = self.app.concurrency.start_work();
            batch::handle(self.app, self.queue, id, self.budget.deadline()).await?;
            return Ok(Handled::Done);
        }
        if let Some(turn) = Turn::parse(id) {
            let _running = self.app.concurrency.start_work();
            return Ok(self.take_turn(&turn).await);
        }
        let Some(job) = self.read_job().await? else {
            error!(job_id = loggable(id), "no job for a message");
            let is_id = uuid::Uuid::try_parse(id).is_ok();
            let reason = if is_id { FailureReason::UnknownJob } else { FailureReason::UnreadableMessage };
            return Ok(self.dead_letter(None, reason).await);
        };
        let max_call = attempt::max_call(self.app).await?;
        let now = self.app.clock.now();
        let times = self.budget.attempt(max_call, now);
        match job.next_step(now) {
            // The job failed before. If this message was received before as well, the drain may
            // have died before it sent the dead letter.
            NextStep::Drop(JobStatus::Failed) if self.message.receive_count > 1 => {
                Ok(self.dead_letter(Some(&job), FailureReason::Failed).await)
            }
            NextStep::Drop(_) => Ok(Handled::Done),
            NextStep::Run if !self.budget.can_start(max_call, now) => {
                // A new message, because a failure would count as one of the receives.
                self.queue.send(&job.id, &job.tenant, Millis::ZERO).await?;
                Ok(Handled::Done)
            }
            NextStep::Run => self.run(&job, times).await,
            NextStep::Wait { .. } | NextStep::Expire | NextStep::GiveUp => self.claim(&job, times).await,
        }
    }

    /// Takes a turn. A turn that fails is tried again soon. After that the sweep sends it again.
    async fn take_turn(&self, turn: &Turn) -> Handled {
        let Err(error) = turn::handle(self.app, self.queue, turn).await else { return Handled::Done };
        warn!(tenant = turn.tenant, error = format!("{error:#}"), "failed to take a turn");
        if self.message.receive_count > MAX_TURN_RETRIES {
            return Handled::Done;
        }
        self.queue.hide(self.message, RETRY_DELAY).await;
        Handled::Failed
    }

    /// Reads the job. If it is almost ready, waits and reads it again.
    async fn read_job(&self) -> anyhow::Result<Option<Job>> {
        let id = &self.message.body;
        let job = self.app.jobs.get(id).await?;
        let now = self.app.clock.now();
        match job.as_ref().map(|job| job.next_step(now)) {
            Some(NextStep::Wait { until }) if until <= now + MAX_EARLY => {
                self.app.clock.sleep_until(until).await;
                Ok(self.app.jobs.get(id).await?)
            }
            _ => Ok(job),
        }
    }

    /// Runs the job if its tenant may run one more.
    async fn run(&self, job: &Job, times: AttemptTimes) -> anyhow::Result<Handled> {
        let slot = concurrency::take(self.app, job, times.lease_ends).await?;
        if let Slot::Full { retry_at } = slot {
            return self.postpone(job, retry_at).await;
        }
        let handled = self.claim(job, times).await;
        slot.give_back(self.app).await;
        handled
    }

    /// Claims the job, or a more urgent one, and runs it.
    async fn claim(&self, job: &Job, times: AttemptTimes) -> anyhow::Result<Handled> {
        let now = self.app.clock.now();
        let lease = times.lease_ends - now;
        match priority::claim_most_urgent(self.app, self.queue, job, lease, now).await? {
            ClaimOutcome::Run { job, body } => {
                if let Err(error) = self.queue.hide_at_least(&self.message.receipt_handle, lease).await {
                    warn!(%error, "a message may become visible before its job is done");
                }
                let outcome = attempt::attempt(self.app, &job, &body, times).await;
                self.conclude(&job, outcome).await
            }
            ClaimOutcome::NotYet { until } => {
                self.queue.send(&job.id, &job.tenant, until - now).await?;
                Ok(Handled::Done)
            }
            ClaimOutcome::Ended(status) => {
                overflow::notify_end(self.app, job).await;
                match status {
                    JobStatus::Failed => Ok(self.dead_letter(Some(job), FailureReason::AttemptsExhausted).await),
                    _ => Ok(Handled::Done),
                }
            }
            ClaimOutcome::Missing => Ok(Handled::Failed),
        }
    }

    /// Ends, defers or retries the job, depending on the outcome of the attempt.
    async fn conclude(&self, job: &Job, outcome: AttemptOutcome) -> anyhow::Result<Handled> {
        let now = self.app.clock.now();
        match outcome {
            AttemptOutcome::Answered(result) => {
                self.finish(job, JobOutcome::Succeeded(result)).await?;
                debug!(job_id = job.id, "a job succeeded");
                Ok(Handled::Done)
            }
            AttemptOutcome::Deferred(deferral) => self.defer(job, *deferral).await,
            AttemptOutcome::Failed { error, reason, result, is_final } if is_final || job.attempts >= MAX_ATTEMPTS => {
                self.fail(job, JobOutcome::Failed { error, result }, reason).await
            }
            AttemptOutcome::Failed { .. } => self.retry(job, now).await,
        }
    }

    /// Ends the job with its `failure`, and sends its dead letter.
    async fn fail(&self, job: &Job, failure: JobOutcome, reason: FailureReason) -> anyhow::Result<Handled> {
        let is_finished = self.finish(job, failure).await?;
        // A waiting caller gets the error, so a dead letter is not needed.
        if !is_finished || job.reader == JobReader::Waiting {
            return Ok(Handled::Done);
        }
        Ok(self.dead_letter(Some(job), reason).await)
    }

    /// Schedules the next attempt.
    async fn retry(&self, job: &Job, now: UnixMs) -> anyhow::Result<Handled> {
        let delay = RETRY_DELAY * u64::from(job.attempts);
        self.app.jobs.retry(job, now + delay).await?;
        if job.id != self.message.body {
            // The message belongs to another job, which this more urgent job overtook.
            self.queue.send(&job.id, &job.tenant, delay).await?;
            return Ok(Handled::Done);
        }
        self.queue.hide(self.message, delay).await;
        Ok(Handled::Failed)
    }

    /// Stores the outcome. Returns `false` if another drain has claimed the job in the meantime. If
    /// the answer is too large to store, the job fails.
    async fn finish(&self, job: &Job, outcome: JobOutcome) -> anyhow::Result<bool> {
        let now = self.app.clock.now();
        let is_stored = match self.app.jobs.finish(job, &outcome, now).await {
            Err(StoreError::TooLarge { bytes, limit, .. }) => {
                let outcome = attempt::too_large_to_store(job, bytes, limit);
                self.app.jobs.finish(job, &outcome, now).await?
            }
            result => result?,
        };
        if is_stored {
            overflow::notify_end(self.app, job).await;
        } else {
            warn!(job_id = job.id, "another drain has claimed the job; dropping this answer");
        }
        Ok(is_stored)
    }

    async fn dead_letter(&self, job: Option<&Job>, reason: FailureReason) -> Handled {
        dead_letters::dead_letter(self.app, self.queue, self.message, job, reason).await
    }
}

/// Returns a job id as it is, and replaces any other text, which could contain anything.
fn loggable(body: &str) -> &str {
    if uuid::Uuid::try_parse(body).is_ok() { body } else { "not a job id" }
}
