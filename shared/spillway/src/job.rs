//! Jobs: requests that were accepted and are answered later.
//!
//! This module is pure. It decides which change may follow which, and when.

mod backlog;
mod end_event;
mod failure_reason;
mod position;
mod priority;
mod redelivery;
mod transitions;
mod waiting;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use backlog::{Backlog, Chosen, LOOK_AHEAD, MAX_SENT, Turn, TurnStep, TurnView, WaitingJob};
pub use failure_reason::FailureReason;
pub use position::{OutputDiffers, Position};
pub use priority::{Priority, estimated_start};
pub use redelivery::{RESEND_AFTER, Redelivery};
pub use transitions::{MAX_ATTEMPTS, NextStep};
pub use waiting::{FailureBounds, JobWait, Obstruction, ObstructionKind, WaitReason};

use crate::{
    dialect::Api,
    stored_headers::StoredHeaders,
    tenant::{Class, EventType},
    units::UnixMs,
};

/// Status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// The job waits in the queue.
    Queued,
    /// A drain holds the job's lease.
    Running,
    /// The answer is stored.
    Succeeded,
    /// The job ended with an error, which is stored. Its message is in the dead-letter queue.
    Failed,
    /// The tenant cancelled the job.
    Cancelled,
    /// There was no room for the job in time.
    Expired,
}

impl JobStatus {
    const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired];

    /// Whether the job has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// Returns the status called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// The line of a batch that a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchMember {
    /// Id of the batch.
    #[serde(rename = "batch")]
    pub batch_id: String,
    /// Number of the line, from 0.
    pub line: u64,
    /// Number of lines in the batch.
    #[serde(rename = "of")]
    pub total_lines: u64,
    /// Name of the line in the batch.
    pub custom_id: String,
}

/// A request without its body: enough to run it later as if it had just arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCall {
    /// API of the request and of the answer.
    pub api: Api,
    /// Model in the path, percent-decoded, if the path names one.
    pub model: Option<String>,
    /// Path as called, still percent-encoded, without [`base_path`](Self::base_path).
    pub path: String,
    /// Start of the caller's path, before the API's own paths, such as the stage of API Gateway.
    /// The address of the result starts with it.
    #[serde(default)]
    pub base_path: String,
    /// Headers that the answer depends on. Never a credential.
    pub headers: StoredHeaders,
    /// Whether the caller asked for a stream.
    pub stream: bool,
}

/// How the caller reads the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobReader {
    /// The caller fetches the answer after the job has ended.
    #[default]
    Later,
    /// The job is a background response of OpenAI's API, read by its id during and after the run.
    Background,
    /// The caller waits on an open connection.
    Waiting,
}

/// A request that is about to become a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Id of the job, if it follows from the caller's idempotency key. Otherwise the job gets a
    /// new one.
    pub id: Option<String>,
    /// Name of the tenant.
    pub tenant: String,
    /// The request without its body.
    pub call: StoredCall,
    /// The body, byte for byte.
    pub body: Bytes,
    /// Time when the request arrived.
    pub created_at: UnixMs,
    /// Time from which the job can be claimed.
    pub ready_at: UnixMs,
    /// Time when the job expires unless it has started.
    pub expires_at: UnixMs,
    /// Whether the job waits for a turn of its tenant instead of a message.
    pub is_parked: bool,
    /// Priority among the jobs of the tenant.
    pub priority: Priority,
    /// Share of a pool that the job may fill.
    pub class: Class,
    /// The batch line that the job runs, if it runs one.
    pub member: Option<BatchMember>,
    /// Why the request waits, if limits or pools refused it.
    pub wait: Option<Box<JobWait>>,
}

/// A job without the bodies of its request and answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// A UUID: of version 7, or of version 8 if it was derived.
    pub id: String,
    /// Name of the tenant.
    pub tenant: String,
    /// The request without its body.
    pub call: StoredCall,
    /// Status of the job.
    pub status: JobStatus,
    /// Time when the job was accepted.
    #[serde(rename = "created_ms")]
    pub created_at: UnixMs,
    /// Time from which a drain can claim the job: the end of its deferral while it is queued, the
    /// end of its lease while it runs.
    #[serde(rename = "ready_ms")]
    pub ready_at: UnixMs,
    /// When the sweep next sends the job's message. While `pending_event` is set, when it next
    /// sends that event.
    #[serde(flatten)]
    pub redelivery: Redelivery,
    /// Time of the last claim.
    #[serde(rename = "started_ms")]
    pub started_at: Option<UnixMs>,
    /// Time when the job ended.
    #[serde(rename = "finished_ms")]
    pub finished_at: Option<UnixMs>,
    /// Time when the job expires unless it has started.
    #[serde(rename = "expires_ms")]
    pub expires_at: UnixMs,
    /// Whether the job waits for a turn of its tenant instead of a message.
    #[serde(default, rename = "parked", skip_serializing_if = "is_false")]
    pub is_parked: bool,
    /// Priority among the jobs of the tenant.
    #[serde(default)]
    pub priority: Priority,
    /// Share of a pool that the job may fill.
    #[serde(default = "default_class")]
    pub class: Class,
    /// The batch line that the job runs, if it runs one.
    #[serde(default)]
    pub member: Option<BatchMember>,
    /// How the caller reads the answer.
    #[serde(default)]
    pub reader: JobReader,
    /// Whether the tenant deleted the request and the answer.
    #[serde(default)]
    pub is_deleted: bool,
    /// Number of claims. A drain that holds an older fence can no longer change the job.
    pub fence: u64,
    /// Number of claims that failed or are in progress.
    pub attempts: u32,
    /// Number of times that there was no room for the job.
    pub deferrals: u32,
    /// Why the request was refused, or why the job was last put back into the queue. `None` if
    /// neither happened, or if it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Box<JobWait>>,
    /// Why the job failed or expired.
    pub error: Option<String>,
    /// The fence under which the answer is stored.
    #[serde(rename = "answered_at_fence")]
    pub result_fence: Option<u64>,
    /// The webhook event that reports the end of the job, until it is in the webhook queue.
    #[serde(rename = "announce", default, skip_serializing_if = "Option::is_none")]
    pub pending_event: Option<EventType>,
    /// Changes with every write, so that a write applies only to the version that was read.
    pub etag: String,
}

impl Job {
    /// The id in the answer. Ids of OpenAI's background responses have no hyphens.
    pub fn answer_id(&self) -> String {
        if self.reader == JobReader::Background { self.id.replace('-', "") } else { self.id.clone() }
    }

    /// Returns why the job expired, in words for its tenant.
    pub fn expiry_reason(&self) -> String {
        let missing = match self.wait.as_ref().is_some_and(|wait| wait.is_failing()) {
            true => "no pool answered in time",
            false => "no room was found in time",
        };
        let wait = self.wait.as_ref().map(|wait| format!("; the job waited for {}", wait.text()));
        format!("{missing}{}", wait.unwrap_or_default())
    }

    /// Whether the caller may read the answer while it is streamed.
    pub fn is_followed(&self) -> bool {
        self.call.stream && self.reader != JobReader::Later
    }
}

/// Class of jobs that were stored before jobs had a class.
fn default_class() -> Class {
    Class::Batch
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The answer to a job, exactly as a synchronous call would have returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: StoredHeaders,
    /// Body.
    pub body: Bytes,
}

/// Outcome of a job that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobOutcome {
    /// The model answered.
    Succeeded(StoredResult),
    /// The job failed permanently: the reason in words for the tenant, and what a synchronous call
    /// would have returned.
    Failed { error: String, result: StoredResult },
}
