//! Webhooks: reports to a tenant's servers that a job or a batch has ended.
//!
//! They follow the Standard Webhooks specification
//! (github.com/standard-webhooks/standard-webhooks) and the format of OpenAI's events, so that the
//! SDKs of both verify and parse them.
//!
//! The process that ends a job notes the pending event in the job's row. It clears the note once a
//! message for each endpoint is in the webhook queue. The sweep finds notes that stay. Each message
//! is then tried for three days, until its endpoint accepts the event.

pub mod backoff;
pub mod event;

mod delivery;
mod notify;
mod pump;
mod verify;

pub use delivery::{handle, handle_batch};
pub use event::WebhookEvent;
pub use notify::{notify, notify_job, notify_job_end};
pub use pump::pump;
pub use verify::verify;
