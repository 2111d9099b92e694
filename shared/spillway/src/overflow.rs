//! Overflow: a request that finds no room becomes a job.
//!
//! This module holds what the API and the drain share: accepting a request as a job, parking it,
//! following it while it runs, and reporting its end.

mod follow;
mod notify;
mod park;
mod submit;

pub use follow::{Follower, JobProgress};
pub use notify::{notify_batch, notify_end};
pub use park::{can_park, ensure_turn, is_refused_by_limits, send_expiry, send_turn};
pub use submit::{MAX_EARLY, Submission, check_backlog, line_job, message_delay, send, submit};
