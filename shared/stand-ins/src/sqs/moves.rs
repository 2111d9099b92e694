//! Move tasks: taking the messages of a dead-letter queue back to where they came from, or to a queue of choice.
//!
//! A task has no thread of its own: each look at the queues first moves what is due by then, so a task continues after a
//! restart and follows a clock that is advanced. As on AWS a moved message is a new one, with a new id and age.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    message::{Content, Delivery, Message},
    settings::queue_of_arn,
    state::{Change, State},
};

/// One move task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveTask {
    pub id: String,
    pub source_arn: String,
    pub destination_arn: Option<String>,
    /// Messages per second; all at once when absent.
    pub rate: Option<u32>,
    pub started_ms: u64,
    pub status: Status,
    pub moved: u64,
    /// How many messages were visible when the task started.
    pub to_move: u64,
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Running,
    Completed,
    Cancelled,
    Failed,
}

impl Status {
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
    /// When the rate lets the next messages go; `None` when nothing more will happen.
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
    /// Moves what is due by `now_ms`.
    pub fn step_move_tasks(&mut self, now_ms: u64) {
        for index in 0..self.tasks.len() {
            let Some(mut task) = self.tasks.get(index).filter(|task| task.status == Status::Running).cloned() else {
                continue;
            };
            let moved_before = task.moved;
            self.step(&mut task, now_ms);
            if task.moved != moved_before || task.status != Status::Running {
                self.changes.push(Change::Task(task.id.clone()));
                self.tasks[index] = task;
            }
        }
    }

    fn step(&mut self, task: &mut MoveTask, now_ms: u64) {
        while task.moved < task.due(now_ms) {
            match self.move_one(task, now_ms) {
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

    /// Moves the oldest visible message. False when there is none; an error in the words of `FailureReason`.
    fn move_one(&mut self, task: &MoveTask, now_ms: u64) -> Result<bool, &'static str> {
        const NO_QUEUE: &str = "AWS.SimpleQueueService.NonExistentQueue";
        let source = queue_of_arn(&task.source_arn).and_then(|name| self.queues.get(name)).ok_or(NO_QUEUE)?;
        let Some(sequence) = source.oldest_visible() else { return Ok(false) };
        let origin = source.get(sequence).and_then(|message| message.delivery.source_arn.clone());
        let arn = task.destination_arn.clone().or(origin).ok_or("CouldNotDetermineMessageSource")?;
        let destination = queue_of_arn(&arn).filter(|name| self.queues.contains_key(*name)).ok_or(NO_QUEUE)?;
        let Some(message) = self.remove(queue_of_arn(&task.source_arn).unwrap_or_default(), sequence) else {
            return Ok(false);
        };
        let id = uuid::Uuid::new_v4().to_string();
        let content = Arc::new(Content { id, sent_ms: now_ms, ..(*message.content).clone() });
        self.insert(destination, Message { content, delivery: Delivery::default() }, now_ms);
        Ok(true)
    }
}
