//! Repetitions: a client that got no answer in time sends its request again, and the call that it paid for still runs.
//! What is known of a call here lets the repetition join it instead of paying for another.

mod key;
mod recording;
mod recordings;
mod tape;

pub use key::{IdempotencyKey, Identity, Name, client_timeout_ms, is_named};
pub use recording::{Reader, Recorder};
pub use recordings::{KEPT_MS, MOST_CALLS, Opened, Recordings};
pub use tape::{Head, LARGEST_ANSWER, Tape};
