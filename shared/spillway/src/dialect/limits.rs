//! Headers about limits: the IETF draft's `RateLimit` fields, and OpenAI's and Anthropic's own.

use http::{HeaderName, HeaderValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Dialect, headers::push};
use crate::{
    quota::{Limit, LimitState, Period, Unit},
    units::{Millis, UnixMs},
};

/// Maximum integer of a structured field (RFC 9651 §3.3.1).
const MAX_FIELD_INTEGER: u64 = 999_999_999_999_999;

/// Returns the limit headers of `dialect`.
pub fn headers(dialect: Dialect, states: &[LimitState], now: UnixMs) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    if states.is_empty() {
        return headers;
    }
    push(&mut headers, "ratelimit-policy", &list(states, policy));
    push(&mut headers, "ratelimit", &list(states, service_limit));
    let minute = |limit| states.iter().find(|state| state.limit == limit);
    let (requests, tokens) = (minute(Limit::RequestsPerMinute), minute(Limit::TokensPerMinute));
    match dialect {
        Dialect::OpenAi => {
            let names = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
            push_limit(&mut headers, names, requests, duration);
            let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
            push_limit(&mut headers, names, tokens, duration);
        }
        Dialect::Anthropic => {
            let names = [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ];
            push_limit(&mut headers, names, requests, |reset| instant(now, reset));
            let names = [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ];
            push_limit(&mut headers, names, tokens, |reset| instant(now, reset));
        }
        Dialect::Bedrock => {}
    }
    headers
}

/// Appends a dialect's three headers about a limit, if the limit exists.
fn push_limit(
    headers: &mut Vec<(HeaderName, HeaderValue)>,
    [limit, remaining, reset]: [&'static str; 3],
    state: Option<&LimitState>,
    render_reset: impl Fn(Millis) -> String,
) {
    let Some(state) = state else { return };
    push(headers, limit, &state.cap.to_string());
    push(headers, remaining, &state.remaining().to_string());
    push(headers, reset, &render_reset(state.resets_in));
}

fn list(states: &[LimitState], item: impl Fn(&LimitState) -> String) -> String {
    states.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// Returns an item of `RateLimit-Policy`: the name, the quota, the length of the windows in seconds
/// if they are equally long, and the quota's unit unless it is requests.
fn policy(state: &LimitState) -> String {
    let mut policy = format!(r#""{}";q={}"#, state.limit.name(), state.cap.min(MAX_FIELD_INTEGER));
    if let Some(seconds) = state.limit.period().and_then(Period::seconds) {
        policy.push_str(&format!(";w={seconds}"));
    }
    match state.limit.unit() {
        Unit::Requests => {}
        Unit::Tokens => policy.push_str(r#";qu="tokens""#),
        Unit::Microusd => policy.push_str(r#";qu="microusd""#),
        Unit::ConcurrentRequests => policy.push_str(r#";qu="concurrent-requests""#),
    }
    policy
}

/// Returns an item of `RateLimit`: the name, the remaining quota, and the seconds until all of the
/// quota is free.
fn service_limit(state: &LimitState) -> String {
    let remaining = state.remaining().min(MAX_FIELD_INTEGER);
    format!(r#""{}";r={remaining};t={}"#, state.limit.name(), state.resets_in.as_s_rounded_up())
}

/// Formats a duration as OpenAI does: `6m0s`, `1.5s`, `20ms`.
fn duration(length: Millis) -> String {
    let milliseconds = length.as_ms();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    let (whole, thousandths) = (milliseconds / 1000 % 60, milliseconds % 1000);
    let seconds = match thousandths {
        0 => whole.to_string(),
        _ => format!("{whole}.{thousandths:03}").trim_end_matches('0').to_owned(),
    };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Formats the time after `wait` as Anthropic does (RFC 3339), rounded up to the second. Returns an
/// empty string if the time is out of range.
fn instant(now: UnixMs, wait: Millis) -> String {
    let at_s = (now + wait).as_ms().div_ceil(1000);
    let at = i64::try_from(at_s).ok().and_then(|at_s| OffsetDateTime::from_unix_timestamp(at_s).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(dialect: Dialect, states: &[LimitState]) -> Vec<String> {
        let headers = headers(dialect, states, UnixMs::from_ms(1_000_000_000_250));
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    const STATES: [LimitState; 3] = [
        LimitState { limit: Limit::RequestsPerMinute, cap: 100, used: 50, resets_in: Millis::from_ms(29_001) },
        LimitState { limit: Limit::TokensPerMinute, cap: 9000, used: 9500, resets_in: Millis::from_ms(90_500) },
        LimitState { limit: Limit::InFlight, cap: 40, used: 3, resets_in: Millis::ZERO },
    ];

    #[test]
    fn durations_have_openais_format() {
        let pairs = [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (90_010, "1m30.01s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (86_400_000, "24h0m0s"),
        ];
        for (milliseconds, text) in pairs {
            assert_eq!(duration(Millis::from_ms(milliseconds)), text);
        }
    }

    #[test]
    fn every_dialect_has_all_limits_in_the_draft_fields() {
        let lines = rendered(Dialect::Bedrock, &STATES);
        assert_eq!(
            lines,
            [
                r#"ratelimit-policy: "requests_per_minute";q=100;w=60, "tokens_per_minute";q=9000;w=60;qu="tokens", "in_flight";q=40;qu="concurrent-requests""#,
                r#"ratelimit: "requests_per_minute";r=50;t=30, "tokens_per_minute";r=0;t=91, "in_flight";r=37;t=0"#,
            ]
        );
    }

    #[test]
    fn openai_callers_get_openais_headers() {
        let lines = rendered(Dialect::OpenAi, &STATES);
        assert_eq!(
            lines[2..],
            [
                "x-ratelimit-limit-requests: 100",
                "x-ratelimit-remaining-requests: 50",
                "x-ratelimit-reset-requests: 29.001s",
                "x-ratelimit-limit-tokens: 9000",
                "x-ratelimit-remaining-tokens: 0",
                "x-ratelimit-reset-tokens: 1m30.5s",
            ]
        );
    }

    #[test]
    fn anthropic_resets_are_never_early() {
        let lines = rendered(Dialect::Anthropic, &STATES);
        assert_eq!(lines[2], "anthropic-ratelimit-requests-limit: 100");
        assert_eq!(lines[4], "anthropic-ratelimit-requests-reset: 2001-09-09T01:47:10Z");
    }

    #[test]
    fn without_limits_there_are_no_headers() {
        assert!(rendered(Dialect::OpenAi, &[]).is_empty());
    }

    #[test]
    fn times_out_of_range_do_not_panic() {
        let states = [LimitState { limit: Limit::TokensPerMinute, cap: u64::MAX, used: 0, resets_in: Millis::MAX }];
        assert_eq!(rendered(Dialect::Anthropic, &states).len(), 5);
    }
}
