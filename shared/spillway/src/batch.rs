//! Batches: many requests in one file, each of which becomes a job.
//!
//! This module is pure. It holds the states of a batch, the format of its lines and the format of
//! its output.

mod file;
mod ids;
mod lines;
mod output;
mod transitions;
mod upload;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use file::File;
pub use ids::{ResourceKind, derive_uuid, is_batch_id};
pub use lines::{Line, LineCounter, MAX_LINES, lines_from_requests, parse_lines};
pub use output::{LineOutcome, MAX_FILE_BYTES, OutputFiles};
pub use upload::{MAX_PARTS, MAX_UPLOAD_TIME, Upload, UploadStatus, check_bytes, is_part_id, part_id};

use crate::{
    dialect::{Api, Dialect},
    job::{JobStatus, Redelivery},
    stored_headers::StoredHeaders,
    units::{Millis, UnixMs},
};

/// Maximum duration of a batch: a day, as in both APIs.
pub const COMPLETION_WINDOW: Millis = Millis::from_s(24 * 60 * 60);

/// Status of a batch, by the names of OpenAI's API, which has more of them than Anthropic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// The lines have not been parsed yet.
    Validating,
    /// The lines are invalid. None of them became a job.
    Failed,
    /// The lines are becoming jobs, or have become jobs.
    InProgress,
    /// All lines have ended. The output is being written.
    Finalizing,
    /// The output is written.
    Completed,
    /// The output is written. Some lines expired.
    Expired,
    /// The tenant cancelled the batch. Some lines are still running.
    Cancelling,
    /// The tenant cancelled the batch. The output of the lines that ended before is written.
    Cancelled,
}

impl BatchStatus {
    /// Whether the batch has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }

    /// Name in OpenAI's API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Number of lines that have ended, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Lines with an answer.
    pub completed: u64,
    /// Lines that ended with an error.
    pub failed: u64,
    /// Lines for which there was no room in time.
    pub expired: u64,
    /// Lines that were cancelled before they ran.
    pub cancelled: u64,
}

impl LineCounts {
    /// Number of lines that have ended.
    pub fn ended(&self) -> u64 {
        self.completed + self.failed + self.expired + self.cancelled
    }

    /// Name of the counter for jobs of this status. `None` if a job of this status has not ended.
    pub fn counter(status: JobStatus) -> Option<&'static str> {
        match status {
            JobStatus::Succeeded => Some("completed"),
            JobStatus::Failed => Some("failed"),
            JobStatus::Expired => Some("expired"),
            JobStatus::Cancelled => Some("cancelled"),
            JobStatus::Queued | JobStatus::Running => None,
        }
    }
}

/// An error in the input of a batch, in the format of OpenAI's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// Kind of error, for programs.
    pub code: String,
    /// Line of the file, from 1. `None` if the error concerns the whole file.
    pub line: Option<u64>,
    /// What is wrong and what would be right.
    pub message: String,
    /// Field of the line.
    pub param: Option<String>,
}

/// A batch without its input and output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `batch_<uuid>` or `msgbatch_<uuid>`.
    pub id: String,
    /// Name of the tenant.
    pub tenant: String,
    /// API through which the batch was created.
    pub dialect: Dialect,
    /// API that every line calls.
    pub api: Api,
    /// Headers that the answers depend on. Never a credential.
    pub headers: StoredHeaders,
    /// Id of the input file, if the lines were sent in a file.
    pub input_file: Option<String>,
    /// Number of objects that the lines consist of; 0 if they are one object.
    #[serde(default)]
    pub input_parts: usize,
    /// Size of the lines in bytes.
    #[serde(default)]
    pub input_bytes: u64,
    /// Metadata from the tenant.
    pub metadata: Option<Map<String, Value>>,
    /// Digest of the request that created the batch. It detects a different request with the same
    /// idempotency key.
    pub fingerprint: String,
    /// Time when the batch was accepted.
    #[serde(rename = "created_ms")]
    pub created_at: UnixMs,
    /// Time when lines that have not started expire.
    #[serde(rename = "expires_ms")]
    pub expires_at: UnixMs,
    /// How long the output is kept, in seconds, if the tenant chose it.
    pub output_kept_s: Option<u64>,
    /// Status of the batch.
    pub status: BatchStatus,
    /// Time when the lines began to become jobs.
    #[serde(rename = "in_progress_ms")]
    pub in_progress_at: Option<UnixMs>,
    /// Time when the last line had ended.
    #[serde(rename = "finalizing_ms")]
    pub finalizing_at: Option<UnixMs>,
    /// Time when the tenant cancelled the batch.
    #[serde(rename = "cancelling_ms")]
    pub cancelling_at: Option<UnixMs>,
    /// Time when the batch ended.
    #[serde(rename = "ended_ms")]
    pub ended_at: Option<UnixMs>,
    /// Number of lines that the limit on waiting jobs admitted.
    #[serde(default)]
    pub admitted_lines: u64,
    /// Number of lines, known once they have been parsed.
    pub total: u64,
    /// Number of lines that have become jobs for certain: lines before this one.
    pub expanded: u64,
    /// Outcomes of the lines, once all have ended. Until then, counters in other rows count them.
    pub counts: LineCounts,
    /// Why the batch failed.
    pub errors: Vec<LineError>,
    /// File with the answers, if there are any.
    pub output_file: Option<String>,
    /// File with the lines that failed, if there are any.
    pub error_file: Option<String>,
    /// Progress of ending the lines that have not started: lines before this one are done. 0
    /// between two passes.
    #[serde(rename = "called_off", default)]
    pub stopped: u64,
    /// Whether the webhook event that reports the end of the batch is in the webhook queue.
    #[serde(rename = "is_told", default)]
    pub is_reported: bool,
    /// When the sweep next sends the batch's message.
    #[serde(flatten)]
    pub redelivery: Redelivery,
    /// Changes with every write, so that a write applies only to the version that was read.
    pub etag: String,
}
