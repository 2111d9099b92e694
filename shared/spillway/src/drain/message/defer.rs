//! Puts a job back into the queue after an attempt that nothing was billed for, or ends it if its
//! pools have failed for too long. Each deferral is an event.

use super::MessageHandler;
use crate::{
    drain::attempt::{self, Deferral},
    job::{FailureBounds, FailureReason, Job, JobOutcome, JobReader, JobWait, Obstruction},
    overflow::{self, message_delay},
    problem::{Kind, Problem},
    queue::Handled,
    telemetry::RequestEvent,
    units::{Millis, UnixMs},
};

/// The limit of jobs of a tenant that run concurrently, as the configuration names it.
const CONCURRENCY_LIMIT: &str = "drain_in_flight";

impl MessageHandler<'_> {
    /// Puts the job back into the queue, or fails it. A job that limits of its tenant refused is
    /// parked. If this process dies before the tenant has a turn, the message of this attempt comes
    /// again.
    pub(super) async fn defer(&self, job: &Job, deferral: Deferral) -> anyhow::Result<Handled> {
        let now = self.app.clock.now();
        let Deferral { problem, retry_after, event } = deferral;
        let wait = JobWait::after(job.wait.as_deref(), Obstruction::from_problem(&problem), now);
        if job.reader != JobReader::Waiting && overflow::is_refused_by_limits(&problem) {
            let ready_at = (now + retry_after).min(job.expires_at.max(now));
            if self.app.jobs.park(job, &wait, ready_at, now).await? {
                self.record(job, event, &problem, ready_at - now);
                overflow::ensure_turn(self.app, self.queue, &job.tenant, ready_at).await?;
                overflow::send_expiry(self.queue, job, now).await;
            }
            return Ok(Handled::Done);
        }
        let bounds = self.failure_bounds(job, &wait).await;
        let Some(ready_at) = job.next_try(&wait, &bounds, retry_after, now) else {
            return self.give_up(job, wait, problem, event).await;
        };
        if self.app.jobs.defer(job, &wait, ready_at).await? {
            self.record(job, event, &problem, ready_at - now);
            let delay = message_delay(&problem, ready_at - now);
            self.queue.send(&job.id, &job.tenant, delay).await?;
        }
        Ok(Handled::Done)
    }

    /// Postpones a job that has not been claimed, because its tenant runs as many jobs as it may.
    pub(super) async fn postpone(&self, job: &Job, retry_at: UnixMs) -> anyhow::Result<Handled> {
        let now = self.app.clock.now();
        let wait = JobWait::after(job.wait.as_deref(), Obstruction::for_limit(CONCURRENCY_LIMIT), now);
        self.app.jobs.postpone(job, &wait, retry_at).await?;
        let problem = Problem::new(Kind::Throttled, "The tenant runs as many jobs as it may.");
        let event = RequestEvent { limit: Some(CONCURRENCY_LIMIT.to_owned()), ..attempt::event(job) };
        self.record(job, event, &problem, retry_at - now);
        self.queue.send(&job.id, &job.tenant, retry_at - now).await?;
        Ok(Handled::Done)
    }

    /// Fails a job whose pools have failed for too long.
    async fn give_up(
        &self,
        job: &Job,
        wait: JobWait,
        problem: Problem,
        mut event: RequestEvent,
    ) -> anyhow::Result<Handled> {
        let message = wait.failure_text(self.app.clock.now());
        let failure = Problem { skipped: problem.skipped, ..Problem::new(Kind::Unavailable, message) };
        event.fail(&failure);
        event.job_id = Some(job.id.clone());
        self.app.telemetry.record(event);
        let outcome = JobOutcome::Failed { result: attempt::result(job, &failure), error: failure.message };
        let job = Job { wait: Some(Box::new(wait)), ..job.clone() };
        self.fail(&job, outcome, FailureReason::PoolsFailed).await
    }

    /// Returns the bounds of the failures of a job. While the registry is unavailable, no failure
    /// ends a job.
    async fn failure_bounds(&self, job: &Job, wait: &JobWait) -> FailureBounds {
        if !wait.is_failing() {
            return FailureBounds::NONE;
        }
        match self.app.registry.tenant(&job.tenant).await {
            Ok(Some(tenant)) => FailureBounds::for_tenant(&tenant),
            Ok(None) | Err(_) => FailureBounds::NONE,
        }
    }

    fn record(&self, job: &Job, mut event: RequestEvent, problem: &Problem, retry_after: Millis) {
        let limit = event.limit.take();
        event.defer(problem);
        event.limit = event.limit.or(limit);
        event.job_id = Some(job.id.clone());
        event.retry_after_ms = Some(retry_after);
        event.deferrals = Some(job.deferrals.saturating_add(1));
        self.app.telemetry.record(event);
    }
}
