//! Random programs of requests, settlements, failures and changes of limits.

use proptest::{collection::vec, prelude::*};
use spillway::quota::{Burst, Charge, Limits, Policy};

/// Start of a program, in milliseconds since 1970: in the middle of an epoch, a slot and a day.
pub const START_MS: u64 = 1_764_000_002_500;

/// Maximum clock skew of a process, in milliseconds.
const MAX_SKEW_MS: i64 = 100;

/// Limits of an account in the registry, and its number of shards.
#[derive(Debug, Clone)]
pub struct Plan {
    pub limits: Limits,
    pub burst: Burst,
    pub shards: u64,
}

/// A request for admission.
#[derive(Debug, Clone)]
pub struct Ask {
    pub charge: Charge,
    /// Share of the limits that its class may fill.
    pub share_percent: u64,
    pub lives_ms: u64,
    /// Whether it ends exactly with its slot instead.
    pub fills_slot: bool,
}

/// Outcome of a request's settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Settled,
    /// The store took it, and the reply was lost.
    Ambiguous,
    /// The store retried it internally, and replies with the refusal of the retry.
    SaidRefused,
    /// It never reached the store.
    Lost,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// The requests wait for the same item concurrently. `draw` chooses the item and the second
    /// item.
    Reserve {
        process: usize,
        draw: (u64, u64),
        asks: Vec<Ask>,
    },
    /// As `Reserve` with one request, which stops before it frees a dead slot, and resumes at a
    /// `Free`.
    Hesitate {
        process: usize,
        draw: (u64, u64),
        ask: Ask,
    },
    Free {
        which: usize,
    },
    /// A running request ends with this share of the most that it can cost, in percent (over 100:
    /// debt).
    Settle {
        which: usize,
        percent: u64,
        ending: Ending,
    },
    /// A running request is refunded.
    Undo {
        which: usize,
        ending: Ending,
    },
    /// The process of a running request dies, so the request is never settled.
    Die {
        which: usize,
    },
    Wait {
        ms: u64,
    },
    /// Waits until about the next boundary between epochs.
    WaitForEdge {
        off_ms: i64,
    },
    /// Waits until about the time when the next slot ends, or may be reaped.
    WaitForSlot {
        off_ms: i64,
    },
    /// New limits. The fence reaches this number of items before the operator's process dies.
    Change {
        plan: Plan,
        fenced: usize,
    },
    /// The process reads the limits again.
    Reload {
        process: usize,
    },
}

#[derive(Debug, Clone)]
pub struct Program {
    pub plan: Plan,
    pub skews_ms: [i64; 3],
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn policy(&self, version: u64, share_percent: u64) -> Policy {
        Policy { limits: self.limits, version, burst: self.burst, share_percent }
    }
}

/// Each shard gets at least one of each limit. `quota::shards` gives each at least sixteen
/// requests.
pub fn plan() -> impl Strategy<Value = Plan> {
    let maybe = |max: u64| proptest::option::weighted(0.7, 1..max);
    let limits = (maybe(40), maybe(2_000), maybe(20_000), maybe(9), maybe(20_000));
    let burst_s = || prop_oneof![Just(0), Just(5), Just(60), 0u64..=60];
    let pace = prop_oneof![2 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    (limits, burst_s(), burst_s(), pace, 1u64..=4).prop_map(
        |((requests, tokens, day, in_flight, month), requests_s, tokens_s, (is_strict, carries_over), shards)| {
            let at_least_one_each = |limit: Option<u64>| limit.map(|limit| limit.max(shards));
            let limits = Limits {
                requests_per_minute: at_least_one_each(requests),
                tokens_per_minute: at_least_one_each(tokens),
                tokens_per_day: at_least_one_each(day),
                in_flight: at_least_one_each(in_flight),
                microusd_per_month: at_least_one_each(month),
            };
            Plan { limits, burst: Burst { requests_s, tokens_s, is_strict, carries_over }, shards }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let unreserved_tokens = || prop_oneof![2 => Just(0), 1 => 0u64..250];
    let charge = prop_oneof![3 => 0u64..120, 1 => 0u64..1_000]
        .prop_flat_map(move |tokens| (Just(tokens), 0..=tokens, 0u64..700, unreserved_tokens()))
        .prop_map(|(minute_tokens, less, cost_microusd, unreserved_tokens)| Charge {
            requests: 1,
            minute_tokens,
            day_tokens: minute_tokens - less / 2,
            cost_microusd,
            unreserved_tokens,
        });
    let share = prop_oneof![4 => Just(100u64), 1 => Just(90), 1 => Just(81), 1 => Just(70)];
    let requests = prop_oneof![9 => Just(1u64), 1 => 2u64..10];
    (charge, requests, share, 1_000u64..40_000, proptest::bool::weighted(0.3)).prop_map(
        |(charge, requests, share_percent, lives_ms, fills_slot)| {
            let charge = Charge { requests, ..charge };
            Ask { charge, share_percent, lives_ms, fills_slot }
        },
    )
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        6 => Just(Ending::Settled),
        1 => Just(Ending::Ambiguous),
        1 => Just(Ending::SaidRefused),
        1 => Just(Ending::Lost),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let process = || 0usize..3;
    let draw = || (0u64..12, 0u64..12);
    let which = any::<usize>;
    prop_oneof![
        10 => (process(), draw(), ask()).prop_map(|(process, draw, ask)| Step::Reserve { process, draw, asks: vec![ask] }),
        4 => (process(), draw(), vec(ask(), 2..6)).prop_map(|(process, draw, asks)| Step::Reserve { process, draw, asks }),
        2 => (process(), draw(), ask()).prop_map(|(process, draw, ask)| Step::Hesitate { process, draw, ask }),
        2 => which().prop_map(|which| Step::Free { which }),
        6 => (which(), 0u64..160, ending()).prop_map(|(which, percent, ending)| Step::Settle { which, percent, ending }),
        1 => (which(), ending()).prop_map(|(which, ending)| Step::Undo { which, ending }),
        1 => which().prop_map(|which| Step::Die { which }),
        4 => (0u64..9_000).prop_map(|ms| Step::Wait { ms }),
        3 => (-150i64..150).prop_map(|off_ms| Step::WaitForEdge { off_ms }),
        2 => prop_oneof![-150i64..150, 850i64..1_150].prop_map(|off_ms| Step::WaitForSlot { off_ms }),
        1 => prop_oneof![5 => 0u64..200_000, 1 => 0u64..3_000_000_000].prop_map(|ms| Step::Wait { ms }),
        1 => (plan(), 0usize..8).prop_map(|(plan, fenced)| Step::Change { plan, fenced }),
        1 => process().prop_map(|process| Step::Reload { process }),
    ]
}

/// Generates programs of up to `max_steps` steps.
pub fn program(max_steps: usize) -> impl Strategy<Value = Program> {
    let skew = || prop_oneof![Just(-MAX_SKEW_MS), Just(0), Just(MAX_SKEW_MS), -MAX_SKEW_MS..=MAX_SKEW_MS];
    (plan(), [skew(), skew(), skew()], vec(step(), 1..=max_steps)).prop_map(|(plan, skews_ms, steps)| Program {
        plan,
        skews_ms,
        steps,
    })
}
