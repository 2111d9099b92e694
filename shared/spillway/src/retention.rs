//! How long stored data is kept.

use std::ops::RangeInclusive;

use crate::units::Millis;

/// A job with its request and its answer, from its end or its expiry on.
pub const JOB: Millis = Millis::from_s(7 * 24 * 60 * 60);

/// The answer to a call that a client may retry, from the end of the call on. AWS SDKs wait at most
/// 20 s before a retry, SDKs made by Stainless at most 8 s.
pub const ANSWER: Millis = Millis::from_s(2 * 60);

/// The stored answer to a call with an `Idempotency-Key`, from the end of the call on.
pub const KEYED_ANSWER: Millis = Millis::from_s(60 * 60);

/// A file by default, in seconds: thirty days, as OpenAI keeps the files of batches.
pub const FILE_S: u64 = 30 * 24 * 60 * 60;

/// An upload after its expiry, in seconds. Until then, a repeated request gets its first answer.
pub const UPLOAD_S: u64 = 24 * 60 * 60;

/// The retentions of a file that a tenant may choose, in seconds (OpenAI API reference, "Upload
/// file", `expires_after`).
pub const FILE_RANGE_S: RangeInclusive<u64> = 3_600..=FILE_S;
