//! Load of the scenarios: tenants, request rates and request sizes.

use std::ops::RangeInclusive;

use fastrand::Rng;
use serde_json::json;
use spillway::{
    pool::{Model, Pool},
    tenant::Tenant,
    usage::Usage,
};

/// Kind of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends a request every five seconds.
    Sparse,
    /// Sends three requests a second, within its limits.
    Medium,
    /// Needs twice its tokens per minute.
    TokenLimited,
    /// Sends twice its requests per minute.
    RequestLimited,
    /// Needs twice its requests in flight.
    InFlightLimited,
    /// Sends 2,000 requests a second with a limit of 1,500.
    Hot,
}

/// Number of kinds.
pub const KINDS: usize = 6;

/// A tenant and its request rate.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Kind of the tenant.
    pub kind: Kind,
    /// Mean requests per second.
    pub per_s: f64,
    /// Its entry in the registry.
    pub tenant: Tenant,
    /// Its right-sizing; `None` if it has none.
    pub sizing: Option<Sizing>,
}

/// Right-sizing of a caller, and its answers.
#[derive(Debug, Clone)]
pub struct Sizing {
    /// Output tokens that are reserved, of a maximum of [`MAX_SIZED_TOKENS`].
    pub reserved_tokens: u64,
    /// Actual output tokens.
    pub output_tokens: RangeInclusive<u64>,
    /// Whether the tokens that are not reserved are bounded.
    pub is_bounded: bool,
}

/// Maximum output tokens of a request of a caller with right-sizing.
pub const MAX_SIZED_TOKENS: u64 = 8_000;

/// A request and its fate.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Input tokens, known before the call.
    pub input_tokens: u64,
    /// Output tokens that are reserved.
    pub reserved_output: u64,
    /// Further output tokens that the request may use, as far as they are counted.
    pub unreserved_output: u64,
    /// Actual output tokens.
    pub output_tokens: u64,
    /// Duration of the model call.
    pub service_us: u64,
    /// Whether its process dies before it settles.
    pub dies: bool,
}

impl Ask {
    fn draw(demand: &mut Rng) -> Self {
        let max_tokens = [256, 512, 1_024][demand.usize(0..3)];
        Self {
            input_tokens: demand.u64(200..=1_800),
            reserved_output: max_tokens,
            unreserved_output: 0,
            output_tokens: demand.u64(max_tokens / 5..=max_tokens),
            service_us: demand.u64(2_000_000..=4_000_000),
            dies: demand.f64() < DEATH_SHARE,
        }
    }

    fn draw_sized(demand: &mut Rng, sizing: &Sizing) -> Self {
        let unreserved = MAX_SIZED_TOKENS - sizing.reserved_tokens;
        Self {
            input_tokens: demand.u64(100..=300),
            reserved_output: sizing.reserved_tokens,
            unreserved_output: if sizing.is_bounded { unreserved } else { 0 },
            output_tokens: demand.u64(sizing.output_tokens.clone()),
            service_us: demand.u64(2_000_000..=4_000_000),
            dies: demand.f64() < DEATH_SHARE,
        }
    }

    /// Reserved tokens.
    pub fn reserved_tokens(&self) -> u64 {
        self.input_tokens + self.reserved_output
    }

    /// Usage that the model reports.
    pub fn usage(&self) -> Usage {
        Usage { input_tokens: self.input_tokens, output_tokens: self.output_tokens, ..Usage::default() }
    }
}

/// Share of requests that lose their process before they are settled.
const DEATH_SHARE: f64 = 0.002;

impl Caller {
    /// Draws the time until its next request, in microseconds, and the request.
    pub fn next(&self, demand: &mut Rng) -> (u64, Ask) {
        let in_us = exponential(demand, 1e6 / self.per_s) as u64;
        let ask = match &self.sizing {
            Some(sizing) => Ask::draw_sized(demand, sizing),
            None => Ask::draw(demand),
        };
        (in_us, ask)
    }
}

/// Returns 300 tenants with about 2,550 requests a second, 2,000 of them from a hot tenant. The
/// numbers are divided by `divisor`.
pub fn many_tenants(divisor: u64) -> Vec<Caller> {
    let groups = [
        (Kind::Sparse, 200, 0.2, json!({"requests_per_minute": 600, "tokens_per_minute": 1_000_000})),
        (Kind::Medium, 40, 3.0, json!({"requests_per_minute": 600, "tokens_per_minute": 1_000_000})),
        (Kind::TokenLimited, 40, 5.0, json!({"tokens_per_minute": 200_000})),
        (Kind::RequestLimited, 17, 8.0, json!({"requests_per_minute": 240})),
        (Kind::InFlightLimited, 2, 27.0, json!({"in_flight": 40})),
    ];
    let mut callers = vec![hot(2_000 / divisor, 1_500 / divisor, 20_000_000 / divisor)];
    for (kind, count, per_s, limits) in groups {
        for index in 0..(count / divisor).max(1) {
            callers.push(caller(kind, per_s, &format!("{kind:?}-{index}"), &limits, 3_000_000));
        }
    }
    callers
}

/// Returns a tenant that sends `per_s` requests a second with a limit of `limit_per_s`, and with a
/// committed share of `committed` tokens per minute of the pools.
pub fn hot(per_s: u64, limit_per_s: u64, committed: u64) -> Caller {
    let limits = json!({"requests_per_minute": limit_per_s * 60});
    caller(Kind::Hot, per_s as f64, "hot", &limits, committed)
}

fn caller(kind: Kind, per_s: f64, name: &str, limits: &serde_json::Value, committed: u64) -> Caller {
    let entry = json!({"name": name.to_lowercase(), "limits": limits, "class": "interactive", "version": 1,
        "committed_tokens_per_minute": committed});
    Caller { kind, per_s, tenant: serde_json::from_value(entry).expect("a valid tenant"), sizing: None }
}

/// Returns a tenant with 200,000 tokens per minute that sends `per_s` requests a second.
pub fn sized(per_s: f64, sizing: Sizing) -> Caller {
    let limits = json!({"tokens_per_minute": 200_000});
    Caller { sizing: Some(sizing), ..caller(Kind::TokenLimited, per_s, "sized", &limits, 3_000_000) }
}

/// Returns a model with a provisioned and an on-demand pool, which are together too small for the
/// load of [`many_tenants`]. Tenants above their committed share may fill `excess_percent` of each
/// pool.
pub fn two_pools(divisor: u64, excess_percent: u64) -> Model {
    let pool = |name: &str, kind: &str, tokens: u64| -> Pool {
        let entry = json!({"name": name, "kind": kind, "model_id": "m", "excess_percent": excess_percent,
            "limits": {"tokens_per_minute": tokens / divisor}});
        serde_json::from_value(entry).expect("a pool")
    };
    let ladder = vec![pool("provisioned", "provisioned", 40_000_000), pool("on-demand", "on_demand", 60_000_000)];
    let entry = json!({"name": "model", "version": 1, "timeout_ms": TIMEOUT_MS, "ladder": ladder});
    serde_json::from_value(entry).expect("a model")
}

/// Maximum duration of a call, for which a dead request holds its slot.
pub const TIMEOUT_MS: u64 = 30_000;

/// Draws the round-trip time of a write: 2.5 ms plus an exponential 1.2 ms, and for 1 % of the
/// writes 8 ms plus an exponential 12 ms.
pub fn write_us(rng: &mut Rng) -> u64 {
    let (minimum, mean) = if rng.f64() < 0.01 { (8_000.0, 12_000.0) } else { (2_500.0, 1_200.0) };
    (minimum + exponential(rng, mean)) as u64
}

/// Draws a clock skew in microseconds.
pub fn skew_us(rng: &mut Rng) -> i64 {
    rng.i64(-100_000..=100_000)
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
