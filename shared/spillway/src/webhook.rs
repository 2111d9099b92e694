//! Completion webhooks: a tenant's own servers are told that a job or a batch has ended, by the Standard Webhooks
//! specification (github.com/standard-webhooks/standard-webhooks) and in the shape of OpenAI's events, so that their SDKs
//! verify and read them.
//!
//! Whoever ends a job leaves a note in its row that the end is still to be told; the note goes when a message for each
//! endpoint is in the webhook queue, and the sweep finds those that stay. From there each message is tried until its
//! endpoint takes it, for three days.

pub mod backoff;
pub mod event;

mod announce;
mod deliver;
mod pump;
mod verify;

pub use announce::{announce, announce_end, announce_job};
pub use deliver::{handle, handle_batch};
pub use event::Event;
pub use pump::pump;
pub use verify::verify;
