//! Concurrency control: how many calls the jobs of this process make to a pool at the same time.
//!
//! A [`ConcurrencyLimiter`] keeps one [`ConcurrencyWindow`] for each pool. A job's call needs a
//! [`Permit`] of its pool's window.

mod limiter;
mod retry_pacer;
mod window;

pub use limiter::{ConcurrencyLimiter, Permit, RunningWork};
pub use retry_pacer::RetryPacer;
pub use window::{CallOutcome, ConcurrencyWindow, MAX_WINDOW_SIZE, Started, TryAcquireError};
