//! Where the limits stand, for callers and operators.

use super::{Image, Limit, LimitState, Period, Policy, slots};

/// The state of each configured limit under `policy`, judged at `now_ms`.
pub fn states(policy: &Policy, image: &Image, now_ms: u64) -> Vec<LimitState> {
    let state = |(limit, cap): (Limit, u64)| match limit.period() {
        Some(Period::Minute) => minute_state(policy, limit, cap, image, now_ms),
        Some(period @ (Period::Day | Period::Month)) => {
            let used = limit.windows(now_ms).map(|(_, counter)| image.get(counter)).sum();
            let ends_ms = period.ends_ms(period.windows(now_ms).start);
            LimitState { limit, cap, used, reset_ms: ends_ms.saturating_sub(now_ms) }
        }
        None => LimitState { limit, cap, used: slots::live(image, now_ms), reset_ms: slots::reset_ms(image, now_ms) },
    };
    policy.limits.iter().map(state).collect()
}

/// The state of a limit per minute: what is left is what the tightest window has left.
fn minute_state(policy: &Policy, limit: Limit, cap: u64, image: &Image, now_ms: u64) -> LimitState {
    let (mut remaining, mut last_charged) = (cap, None);
    for (start, counter) in limit.windows(now_ms) {
        let held = image.get(counter);
        remaining = remaining.min(policy.cap(limit, cap, start, now_ms).saturating_sub(held));
        if held > 0 {
            last_charged = Some(start);
        }
    }
    LimitState {
        limit,
        cap,
        used: cap.saturating_sub(remaining),
        reset_ms: last_charged.map_or(0, |start| Period::Minute.ends_ms(start).saturating_sub(now_ms)),
    }
}

/// The tokens charged in the last minute.
pub fn minute_tokens(image: &Image, now_ms: u64) -> u64 {
    let oldest = Limit::TokensPerMinute.windows(now_ms).next();
    oldest.map_or(0, |(_, counter)| image.get(counter))
}
