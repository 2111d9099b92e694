//! Idempotency: attempts at one call share one answer and one charge.
//!
//! A client that gets no answer in time sends its request again, while the call that is charged to
//! its tenant still runs. The retry joins that call instead of starting another.
//!
//! **Attempts.** Requests are attempts at one call if their [`CallIdentity`] has the same key. The
//! key comes from an `Idempotency-Key`, from the invocation id of an AWS SDK and the content, or
//! from the content alone if a Stainless SDK sends its retry count. Content does not name a call,
//! so such a retry joins a call only if all its callers have disconnected or timed out. Tenants
//! never share an answer: the tenant is part of the key.
//!
//! **In one process**, [`SharedCalls`] makes the first attempt the leader, which runs the call, and
//! every later attempt a follower (the pattern of Go's `singleflight`). All of them read one buffer
//! from the start, while the answer arrives or after its end. Ended answers stay readable for
//! [`retention::ANSWER`](crate::retention::ANSWER).
//!
//! **Across processes**, a row in the store stands for the call. The process that runs the call
//! claims the row after a delay, or immediately for an `Idempotency-Key`, and renews its lease. At
//! the end it stores the answer. A retry in another process waits while the lease holds, then
//! replays the answer. `http::idempotency` does this.
//!
//! **Bounds.** The number of calls, the bytes of one answer and the bytes of all answers of a
//! process are bounded, and tenants share them fairly (`shares`). An answer that exceeds a bound is
//! passed through to its present readers with backpressure, and no further attempt can join it.

mod identity;
mod key;
mod response_buffer;
mod shared_calls;
mod shared_response;
mod shares;

pub use identity::{CallIdentity, KeySource, client_timeout, has_retry_headers};
pub use key::IdempotencyKey;
pub use response_buffer::ResponseHead;
pub use shared_calls::{JoinOutcome, SharedCalls};
pub use shared_response::{ResponseReader, ResponseWriter};
