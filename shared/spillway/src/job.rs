//! A job: a request that was accepted and will be answered later. Pure: what may follow what, and when.

mod course;
mod event;
mod position;
mod priority;
mod reason;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use course::{MAX_ATTEMPTS, Next, RESEND_AFTER_MS};
pub use position::{Differs, Position};
pub use priority::{Priority, earliest_start_ms};
pub use reason::Reason;

use crate::{
    dialect::Api,
    tenant::{Class, EventType},
};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits in the queue.
    Queued,
    /// A drain holds its lease.
    Running,
    /// Its answer is stored.
    Succeeded,
    /// It ended with an error, which is stored; its message is in the dead-letter queue.
    Failed,
    /// Its tenant took it back before it ran.
    Cancelled,
    /// No room was found in time.
    Expired,
}

impl Status {
    /// Whether nothing follows it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The status of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired];
        all.into_iter().find(|status| status.name() == name)
    }

    /// Its name in the API and in the store.
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

/// The line of a batch that a job does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The batch's id.
    pub batch: String,
    /// The line's number, from 0.
    pub line: u64,
    /// How many lines the batch has.
    pub of: u64,
    /// The name that the batch gives it.
    pub custom_id: String,
}

/// How the request came in, without its body: enough to do it again as if it came in now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The API of the request, in which it will be answered.
    pub api: Api,
    /// The model in the path, percent-decoded, if the path has one.
    pub model: Option<String>,
    /// The path as called, still percent-encoded.
    pub path: String,
    /// The headers that the answer depends on, by lower-case name. Never a credential.
    pub headers: Vec<(String, String)>,
    /// Whether it asked for a stream.
    pub stream: bool,
}

/// Who reads the answer, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// Somebody who comes for it when it is there.
    #[default]
    Later,
    /// Whoever asks for OpenAI's background response of this id, while it comes or afterwards.
    Background,
    /// A caller whose connection is kept open for it.
    Waiting,
}

/// A request that is to become a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its id, if the caller's name for it decides that; a new one otherwise.
    pub id: Option<String>,
    /// Whose job it is.
    pub tenant: String,
    /// How the request came in.
    pub call: Call,
    /// The client's own bytes.
    pub body: Bytes,
    /// When it came in, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it may first be claimed.
    pub ready_ms: u64,
    /// When it expires if no room was found.
    pub expires_ms: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// How much of a pool it may take.
    pub class: Class,
    /// The batch that it belongs to, if it does.
    pub member: Option<Member>,
}

/// A job without its request's body and its answer. All times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// A UUID: of version 7, or of version 8 where it was derived.
    pub id: String,
    /// Whose job it is.
    pub tenant: String,
    /// How the request came in.
    pub call: Call,
    /// Where it stands.
    pub status: Status,
    /// When it was accepted.
    pub created_ms: u64,
    /// When a drain may next claim it: while it is queued the end of its deferral, while it runs the end of its lease.
    pub ready_ms: u64,
    /// When its message should have been seen: `RESEND_AFTER_MS` later the sweep sends another.
    pub due_ms: u64,
    /// When it was last claimed.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// When it expires if no room was found.
    pub expires_ms: u64,
    /// How urgent it is.
    #[serde(default)]
    pub priority: Priority,
    /// How much of a pool it may take.
    #[serde(default = "patient")]
    pub class: Class,
    /// The batch that it belongs to, if it does.
    #[serde(default)]
    pub member: Option<Member>,
    /// Who reads the answer.
    #[serde(default)]
    pub reader: Reader,
    /// Whether its request and its answer were deleted at its tenant's wish.
    #[serde(default)]
    pub is_deleted: bool,
    /// How often it was claimed. Whoever claimed it at an earlier count can no longer change it.
    pub fence: u64,
    /// How many claims ended in a failure, or are under way.
    pub attempts: u32,
    /// How often it found no room.
    pub deferrals: u32,
    /// How often the sweep sent its message again since it was last seen.
    pub resends: u32,
    /// Why it failed or expired.
    pub error: Option<String>,
    /// The fence under which its answer is stored.
    pub answered_at_fence: Option<u64>,
    /// What its end is still to be told as, to the webhooks of its tenant. Until it is, `due_ms` counts for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<EventType>,
    /// Different after every change, so that no change is made to what was not seen.
    pub etag: String,
}

impl Job {
    /// The id that its answer carries: OpenAI's background responses have ids without hyphens.
    pub fn answer_id(&self) -> String {
        if self.reader == Reader::Background { self.id.replace('-', "") } else { self.id.clone() }
    }

    /// Whether somebody reads its answer while it comes.
    pub fn is_followed(&self) -> bool {
        self.call.stream && self.reader != Reader::Later
    }
}

/// The class of work that can wait.
fn patient() -> Class {
    Class::Batch
}

/// The answer to a job, exactly as the synchronous call would have given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// The HTTP status.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// How a job ended that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Succeeded(StoredResult),
    /// It failed for good: why, in words fit for its tenant, and what the synchronous call would have answered.
    Failed { error: String, result: StoredResult },
}
