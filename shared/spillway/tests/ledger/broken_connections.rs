//! Connections that break: a write takes effect once, whether or not its first attempt arrived.

use futures_util::future::join_all;
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use spillway::{
    clock::Clock,
    quota::{Attribute, Charge, Limits, Policy, Settled},
    store::ledger::{Account, HeldReservation, Ledger, ReserveOutcome},
    units::Millis,
};

use crate::{
    breaking_proxy::{Break, BreakingProxy},
    dynamodb::Dynamodb,
    item::policy,
};

/// Number of rounds of concurrent writes.
const ROUNDS: usize = 60;

/// Number of concurrent reservations in a round.
const CONCURRENT: usize = 8;

const CHARGE: Charge = Charge { requests: 1, minute_tokens: 3, day_tokens: 5, cost_microusd: 7, ..Charge::ZERO };

fn account() -> Account {
    let limits = Limits { in_flight: Some(1_000), tokens_per_day: Some(1_000_000), ..Limits::default() };
    Account { name: "T#acme".into(), policy: Policy { version: 1, ..policy(limits, 12) }, shards: 1 }
}

async fn start(dynamodb: &Dynamodb, clock: &Clock) -> (BreakingProxy, Ledger) {
    let proxy = BreakingProxy::start(&dynamodb.url).await;
    let ledger = crate::ledger_at(dynamodb, clock, &proxy.url);
    (proxy, ledger)
}

async fn reserve(ledger: &Ledger, clock: &Clock) -> HeldReservation {
    match ledger.reserve(&account(), CHARGE, clock.now() + Millis::from_s(600)).await.expect("reached") {
        ReserveOutcome::Reserved(held, _) => held,
        outcome => panic!("{outcome:?}"),
    }
}

/// Before each round of writes, the connections break in one of the ways, or not.
#[tokio::test]
async fn writes_of_a_process_take_effect_once_while_connections_break() {
    let dynamodb = crate::start().await;
    let clock = Clock::default();
    let (proxy, ledger) = start(&dynamodb, &clock).await;
    let mut runner = TestRunner::deterministic();
    let ways = select(vec![None, Some(Break::BeforeRequest), Some(Break::BeforeReply)]);
    let mut break_or_not = || {
        if let Some(how) = ways.new_tree(&mut runner).expect("a way").current() {
            proxy.break_connections(how);
        }
    };
    let mut held: Vec<HeldReservation> = Vec::new();
    for _ in 0..ROUNDS {
        break_or_not();
        // Each settlement gives one token back, so a second one would show.
        let charge = Charge { day_tokens: CHARGE.day_tokens - 1, ..CHARGE };
        let settled = Settled { charge, ..Settled::default() };
        let settle = held.drain(..).map(|held| ledger.settle(held, &settled));
        let reserve = (0..CONCURRENT).map(|_| reserve(&ledger, &clock));
        let (settled, reserved) = tokio::join!(join_all(settle), join_all(reserve));
        settled.into_iter().for_each(|settled| settled.expect("reached"));
        held = reserved;
    }
    let image = ledger.images(&account()).await.expect("reached").remove(0);
    let days = image.iter().filter(|(attribute, _)| matches!(attribute, Attribute::Day(_)));
    let tokens: i64 = days.map(|(_, tokens)| tokens).sum();
    let (open, reserved) = (CONCURRENT as u64, (ROUNDS * CONCURRENT) as u64);
    assert_eq!(tokens, (reserved * CHARGE.day_tokens - (reserved - open)) as i64);
    assert_eq!(image.get(Attribute::InFlight), open);
    assert!(proxy.resets() > ROUNDS as u64 / 2, "{} connections broke", proxy.resets());
}

#[tokio::test]
async fn a_write_of_another_process_does_not_disturb_the_second_attempt_of_a_lost_request() {
    let dynamodb = crate::start().await;
    let clock = Clock::default();
    let (proxy, ledger) = start(&dynamodb, &clock).await;
    let other = crate::ledger(&dynamodb, &clock);
    for count in 1..=20 {
        let _first = reserve(&ledger, &clock).await;
        proxy.break_connections(Break::BeforeRequest);
        let (_held, _other) = tokio::join!(reserve(&ledger, &clock), reserve(&other, &clock));
        let image = ledger.images(&account()).await.expect("reached").remove(0);
        assert_eq!(image.get(Attribute::InFlight), 3 * count);
    }
    assert_eq!(proxy.resets(), 20);
}
