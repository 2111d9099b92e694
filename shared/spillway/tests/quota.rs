//! The staircase against a plain list of charges: random programs of reservations, settlements, deaths and waits.

use proptest::prelude::*;
use spillway::quota::{
    Attribute, Burst, Charge, EPOCH_MS, EPOCHS, Image, Limit, Limits, Policy, Reservation, Settled, Verdict, explain,
    reserve, settle, settle_reaped, states, too_large,
};

const START_MS: u64 = 1_764_000_000_000;
const MINUTE_MS: u64 = EPOCHS * EPOCH_MS;

fn policy(limits: Limits, burst_epochs: u64) -> Policy {
    let burst_s = burst_epochs * EPOCH_MS / 1_000;
    let burst = Burst { requests_s: burst_s, tokens_s: burst_s, is_strict: false };
    Policy { limits, version: 1, burst, share_percent: 100 }
}

fn charge(tokens: u64) -> Charge {
    Charge { requests: 1, minute_tokens: tokens, day_tokens: tokens, cost_microusd: tokens }
}

/// One item in memory, driven as `store::ledger` drives the real one.
struct Item {
    policy: Policy,
    image: Image,
    now_ms: u64,
}

enum Answer {
    Admitted(Reservation),
    Refused(Vec<(Limit, u64)>, u64),
}

impl Item {
    fn new(policy: Policy) -> Self {
        Self { policy, image: Image::default(), now_ms: START_MS }
    }

    fn reserve(&mut self, charge: Charge, lives_ms: u64) -> Answer {
        let mut reap = None;
        for _ in 0..100 {
            let mut reservation = Reservation::new(charge, self.now_ms, self.now_ms + lives_ms);
            let before = self.image.clone();
            if self.image.apply(&reserve(&self.policy, &reservation, reap)) {
                reservation.note_stale(&self.image);
                return Answer::Admitted(reservation);
            }
            assert_eq!(self.image, before, "a refusal changes nothing");
            match explain(&self.policy, &charge, &self.image, self.now_ms) {
                Verdict::Refused(refusal) => {
                    let limits = refusal.limits.iter().map(|refused| (refused.limit, refused.cap)).collect();
                    return Answer::Refused(limits, refusal.retry_after_ms());
                }
                Verdict::Reap(slot, count) => reap = Some((slot, count)),
                verdict => panic!("{verdict:?} with no one else writing"),
            }
        }
        panic!("reaping did not end");
    }

    fn admit(&mut self, tokens: u64) -> Reservation {
        match self.reserve(charge(tokens), 60_000) {
            Answer::Admitted(reservation) => reservation,
            Answer::Refused(limits, wait_ms) => panic!("refused by {limits:?} for {wait_ms} ms"),
        }
    }

    fn settle(&mut self, reservation: &Reservation, actual: Charge) -> bool {
        let settled = Settled { charge: actual, ..Settled::default() };
        self.image.apply(&settle(reservation, &settled, self.now_ms)) || {
            reservation.is_dead(self.now_ms) && self.image.apply(&settle_reaped(reservation, &settled, self.now_ms))
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        tokens: u64,
        lives_ms: u64,
    },
    /// Settle one of those under way with this share of its reserve, in percent (over 100: debt).
    Settle {
        which: usize,
        percent: u64,
    },
    /// Give one back whole.
    Undo {
        which: usize,
    },
    /// Its process died: nobody settles it.
    Die {
        which: usize,
    },
    Wait {
        ms: u64,
    },
}

fn step(max_tokens: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..=max_tokens, 1_000u64..40_000).prop_map(|(tokens, lives_ms)| Step::Reserve { tokens, lives_ms }),
        3 => (any::<usize>(), 0u64..160).prop_map(|(which, percent)| Step::Settle { which, percent }),
        1 => any::<usize>().prop_map(|which| Step::Undo { which }),
        1 => any::<usize>().prop_map(|which| Step::Die { which }),
        4 => (0u64..9_000).prop_map(|ms| Step::Wait { ms }),
        1 => (0u64..200_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What was charged when, to judge the item by.
#[derive(Default)]
struct Reference {
    /// When, and the net tokens, of everything ever admitted and not given back.
    charges: Vec<(u64, u64)>,
}

impl Reference {
    /// The most that was charged in `epochs` aligned epochs that end with the one of `now_ms`.
    fn charged(&self, now_ms: u64, epochs: u64) -> u64 {
        let first = (now_ms / EPOCH_MS + 1).saturating_sub(epochs) * EPOCH_MS;
        self.charges.iter().filter(|(at, _)| *at >= first).map(|(_, tokens)| tokens).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_program_breaks_a_limit(
        tokens_per_minute in 10u64..2_000,
        in_flight in 1u64..8,
        burst_epochs in prop_oneof![Just(1), Just(2), Just(EPOCHS)],
        steps in proptest::collection::vec(step(600), 1..120),
    ) {
        let limits = Limits {
            tokens_per_minute: Some(tokens_per_minute), in_flight: Some(in_flight), ..Limits::default()
        };
        let mut item = Item::new(policy(limits, burst_epochs));
        let mut reference = Reference::default();
        let mut running: Vec<(Reservation, usize, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Reserve { tokens, lives_ms } => {
                    if !too_large(&limits, &charge(tokens)).is_empty() { continue; }
                    if let Answer::Admitted(reservation) = item.reserve(charge(tokens), lives_ms) {
                        for age in 1..=EPOCHS {
                            let cap = tokens_per_minute * (age + burst_epochs).min(EPOCHS) / EPOCHS;
                            let held = reference.charged(item.now_ms, age);
                            prop_assert!(held + tokens <= cap.max(tokens), "{held} + {tokens} over {cap} at age {age}");
                            prop_assert!(held == 0 || held + tokens <= cap, "a request over its cap needs an empty window");
                        }
                        reference.charges.push((item.now_ms, tokens));
                        running.push((reservation, reference.charges.len() - 1, item.now_ms + lives_ms));
                        let live = running.iter().filter(|(_, _, ends_ms)| *ends_ms > item.now_ms).count() as u64;
                        prop_assert!(live <= in_flight, "{live} live of {in_flight}");
                    }
                }
                Step::Settle { which, percent } if !running.is_empty() => {
                    let (reservation, index, _) = running.swap_remove(which % running.len());
                    let actual = reservation.charge.minute_tokens * percent / 100;
                    prop_assert!(item.settle(&reservation, charge(actual)));
                    reference.charges[index].1 = actual;
                }
                Step::Undo { which } if !running.is_empty() => {
                    let (reservation, index, _) = running.swap_remove(which % running.len());
                    prop_assert!(item.settle(&reservation, Charge::default()));
                    reference.charges[index].1 = 0;
                }
                Step::Die { which } if !running.is_empty() => {
                    let which = which % running.len();
                    // It stays live until its reservation ends, but nobody will settle it.
                    let (_, _, ends_ms) = running[which];
                    if ends_ms <= item.now_ms { let _ = running.swap_remove(which); }
                }
                Step::Wait { ms } => item.now_ms += ms,
                _ => {}
            }
            for (attribute, value) in item.image.iter() {
                prop_assert!(value >= 0, "{attribute:?} is {value}");
            }
            let slots: i64 = item.image.iter()
                .filter_map(|(attribute, value)| matches!(attribute, Attribute::Slot(_)).then_some(value)).sum();
            prop_assert_eq!(i64::try_from(item.image.get(Attribute::InFlight)).expect("small"), slots);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_refusal_names_the_first_moment_that_admits(
        requests_per_minute in 1u64..20,
        tokens_per_minute in 50u64..2_000,
        burst_epochs in prop_oneof![Just(1), Just(2), Just(EPOCHS)],
        asks in proptest::collection::vec((1u64..800, 0u64..7_000), 1..60),
    ) {
        let limits = Limits {
            requests_per_minute: Some(requests_per_minute),
            tokens_per_minute: Some(tokens_per_minute),
            ..Limits::default()
        };
        let mut item = Item::new(policy(limits, burst_epochs));
        for (tokens, wait_ms) in asks {
            item.now_ms += wait_ms;
            if !too_large(&limits, &charge(tokens)).is_empty() { continue; }
            let Answer::Refused(_, retry_after_ms) = item.reserve(charge(tokens), 60_000) else { continue };
            let refused_ms = item.now_ms;
            item.now_ms = refused_ms + retry_after_ms - 1;
            prop_assert!(matches!(item.reserve(charge(tokens), 60_000), Answer::Refused(..)), "admitted too early");
            item.now_ms = refused_ms + retry_after_ms;
            prop_assert!(matches!(item.reserve(charge(tokens), 60_000), Answer::Admitted(_)), "refused at the named time");
        }
    }

    #[test]
    fn after_a_minute_of_rest_the_whole_burst_is_back(
        tokens_per_minute in 1u64..2_000,
        asks in proptest::collection::vec((1u64..400, 0u64..4_000), 1..40),
    ) {
        let limits = Limits { tokens_per_minute: Some(tokens_per_minute), ..Limits::default() };
        let mut item = Item::new(policy(limits, EPOCHS));
        for (tokens, wait_ms) in asks {
            item.now_ms += wait_ms;
            if too_large(&limits, &charge(tokens)).is_empty() {
                let _ = item.reserve(charge(tokens), 60_000);
            }
        }
        item.now_ms += MINUTE_MS;
        let _ = item.admit(tokens_per_minute);
    }
}

#[test]
fn a_dead_reservation_frees_its_slot() {
    let limits = Limits { in_flight: Some(1), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let dead = item.admit(1);
    item.now_ms += 60_000;
    assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)), "until its slot has ended");
    item.now_ms += 15_000 + 1_000;
    let alive = item.admit(1);
    assert!(dead.is_dead(item.now_ms) && !alive.is_dead(item.now_ms));
    assert!(item.settle(&dead, charge(1)), "its late settle is taken");
    assert_eq!(item.image.get(Attribute::InFlight), 1, "and frees nothing that is another's");
}

#[test]
fn a_second_settle_does_nothing() {
    let limits = Limits { tokens_per_minute: Some(100), in_flight: Some(2), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let reservation = item.admit(80);
    assert!(item.settle(&reservation, charge(30)));
    let after = item.image.clone();
    assert!(!item.settle(&reservation, charge(30)));
    assert_eq!(item.image, after);
}

#[test]
fn a_refusal_names_every_limit_that_stands_in_the_way() {
    let limits =
        Limits { requests_per_minute: Some(1), tokens_per_minute: Some(10), in_flight: Some(1), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let _running = item.admit(10);
    let Answer::Refused(mut named, retry_after_ms) = item.reserve(charge(10), 1_000) else { panic!("admitted") };
    named.sort_by_key(|(limit, _)| limit.name());
    assert_eq!(named, [(Limit::InFlight, 1), (Limit::RequestsPerMinute, 1), (Limit::TokensPerMinute, 10)]);
    assert_eq!(retry_after_ms, MINUTE_MS - START_MS % EPOCH_MS);
}

#[test]
fn the_day_and_the_month_end_at_midnight_utc() {
    let limits = Limits { tokens_per_day: Some(10), microusd_per_month: Some(15), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    // 2026-02-28T23:59:00Z
    item.now_ms = 1_772_323_140_000;
    let _ = item.admit(10);
    let Answer::Refused(named, retry_after_ms) = item.reserve(charge(10), 1_000) else { panic!("admitted") };
    assert_eq!((named.len(), retry_after_ms), (2, 60_000));
    item.now_ms += 60_000;
    let _ = item.admit(10);
    let Answer::Refused(named, retry_after_ms) = item.reserve(charge(6), 1_000) else { panic!("admitted") };
    assert_eq!((named[0].0, retry_after_ms), (Limit::MicrousdPerMonth, 31 * 86_400_000));
}

#[test]
fn older_limits_than_the_item_knows_are_stale() {
    let mut item = Item::new(Policy { version: 7, ..policy(Limits::default(), EPOCHS) });
    let _running = item.admit(1);
    let older = Policy { version: 6, ..item.policy };
    let reservation = Reservation::new(charge(1), item.now_ms, item.now_ms);
    assert!(!item.image.apply(&reserve(&older, &reservation, None)));
    assert_eq!(explain(&older, &charge(1), &item.image, item.now_ms), Verdict::Stale);
}

#[test]
fn a_limit_of_one_admits_one() {
    let limits = Limits {
        requests_per_minute: Some(1),
        tokens_per_minute: Some(1),
        tokens_per_day: Some(1),
        in_flight: Some(1),
        microusd_per_month: Some(1),
    };
    for burst_epochs in [1, EPOCHS] {
        let mut item = Item::new(policy(limits, burst_epochs));
        let _running = item.admit(1);
        assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)));
    }
    assert_eq!(too_large(&limits, &charge(2)).len(), 3, "two can never be admitted");
}

#[test]
fn the_state_adds_up() {
    let limits =
        Limits { requests_per_minute: Some(5), tokens_per_minute: Some(100), in_flight: Some(3), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let first = item.admit(60);
    let _second = item.admit(10);
    assert!(item.settle(&first, charge(20)));
    let used: Vec<(Limit, u64)> =
        states(&item.policy, &item.image, item.now_ms).iter().map(|state| (state.limit, state.used)).collect();
    assert_eq!(used, [(Limit::RequestsPerMinute, 2), (Limit::TokensPerMinute, 30), (Limit::InFlight, 1)]);
    item.now_ms += MINUTE_MS;
    let reset = states(&item.policy, &item.image, item.now_ms);
    assert!(reset[..2].iter().all(|state| state.used == 0 && state.reset_ms == 0));
}

#[test]
fn an_idle_item_forgets_what_it_no_longer_needs() {
    let mut item = Item::new(policy(Limits { tokens_per_minute: Some(10), ..Limits::default() }, EPOCHS));
    for _ in 0..3 {
        let reservation = item.admit(1);
        assert!(item.settle(&reservation, charge(1)));
        item.now_ms += 40 * 86_400_000;
    }
    let reservation = item.admit(1);
    assert!(item.settle(&reservation, charge(1)));
    let attributes = item.image.iter().count();
    assert!(attributes <= 2 * 12 + 2 * 12 + 8, "{attributes} attributes");
}
