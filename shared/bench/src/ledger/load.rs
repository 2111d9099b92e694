//! Who calls, how often and for how much: the load of every scenario.

use fastrand::Rng;
use serde_json::json;
use spillway::{
    chat::Usage,
    pool::{Model, Pool},
    tenant::Tenant,
};

/// What kind of caller a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One request in five seconds.
    Sparse,
    /// Three requests a second, within its limits.
    Medium,
    /// Asks for twice its tokens per minute.
    TokenLimited,
    /// Asks for twice its requests per minute.
    RequestLimited,
    /// Asks for twice what it may have in flight.
    InFlightLimited,
    /// Asks for 2,000 requests a second and may have 1,500.
    Hot,
}

/// How many kinds there are.
pub const KINDS: usize = 6;

/// A tenant and how often it calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What kind of caller it is.
    pub kind: Kind,
    /// Requests a second, on average.
    pub per_s: f64,
    /// Its entry in the registry.
    pub tenant: Tenant,
}

/// One request: what it asks for and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Input tokens, known before the call.
    pub input_tokens: u64,
    /// The output cap, which is reserved.
    pub max_tokens: u64,
    /// Output tokens in the end.
    pub output_tokens: u64,
    /// How long the model takes.
    pub service_us: u64,
    /// Whether whoever serves it dies before it settles.
    pub dies: bool,
}

impl Ask {
    fn draw(demand: &mut Rng) -> Self {
        let max_tokens = [256, 512, 1_024][demand.usize(0..3)];
        Self {
            input_tokens: demand.u64(200..=1_800),
            max_tokens,
            output_tokens: demand.u64(max_tokens / 5..=max_tokens),
            service_us: demand.u64(2_000_000..=4_000_000),
            dies: demand.f64() < DEATHS,
        }
    }

    /// Tokens that are reserved.
    pub fn reserved_tokens(&self) -> u64 {
        self.input_tokens + self.max_tokens
    }

    /// What the model reports.
    pub fn usage(&self) -> Usage {
        Usage { input_tokens: self.input_tokens, output_tokens: self.output_tokens, ..Usage::default() }
    }
}

/// How many of those that serve a request die before they settle it.
const DEATHS: f64 = 0.002;

impl Caller {
    /// Its next request and how long until then, in microseconds.
    pub fn next(&self, demand: &mut Rng) -> (u64, Ask) {
        (exponential(demand, 1e6 / self.per_s) as u64, Ask::draw(demand))
    }
}

/// 300 tenants with about 2,550 requests a second, 2,000 of which come from one of them; with a `divisor`, that part of it.
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

/// One tenant that asks for `per_s` requests a second and may have `limit_per_s`, and whose share of the pools is
/// `committed` tokens per minute.
pub fn hot(per_s: u64, limit_per_s: u64, committed: u64) -> Caller {
    let limits = json!({"requests_per_minute": limit_per_s * 60});
    caller(Kind::Hot, per_s as f64, "hot", &limits, committed)
}

fn caller(kind: Kind, per_s: f64, name: &str, limits: &serde_json::Value, committed: u64) -> Caller {
    let entry = json!({"name": name.to_lowercase(), "limits": limits, "class": "interactive", "version": 1,
        "committed_tokens_per_minute": committed});
    Caller { kind, per_s, tenant: serde_json::from_value(entry).expect("an entry of the registry") }
}

/// A model with a provisioned and an on-demand pool, too small together for what [`many_tenants`] may ask of it. Tenants
/// above their committed share may fill `excess_percent` of each.
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

/// How long one call may take: what a dead request holds its slot for.
pub const TIMEOUT_MS: u64 = 30_000;

/// How long one write to the store takes, there and back: 2.5 ms and an exponential 1.2 ms, and for one in a hundred 8 ms
/// and an exponential 12 ms.
pub fn write_us(chance: &mut Rng) -> u64 {
    let (least, mean) = if chance.f64() < 0.01 { (8_000.0, 12_000.0) } else { (2_500.0, 1_200.0) };
    (least + exponential(chance, mean)) as u64
}

/// How far one clock is off, in microseconds.
pub fn skew_us(chance: &mut Rng) -> i64 {
    chance.i64(-100_000..=100_000)
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
