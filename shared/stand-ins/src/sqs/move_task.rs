//! Move tasks, which move the messages of a dead-letter queue to their source queues or to a given
//! queue.
//!
//! A task has no thread. Each access to the queues first moves the messages that are due, so a task
//! continues after a restart and follows a clock that is advanced. As on AWS, a moved message is a
//! new message, with a new id and age.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    message::{Content, Delivery, Message},
    settings::queue_name_from_arn,
    state::{Change, State},
};

/// A move task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveTask {
    /// Id of the task.
    pub id: String,
    /// Dead-letter queue to empty.
    pub source_arn: String,
    /// Queue that receives the messages; the source queue of each message if absent.
    pub destination_arn: Option<String>,
    /// Messages per second; no limit if absent.
    pub rate: Option<u32>,
    /// Time of the start, in milliseconds since 1970.
    pub started_ms: u64,
    /// Progress of the task.
    pub status: Status,
    /// Number of moved messages.
    pub moved: u64,
    /// Number of messages that were visible when the task started.
    pub to_move: u64,
    /// Reason why the task failed.
    pub failure: Option<String>,
}

/// Progress of a move task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Running,
    Completed,
    Cancelled,
    Failed,
}

impl Status {
    /// Returns the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "RUNNING",
            Status::Completed => "COMPLETED",
            Status::Cancelled => "CANCELLED",
            Status::Failed => "FAILED",
        }
    }
}

impl MoveTask {
    /// Returns the time at which the rate permits the next messages; `None` if the task has ended.
    pub fn next_step_ms(&self, now_ms: u64) -> Option<u64> {
        let elapsed_s = now_ms.saturating_sub(self.started_ms) / 1_000;
        (self.status == Status::Running).then(|| self.started_ms.saturating_add((elapsed_s + 1) * 1_000))
    }

    fn due(&self, now_ms: u64) -> u64 {
        let elapsed_s = now_ms.saturating_sub(self.started_ms) / 1_000;
        let allowed = self.rate.map(|rate| u64::from(rate).saturating_mul(elapsed_s + 1));
        allowed.unwrap_or(self.to_move).min(self.to_move)
    }
}

impl State {
    /// Moves the messages that are due by `now_ms`.
    pub fn advance_move_tasks(&mut self, now_ms: u64) {
        for index in 0..self.tasks.len() {
            let Some(mut task) = self.tasks.get(index).filter(|task| task.status == Status::Running).cloned() else {
                continue;
            };
            let moved_before = task.moved;
            self.step(&mut task, now_ms);
            if task.moved != moved_before || task.status != Status::Running {
                self.changes.push(Change::TaskUpdated(task.id.clone()));
                self.tasks[index] = task;
            }
        }
    }

    fn step(&mut self, task: &mut MoveTask, now_ms: u64) {
        while task.moved < task.due(now_ms) {
            match self.move_message(task, now_ms) {
                Ok(true) => task.moved += 1,
                Ok(false) => {
                    task.status = Status::Completed;
                    return;
                }
                Err(reason) => {
                    task.status = Status::Failed;
                    task.failure = Some(reason.to_owned());
                    return;
                }
            }
        }
        if task.moved >= task.to_move {
            task.status = Status::Completed;
        }
    }

    /// Moves the oldest visible message. Returns false if no message is visible. An error is a
    /// `FailureReason` of SQS.
    fn move_message(&mut self, task: &MoveTask, now_ms: u64) -> Result<bool, &'static str> {
        const NO_QUEUE: &str = "AWS.SimpleQueueService.NonExistentQueue";
        let source = queue_name_from_arn(&task.source_arn).and_then(|name| self.queues.get(name)).ok_or(NO_QUEUE)?;
        let Some(sequence) = source.oldest_visible() else { return Ok(false) };
        let origin = source.get(sequence).and_then(|message| message.delivery.source_arn.clone());
        let arn = task.destination_arn.clone().or(origin).ok_or("CouldNotDetermineMessageSource")?;
        let destination = queue_name_from_arn(&arn).filter(|name| self.queues.contains_key(*name)).ok_or(NO_QUEUE)?;
        let Some(message) = self.remove(queue_name_from_arn(&task.source_arn).unwrap_or_default(), sequence) else {
            return Ok(false);
        };
        let id = uuid::Uuid::new_v4().to_string();
        let content = Arc::new(Content { id, sent_ms: now_ms, ..(*message.content).clone() });
        self.insert(destination, Message { content, delivery: Delivery::default() }, now_ms);
        Ok(true)
    }
}
