//! How long a refusal holds for others who ask the same: what is full now is full a moment later.

use super::{Limit, Refusal};

/// How long an item that refused is believed to be as it was, in milliseconds. What is given back meanwhile by others is
/// not seen.
const BELIEVED_MS: u64 = 500;

/// The same where only requests in flight stood in the way: slots come free at any moment.
const SLOTS_BELIEVED_MS: u64 = 100;

/// Whether `refusal`, read from what an item held `age_ms` ago, can be given without asking the item.
pub fn is_believed(refusal: &Refusal, age_ms: u64) -> bool {
    let is_about_slots = refusal.limits.iter().all(|refused| refused.limit == Limit::InFlight);
    age_ms < if is_about_slots { SLOTS_BELIEVED_MS } else { BELIEVED_MS }
}
