//! Where the limits stand, for callers and operators.

use super::{
    Attribute, EPOCH_MS, EPOCHS, Image, Limit, LimitState, Policy,
    reserve::{day, epoch, month, month_end_ms, windows},
    slots,
};

/// The state of each configured limit under `policy`, judged at `now_ms`.
pub fn states(policy: &Policy, image: &Image, now_ms: u64) -> Vec<LimitState> {
    let limits = policy.limits;
    let total = |limit, cap: u64, used, reset_ms| LimitState { limit, cap, used, reset_ms };
    let of_day = |cap| {
        let until_midnight_ms = (day(now_ms) + 1) * 86_400_000 - now_ms;
        total(Limit::TokensPerDay, cap, image.get(Attribute::Day(day(now_ms))), until_midnight_ms)
    };
    let of_month = |cap| {
        let used = image.get(Attribute::Month(month(now_ms)));
        total(Limit::MicrousdPerMonth, cap, used, month_end_ms(now_ms) - now_ms)
    };
    let of_ring = |cap| total(Limit::InFlight, cap, slots::live(image, now_ms), slots::reset_ms(image, now_ms));
    [
        limits.requests_per_minute.map(|cap| {
            let window = |start, age| (image.get(Attribute::Requests(start)), policy.requests_cap(cap, age));
            minute_state(Limit::RequestsPerMinute, cap, now_ms, window)
        }),
        limits.tokens_per_minute.map(|cap| {
            let window = |start, age| (image.get(Attribute::Tokens(start)), policy.tokens_cap(cap, age));
            minute_state(Limit::TokensPerMinute, cap, now_ms, window)
        }),
        limits.tokens_per_day.map(of_day),
        limits.microusd_per_month.map(of_month),
        limits.in_flight.map(of_ring),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The state of a limit per minute, of which `window` gives what each holds and may hold: the tightest one is what is left.
fn minute_state(limit: Limit, cap: u64, now_ms: u64, window: impl Fn(u64, u64) -> (u64, u64)) -> LimitState {
    let now = epoch(now_ms);
    let held_of = |start: u64| window(start, now - start + 1);
    let remaining = windows(now).map(held_of).map(|(held, cap)| cap.saturating_sub(held)).min();
    let last_charged = windows(now).filter(|start| held_of(*start).0 > 0).max();
    LimitState {
        limit,
        cap,
        used: cap.saturating_sub(remaining.unwrap_or(cap)),
        reset_ms: last_charged.map_or(0, |start| ((start + EPOCHS) * EPOCH_MS).saturating_sub(now_ms)),
    }
}

/// The tokens charged in the last minute.
pub fn minute_tokens(image: &Image, now_ms: u64) -> u64 {
    image.get(Attribute::Tokens(*windows(epoch(now_ms)).start()))
}
