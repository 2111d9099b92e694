//! Examples of the staircase algorithm.

use spillway::{
    quota::{
        Attribute, EPOCH, EPOCHS, Limit, Limits, Policy, REAP_MARGIN, Reservation, Verdict, explain, reserve, states,
        too_large,
    },
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, charge, policy},
    world::{MINUTE_MS, START_MS},
};

const DAY: Millis = Millis::from_s(24 * 60 * 60);

#[test]
fn a_dead_reservation_frees_its_slot() {
    let limits = Limits { in_flight: Some(1), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let dead = item.admit(1);
    item.now += Millis::from_s(60);
    assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)), "until its slot has ended");
    item.now += Millis::from_s(15) + REAP_MARGIN;
    let alive = item.admit(1);
    assert!(dead.is_dead(item.now) && !alive.is_dead(item.now));
    assert!(item.settle(&dead, charge(1)), "its late settle is taken");
    assert_eq!(item.image.get(Attribute::InFlight), 1, "and does not free the other slot");
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
fn a_refusal_names_every_limit_that_refuses() {
    let limits =
        Limits { requests_per_minute: Some(1), tokens_per_minute: Some(10), in_flight: Some(1), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let _running = item.admit(10);
    let Answer::Refused(mut named, retry_after) = item.reserve(charge(10), 1_000) else { panic!("admitted") };
    named.sort_by_key(|(limit, _)| limit.name());
    assert_eq!(named, [(Limit::InFlight, 1), (Limit::RequestsPerMinute, 1), (Limit::TokensPerMinute, 10)]);
    assert_eq!(retry_after, Millis::from_ms(MINUTE_MS) - UnixMs::from_ms(START_MS) % EPOCH);
}

#[test]
fn the_day_and_the_month_end_at_midnight_utc() {
    let limits = Limits { tokens_per_day: Some(10), microusd_per_month: Some(15), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    // 2026-02-28T23:59:00Z
    item.now = UnixMs::from_ms(1_772_323_140_000);
    let _ = item.admit(10);
    let Answer::Refused(named, retry_after) = item.reserve(charge(10), 1_000) else { panic!("admitted") };
    assert_eq!((named.len(), retry_after), (2, Millis::from_s(60)));
    item.now += Millis::from_s(60);
    let _ = item.admit(10);
    let Answer::Refused(named, retry_after) = item.reserve(charge(6), 1_000) else { panic!("admitted") };
    assert_eq!((named[0].0, retry_after), (Limit::MicrousdPerMonth, DAY * 31));
}

#[test]
fn older_limits_than_the_item_knows_are_stale() {
    let mut item = Item::new(Policy { version: 7, ..policy(Limits::default(), EPOCHS) });
    let _running = item.admit(1);
    let older = Policy { version: 6, ..item.policy };
    let reservation = Reservation::new(&older, charge(1), item.now, item.now);
    assert!(!item.image.apply(&reserve(&older, &reservation, None)));
    assert_eq!(explain(&older, &charge(1), &item.image, item.now), Verdict::Stale);
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
fn states_show_reservations_and_settlements() {
    let limits =
        Limits { requests_per_minute: Some(5), tokens_per_minute: Some(100), in_flight: Some(3), ..Limits::default() };
    let mut item = Item::new(policy(limits, EPOCHS));
    let first = item.admit(60);
    let _second = item.admit(10);
    assert!(item.settle(&first, charge(20)));
    let used: Vec<(Limit, u64)> =
        states(&item.policy, &item.image, item.now).iter().map(|state| (state.limit, state.used)).collect();
    assert_eq!(used, [(Limit::RequestsPerMinute, 2), (Limit::TokensPerMinute, 30), (Limit::InFlight, 1)]);
    item.now += Millis::from_ms(MINUTE_MS);
    let reset = states(&item.policy, &item.image, item.now);
    assert!(reset[..2].iter().all(|state| state.used == 0 && state.resets_in.is_zero()));
}

#[test]
fn an_idle_item_removes_attributes_out_of_use() {
    let mut item = Item::new(policy(Limits { tokens_per_minute: Some(10), ..Limits::default() }, EPOCHS));
    for _ in 0..3 {
        let reservation = item.admit(1);
        assert!(item.settle(&reservation, charge(1)));
        item.now += DAY * 40;
    }
    let reservation = item.admit(1);
    assert!(item.settle(&reservation, charge(1)));
    let attributes = item.image.iter().count();
    assert!(attributes <= 2 * 12 + 2 * 12 + 8, "{attributes} attributes");
}

#[test]
fn a_ring_of_dead_reservations_frees_itself_under_a_lower_limit() {
    let limits = |in_flight| Limits { in_flight: Some(in_flight), ..Limits::default() };
    let mut item = Item::new(policy(limits(6), EPOCHS));
    for number in 0..6 {
        let _dead = item.admit(number);
        item.now += Millis::from_s(5);
    }
    item.policy = Policy { version: 2, ..policy(limits(1), EPOCHS) };
    assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)), "they are alive");
    item.now += Millis::from_s(60 + 15) + REAP_MARGIN;
    let alive = item.admit(1);
    assert_eq!(item.image.get(Attribute::InFlight), 1);
    assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)));
    assert!(item.settle(&alive, charge(1)));
}

#[test]
fn live_requests_that_fill_a_lower_limit_refuse_despite_dead_ones() {
    let limits = |in_flight| Limits { in_flight: Some(in_flight), ..Limits::default() };
    let mut item = Item::new(policy(limits(6), EPOCHS));
    let _dead = item.admit(1);
    item.now += Millis::from_s(60);
    for _ in 0..3 {
        let _alive = item.admit(1);
    }
    item.now += Millis::from_s(15) + REAP_MARGIN;
    item.policy = Policy { version: 2, ..policy(limits(3), EPOCHS) };
    assert!(matches!(item.reserve(charge(1), 1_000), Answer::Refused(..)));
}
