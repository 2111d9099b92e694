//! Where the limits stand, for callers and operators.

use super::{
    Attribute, EPOCH_MS, EPOCHS, Image, Limit, LimitState, Policy,
    reserve::{day, epoch, month, month_end_ms, windows},
    slots,
};

/// The state of each configured limit under `policy`, judged at `now_ms`.
pub fn states(policy: &Policy, image: &Image, now_ms: u64) -> Vec<LimitState> {
    let limits = policy.limits;
    let minute = |limit, cap: Option<u64>, attribute: fn(u64) -> Attribute| {
        cap.map(|cap| minute_state(policy, image, now_ms, limit, cap, attribute))
    };
    let total = |limit, cap: Option<u64>, used, reset_at_ms: u64| {
        cap.map(|cap| LimitState { limit, cap, used, reset_ms: reset_at_ms.saturating_sub(now_ms) })
    };
    let midnight_ms = (day(now_ms) + 1) * 86_400_000;
    [
        minute(Limit::RequestsPerMinute, limits.requests_per_minute, Attribute::Requests),
        minute(Limit::TokensPerMinute, limits.tokens_per_minute, Attribute::Tokens),
        total(Limit::TokensPerDay, limits.tokens_per_day, image.get(Attribute::Day(day(now_ms))), midnight_ms),
        total(
            Limit::MicrousdPerMonth,
            limits.microusd_per_month,
            image.get(Attribute::Month(month(now_ms))),
            month_end_ms(now_ms),
        ),
        total(Limit::InFlight, limits.in_flight, slots::live(image, now_ms), now_ms + slots::reset_ms(image, now_ms)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A window leaves `cap(age) - held`; the tightest one is what is left.
fn minute_state(
    policy: &Policy,
    image: &Image,
    now_ms: u64,
    limit: Limit,
    cap: u64,
    attribute: fn(u64) -> Attribute,
) -> LimitState {
    let now = epoch(now_ms);
    let held = |start| image.get(attribute(start));
    let remaining = windows(now).map(|start| policy.cap(cap, now - start + 1).saturating_sub(held(start))).min();
    let last_charged = windows(now).filter(|start| held(*start) > 0).max();
    LimitState {
        limit,
        cap,
        used: cap.saturating_sub(remaining.unwrap_or(cap)),
        reset_ms: last_charged.map_or(0, |start| ((start + EPOCHS) * EPOCH_MS).saturating_sub(now_ms)),
    }
}
