//! A batch: many requests in one file, each of which becomes a job. Pure: how a batch stands, what its lines say, and what is
//! written of their ends.

mod course;
mod file;
mod ids;
mod lines;
mod output;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use course::RESEND_AFTER_MS;
pub use file::{File, KEPT_BETWEEN_S, KEPT_S};
pub use ids::{Kind, derived, is_batch_id};
pub use lines::{Line, MOST_LINES, of_requests, read};
pub use output::{Ending, Files, LARGEST_FILE};

use crate::{
    dialect::{Api, Dialect},
    job,
};

/// Where a batch stands: OpenAI's words, which tell more apart than Anthropic's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its lines have not been read yet.
    Validating,
    /// Its lines are no requests; none of them was made a job.
    Failed,
    /// Its lines are becoming jobs, or have.
    InProgress,
    /// Every line has ended; what they came to is being written.
    Finalizing,
    /// What its lines came to is written.
    Completed,
    /// The same, but some lines found no room in time.
    Expired,
    /// Its tenant took it back; lines that run are awaited.
    Cancelling,
    /// What its lines came to before that is written.
    Cancelled,
}

impl Status {
    /// Whether nothing follows it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }

    /// Its name in OpenAI's API and in the store.
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

/// How many lines have ended, by how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered.
    pub completed: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Found no room in time.
    pub expired: u64,
    /// Taken back before they ran.
    pub cancelled: u64,
}

impl Counts {
    /// How many lines have ended.
    pub fn ended(&self) -> u64 {
        self.completed + self.failed + self.expired + self.cancelled
    }

    /// The name of the counter that a job of this status belongs to; `None` while it has not ended.
    pub fn counter(status: job::Status) -> Option<&'static str> {
        match status {
            job::Status::Succeeded => Some("completed"),
            job::Status::Failed => Some("failed"),
            job::Status::Expired => Some("expired"),
            job::Status::Cancelled => Some("cancelled"),
            job::Status::Queued | job::Status::Running => None,
        }
    }
}

/// What is wrong with the input of a batch, as OpenAI tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// The kind of error, for programs.
    pub code: String,
    /// The line of the file, from 1, if it is one line's.
    pub line: Option<u64>,
    /// What is wrong and what would be right, in words.
    pub message: String,
    /// The member of the line.
    pub param: Option<String>,
}

/// A batch without its input and output. All times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `batch_<uuid>` or `msgbatch_<uuid>`.
    pub id: String,
    /// Whose batch it is.
    pub tenant: String,
    /// The API that it came in through.
    pub dialect: Dialect,
    /// The path that every line asks.
    pub api: Api,
    /// The headers that the answers depend on, by lower-case name. Never a credential.
    pub headers: Vec<(String, String)>,
    /// The file that its lines came in, if they came in one.
    pub input_file: Option<String>,
    /// What its tenant notes about it.
    pub metadata: Option<Map<String, Value>>,
    /// A digest of the request that made it, so that another one under the same name is told apart.
    pub fingerprint: String,
    /// When it was accepted.
    pub created_ms: u64,
    /// When lines that have not begun expire.
    pub expires_ms: u64,
    /// How long its output is kept, in seconds, if its tenant said so.
    pub output_kept_s: Option<u64>,
    /// Where it stands.
    pub status: Status,
    /// When its lines began to become jobs.
    pub in_progress_ms: Option<u64>,
    /// When its last line had ended.
    pub finalizing_ms: Option<u64>,
    /// When its tenant took it back.
    pub cancelling_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// How many lines it has, as soon as they have been read.
    pub total: u64,
    /// How many of them are jobs for certain: those before this one.
    pub expanded: u64,
    /// How its lines ended, once all have; until then that is counted elsewhere.
    pub counts: Counts,
    /// Why it failed.
    pub errors: Vec<LineError>,
    /// What holds its answers, if there are any.
    pub output_file: Option<String>,
    /// What holds its other lines, if there are any.
    pub error_file: Option<String>,
    /// How many lines have been called off in the round that is under way: those before this one.
    #[serde(default)]
    pub called_off: u64,
    /// Whether its end has been told to whoever wants to know of it.
    #[serde(default)]
    pub is_told: bool,
    /// When its message should have been seen: `RESEND_AFTER_MS` later the sweep sends another.
    pub due_ms: u64,
    /// How often the sweep did so since it was last seen.
    pub resends: u32,
    /// Different after every change, so that no change is made to what was not seen.
    pub etag: String,
}
