//! Carries a batch on: reads its lines, makes each a job, and when the last has ended writes what they came to. Every step can
//! be interrupted and repeated; what is left undone goes on with another message.

mod finish;
mod lines;

use anyhow::Context;
use tracing::{debug, warn};

use crate::{
    app::App,
    batch::{Batch, Counts, Line, LineError, Status, read},
    blobs::Blobs,
    job::{self},
    queue::Queue,
    tenant::EventType,
    webhook::{self, Event},
};

/// How long one message works on a batch before it sends the next, in milliseconds: less than messages are hidden.
const TURN_MS: u64 = 20_000;

/// What is kept of an invocation's time for the step that is under way when it is over, in milliseconds.
const STEP_MS: u64 = 5_000;

/// How many lines are made jobs, or read, at once.
const AT_ONCE: usize = 32;

/// A turn at one batch.
struct Turn<'a> {
    app: &'a App,
    queue: &'a Queue,
    blobs: &'a Blobs,
    until_ms: u64,
    /// The batch's lines, once they were needed.
    lines: Option<Vec<Line>>,
}

/// What a step came to.
enum Step {
    /// The batch stands like this now.
    Changed(Box<Batch>),
    /// There is more to do, in another turn.
    More,
    /// Nothing is to be done until a line ends.
    Nothing,
}

/// Does what a message about the batch `id` means now. It may come twice, late, or at two drains at once.
///
/// # Errors
/// A service cannot be reached.
pub async fn handle(app: &App, queue: &Queue, id: &str, deadline_ms: Option<u64>) -> anyhow::Result<()> {
    let blobs = app.blobs.as_ref().context("SPILLWAY_BUCKET is not set, so no batch can be carried on")?;
    let Some(mut batch) = app.batches.get(id).await? else {
        debug!(batch_id = id, "a message names a batch that is gone");
        return Ok(());
    };
    let until_ms = app.clock.now_ms() + TURN_MS;
    let until_ms = deadline_ms.map_or(until_ms, |deadline_ms| deadline_ms.saturating_sub(STEP_MS).min(until_ms));
    let mut turn = Turn { app, queue, blobs, until_ms, lines: None };
    while batch.is_open() {
        match turn.step(&batch).await? {
            Step::Changed(changed) => batch = *changed,
            Step::Nothing => return Ok(()),
            Step::More => return Ok(queue.send(&batch.id, &batch.tenant, 0).await?),
        }
    }
    Ok(())
}

impl Turn<'_> {
    async fn step(&mut self, batch: &Batch) -> anyhow::Result<Step> {
        match batch.status {
            Status::Validating => self.validate(batch).await,
            Status::InProgress if batch.expanded < batch.total => self.expand(batch).await,
            Status::InProgress => self.look(batch).await,
            // Nobody knows yet of any line.
            Status::Cancelling if batch.total == 0 => {
                let now_ms = self.app.clock.now_ms();
                let cancelled = batch.finalizing(Counts::default(), now_ms).ended(None, None, now_ms);
                self.end(batch, cancelled).await
            }
            Status::Cancelling => self.call_off(batch, job::Status::Cancelled).await,
            Status::Finalizing => self.finish(batch).await,
            Status::Failed => self.tell(batch, EventType::BatchFailed).await,
            Status::Completed => self.tell(batch, EventType::BatchCompleted).await,
            Status::Expired => self.tell(batch, EventType::BatchExpired).await,
            Status::Cancelled => self.tell(batch, EventType::BatchCancelled).await,
        }
    }

    /// Reads the lines, before any of them becomes a job.
    async fn validate(&mut self, batch: &Batch) -> anyhow::Result<Step> {
        let now_ms = self.app.clock.now_ms();
        let input = self.blobs.get(&batch.input_key()).await?;
        let read = input.map_or_else(|| Err(vec![gone()]), |input| read(&input, batch.api.path()));
        match read {
            Ok(lines) => {
                let total = u64::try_from(lines.len()).unwrap_or(u64::MAX);
                self.lines = Some(lines);
                self.change(batch, batch.validated(total, now_ms)).await
            }
            Err(errors) => self.end(batch, batch.refused(errors, now_ms)).await,
        }
    }

    /// Sees whether all lines have ended, and ends those whose time is over.
    async fn look(&mut self, batch: &Batch) -> anyhow::Result<Step> {
        let now_ms = self.app.clock.now_ms();
        let counts = self.app.batches.counts(&batch.id).await?;
        if counts.ended() >= batch.total {
            return self.change(batch, batch.finalizing(counts, now_ms)).await;
        }
        if now_ms >= batch.expires_ms {
            return self.call_off(batch, job::Status::Expired).await;
        }
        // The sweep looks again, should the end of the last line not be told.
        match self.change(batch, batch.seen(now_ms)).await? {
            Step::Changed(there) if there.status != batch.status => Ok(Step::Changed(there)),
            _ => Ok(Step::Nothing),
        }
    }

    /// Writes `changed`; if the batch has changed meanwhile, goes on with that.
    async fn change(&self, batch: &Batch, changed: Batch) -> anyhow::Result<Step> {
        Ok(match self.app.batches.replace(batch, changed).await? {
            Ok(batch) | Err(Some(batch)) => Step::Changed(Box::new(batch)),
            Err(None) => Step::Nothing,
        })
    }

    /// Writes the end of a batch.
    async fn end(&self, batch: &Batch, ended: Batch) -> anyhow::Result<Step> {
        let ended = match self.app.batches.replace(batch, ended).await? {
            Ok(ended) => ended,
            Err(Some(batch)) => return Ok(Step::Changed(Box::new(batch))),
            Err(None) => return Ok(Step::Nothing),
        };
        if let Err(error) = self.blobs.delete(&ended.input_key()).await {
            warn!(batch_id = ended.id, %error, "the lines of a batch that has ended were not deleted");
        }
        debug!(batch_id = ended.id, status = ended.status.name(), "a batch has ended");
        Ok(Step::Changed(Box::new(ended)))
    }

    /// Tells the end of a batch, then notes that it did.
    async fn tell(&self, batch: &Batch, kind: EventType) -> anyhow::Result<Step> {
        let ended_ms = batch.ended_ms.unwrap_or(batch.created_ms);
        webhook::announce(self.app, &batch.tenant, &Event::of_batch(kind, &batch.id, ended_ms)).await?;
        self.change(batch, batch.told()).await
    }

    /// The lines of the batch.
    async fn lines(&mut self, batch: &Batch) -> anyhow::Result<&[Line]> {
        if self.lines.is_none() {
            let input = self.blobs.get(&batch.input_key()).await?.context("the lines of a batch are gone")?;
            let lines = read(&input, batch.api.path()).ok().context("the lines of a batch have changed")?;
            self.lines = Some(lines);
        }
        Ok(self.lines.as_deref().unwrap_or_default())
    }
}

fn gone() -> LineError {
    LineError {
        code: "file_not_found".to_owned(),
        line: None,
        message: "The input file is gone. Upload it again.".to_owned(),
        param: Some("input_file_id".to_owned()),
    }
}
