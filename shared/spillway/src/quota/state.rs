//! State of the limits, for callers and operators.

use super::{Image, Limit, LimitState, Period, Policy, slots};
use crate::units::{Millis, UnixMs};

/// Returns the state of each limit of `policy` at `now`.
pub fn states(policy: &Policy, image: &Image, now: UnixMs) -> Vec<LimitState> {
    let state = |(limit, cap): (Limit, u64)| match limit.windows_period(policy.burst.carries_over) {
        Some(period @ (Period::Minute | Period::FiveMinutes)) => minute_state(policy, (limit, period), cap, image, now),
        Some(period @ (Period::Day | Period::Month)) => {
            let used = limit.windows(false, now).map(|(_, counter)| image.get(counter)).sum();
            LimitState { limit, cap, used, resets_in: period.ends_at(period.windows(now).start) - now }
        }
        None => LimitState { limit, cap, used: slots::live(image, now), resets_in: slots::resets_in(image, now) },
    };
    policy.limits.iter().map(state).collect()
}

/// Returns the state of a limit per minute. The window with the least room decides how much is
/// left.
fn minute_state(policy: &Policy, (limit, period): (Limit, Period), cap: u64, image: &Image, now: UnixMs) -> LimitState {
    let (mut remaining, mut last_charged) = (cap, None);
    for (window, counter) in limit.windows(policy.burst.carries_over, now) {
        let held = image.get(counter);
        remaining = remaining.min(policy.cap(limit, cap, window, now).saturating_sub(held));
        if held > 0 {
            last_charged = Some(window);
        }
    }
    LimitState {
        limit,
        cap,
        used: cap.saturating_sub(remaining),
        resets_in: last_charged.map_or(Millis::ZERO, |window| period.ends_at(window) - now),
    }
}

/// Returns the tokens that were charged in the last minute to an account whose tokens do not carry
/// over.
pub fn minute_tokens(image: &Image, now: UnixMs) -> u64 {
    let oldest = Limit::TokensPerMinute.windows(false, now).next();
    oldest.map_or(0, |(_, counter)| image.get(counter))
}
