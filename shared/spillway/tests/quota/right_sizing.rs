//! Right-sized requests: what is not reserved is bounded, whatever the requests use.

use std::ops::Range;

use proptest::{collection::vec, prelude::*};
use spillway::{
    quota::{Attribute, Charge, EPOCHS, Limits, Reservation, reserve, states},
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, charge, policy},
    world::{EPOCH_MS, MINUTE_MS},
};

/// Duration of the longest call.
const MAX_CALL_MS: u64 = 15 * MINUTE_MS;

const LIMITS: Limits = Limits {
    requests_per_minute: None,
    tokens_per_minute: Some(1_000),
    tokens_per_day: Some(20_000),
    in_flight: None,
    microusd_per_month: Some(50_000),
};

/// Returns the charge of a request that reserves `reserved` of the `max` tokens that it may use.
/// Money is reserved for all of them.
fn sized(reserved: u64, max: u64) -> Charge {
    Charge { unreserved_tokens: max - reserved, cost_microusd: max, ..charge(reserved) }
}

#[derive(Debug, Clone)]
enum Step {
    /// Asks this many times at once for `max` tokens, of which a share is reserved.
    Ask {
        times: usize,
        max: u64,
        reserved_percent: u64,
    },
    /// The oldest requests end, with this share of what they may use.
    End {
        times: usize,
        percent: u64,
    },
    /// The process of a running request dies. It used all that it may use.
    Die {
        which: usize,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1usize..12, 1u64..=500, 0u64..=100)
            .prop_map(|(times, max, reserved_percent)| Step::Ask { times, max, reserved_percent }),
        4 => (1usize..20, 0u64..=100).prop_map(|(times, percent)| Step::End { times, percent }),
        1 => any::<usize>().prop_map(|which| Step::Die { which }),
        2 => (0u64..6_000).prop_map(|ms| Step::Wait { ms }),
        2 => (50_000u64..70_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// Requests on an item. They know what they have really used.
struct Requests {
    item: Item,
    running: Vec<(Reservation, u64)>,
    /// Time of admission and tokens of each request that has ended or died.
    used: Vec<(UnixMs, u64)>,
}

impl Requests {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask { times, max, reserved_percent } => {
                for _ in 0..times {
                    let asked = self.item.reserve(sized(max * reserved_percent / 100, max), MAX_CALL_MS);
                    if let Answer::Admitted(reservation) = asked {
                        self.running.push((reservation, max));
                    }
                }
            }
            Step::End { times, percent } => {
                for (reservation, max) in self.running.drain(..times.min(self.running.len())) {
                    let tokens = max * percent / 100;
                    assert!(self.item.settle(&reservation, charge(tokens)));
                    self.used.push((reservation.at, tokens));
                }
            }
            Step::Die { which } if !self.running.is_empty() => {
                let (reservation, max) = self.running.swap_remove(which % self.running.len());
                self.used.push((reservation.at, max));
            }
            Step::Die { .. } => {}
            Step::Wait { ms } => self.item.now += Millis::from_ms(ms),
        }
        // No call outlives its deadline.
        let deadline = self.item.now - Millis::from_ms(MAX_CALL_MS);
        let is_over = |(held, _): &(Reservation, u64)| held.at <= deadline;
        let (over, running): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(is_over);
        self.running = running;
        for (reservation, max) in over {
            assert!(self.item.settle(&reservation, charge(max)));
            self.used.push((reservation.at, max));
        }
    }

    /// Returns the tokens that requests admitted in these epochs have used.
    fn used_in(&self, epochs: Range<u64>) -> u64 {
        let is_in = |(at, _): &&(UnixMs, u64)| epochs.contains(&(at.as_ms() / EPOCH_MS));
        self.used.iter().filter(is_in).map(|(_, tokens)| tokens).sum()
    }
}

proptest! {
    #![proptest_config(crate::cases(3_000))]

    #[test]
    fn no_window_is_used_beyond_twice_its_limit_and_no_budget_is_exceeded(steps in vec(step(), 1..60)) {
        let item = Item::new(policy(LIMITS, EPOCHS));
        let start = item.now.as_ms() / EPOCH_MS;
        let mut requests = Requests { item, running: Vec::new(), used: Vec::new() };
        for step in &steps {
            requests.take(step);
        }
        requests.take(&Step::End { times: usize::MAX, percent: 100 });
        let end = requests.item.now.as_ms() / EPOCH_MS;
        for window in start + 1 - EPOCHS..=end {
            let used = requests.used_in(window..window + EPOCHS);
            prop_assert!(used <= 2 * 1_000, "{used} tokens in the minute from {window}");
        }
        let of_day = requests.used_in(0..u64::MAX);
        prop_assert!(of_day <= 2 * 20_000, "{of_day} tokens on the day");
        prop_assert!(of_day <= 50_000, "the month");
        for state in states(&requests.item.policy, &requests.item.image, requests.item.now) {
            prop_assert!(state.limit.name() != "microusd_per_month" || state.used <= state.cap, "{state:?}");
        }
    }
}

#[test]
fn a_request_beyond_the_bound_is_reserved_in_full() {
    let mut item = Item::new(policy(Limits { tokens_per_minute: Some(1_000), ..Limits::default() }, EPOCHS));
    let mut reserved = Vec::new();
    while let Answer::Admitted(reservation) = item.reserve(sized(10, 300), 60_000) {
        reserved.push(reservation.charge.minute_tokens);
    }
    assert_eq!(reserved, [10, 10, 10, 300, 300, 300]);
}

#[test]
fn the_bound_holds_in_a_window_over_the_edge_of_a_minute() {
    let mut item = Item::new(policy(Limits { tokens_per_minute: Some(1_000), ..Limits::default() }, EPOCHS));
    item.now = UnixMs::from_ms(item.now.as_ms().next_multiple_of(MINUTE_MS) - 1);
    let mut unreserved = Vec::new();
    for _ in 0..2 {
        let Answer::Admitted(reservation) = item.reserve(sized(10, 700), 60_000) else { panic!("refused") };
        unreserved.push(reservation.charge.unreserved_tokens);
        item.now += Millis::from_ms(1);
    }
    assert_eq!(unreserved, [690, 0]);
}

#[test]
fn an_ended_request_makes_room_for_unreserved_tokens_and_a_dead_one_does_within_two_minutes() {
    let mut item = Item::new(policy(Limits { tokens_per_minute: Some(1_000), ..Limits::default() }, EPOCHS));
    let reserve = |item: &mut Item| match item.reserve(sized(10, 900), 60_000) {
        Answer::Admitted(reservation) => reservation,
        Answer::Refused(limits, _) => panic!("{limits:?}"),
    };
    let first = reserve(&mut item);
    assert_eq!(first.charge.unreserved_tokens, 890);
    assert!(item.settle(&first, charge(5)));
    let dead = reserve(&mut item);
    assert_eq!(dead.charge.unreserved_tokens, 890);
    assert_eq!(reserve(&mut item).charge, charge(900));
    item.now += Millis::from_ms(2 * MINUTE_MS);
    assert_eq!(reserve(&mut item).charge.unreserved_tokens, 890);
}

#[test]
fn a_request_that_is_reserved_in_full_writes_no_counter_of_unreserved_tokens() {
    let policy = policy(LIMITS, EPOCHS);
    let reservation = Reservation::new(&policy, charge(10), UnixMs::from_ms(MINUTE_MS), UnixMs::from_ms(2 * MINUTE_MS));
    let write = reserve(&policy, &reservation, None);
    let is_unreserved = |attribute| matches!(attribute, Attribute::Unreserved(_));
    assert!(!write.conditions.iter().any(|condition| is_unreserved(condition.attribute())));
    assert!(!write.updates.iter().any(|update| is_unreserved(update.attribute())));
}
