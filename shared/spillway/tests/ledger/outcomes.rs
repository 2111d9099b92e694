//! The ledger agrees with the same algorithm in memory, at the times that the ledger chose.

use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use spillway::{
    clock::Clock,
    quota::{Attribute, Charge, EPOCH, Limit, Limits, Policy, Settled, too_large},
    store::ledger::{Account, HeldReservation, Ledger, ReserveOutcome},
    units::{Millis, UnixMs},
};

use crate::{
    item::{Answer, Item, policy},
    world::plan,
};

const PROGRAMS: usize = 24;

#[derive(Debug, Clone)]
enum Step {
    Reserve { charge: Charge, lives_ms: u64 },
    Settle { which: usize, percent: u64 },
    Die { which: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || 0u64..200;
    let charge = (amount(), amount(), amount()).prop_map(|(minute_tokens, day_tokens, cost_microusd)| Charge {
        requests: 1,
        minute_tokens,
        day_tokens,
        cost_microusd,
        ..Charge::ZERO
    });
    prop_oneof![
        6 => (charge, 20_000u64..60_000).prop_map(|(charge, lives_ms)| Step::Reserve { charge, lives_ms }),
        3 => (any::<usize>(), 0u64..160).prop_map(|(which, percent)| Step::Settle { which, percent }),
        1 => any::<usize>().prop_map(|which| Step::Die { which }),
        3 => (0u64..9_000).prop_map(|ms| Step::Wait { ms }),
        1 => (60_000u64..120_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// The ledger, and the item in memory to compare it with.
struct Pair {
    ledger: Ledger,
    clock: Clock,
    account: Account,
    item: Item,
    held: Vec<HeldReservation>,
}

impl Pair {
    /// Returns whether an epoch has ended since `before`: then the epoch of the write is unknown.
    fn crossed(&self, before: UnixMs) -> bool {
        before / EPOCH != self.clock.now() / EPOCH
    }

    /// Returns false if the comparison cannot continue.
    async fn reserve(&mut self, charge: Charge, lives_ms: u64) -> bool {
        let before = self.clock.now();
        let expires_at = before + Millis::from_ms(lives_ms);
        match self.ledger.reserve(&self.account, charge, expires_at).await.expect("reached") {
            ReserveOutcome::Reserved(held, _) => {
                self.item.now = held.reservation().at;
                let answer = self.item.reserve(charge, (expires_at - self.item.now).as_ms());
                let Answer::Admitted(reservation) = answer else { panic!("{charge:?} is refused in memory") };
                assert_eq!(&reservation, held.reservation());
                self.held.push(held);
            }
            ReserveOutcome::Refused(refusal, _) => {
                if self.crossed(before) {
                    return false;
                }
                let after = self.clock.now();
                self.item.now = before;
                let answer = self.item.reserve(charge, lives_ms);
                let Answer::Refused(limits, retry_after) = answer else { panic!("{charge:?} is admitted in memory") };
                let named: Vec<(Limit, u64)> =
                    refusal.limits.iter().map(|refused| (refused.limit, refused.cap)).collect();
                assert_eq!(named, limits);
                let is_exact = named.iter().all(|(limit, _)| *limit != Limit::InFlight);
                let named_wait = refusal.retry_after();
                let passed = retry_after - named_wait;
                assert!(!is_exact || passed <= after - before, "{named_wait} ms, {retry_after} ms in memory");
            }
            outcome => panic!("{outcome:?} without another process"),
        }
        true
    }

    async fn settle(&mut self, which: usize, percent: u64) -> bool {
        if self.held.is_empty() {
            return true;
        }
        let held = self.held.swap_remove(which % self.held.len());
        let reservation = held.reservation().clone();
        let reserved = reservation.charge;
        let charge = Charge { minute_tokens: reserved.minute_tokens * percent / 100, ..reserved };
        self.item.now = self.clock.now();
        self.ledger.settle(held, &Settled { charge, ..Settled::default() }).await.expect("reached");
        self.item.settle(&reservation, charge);
        !self.crossed(self.item.now)
    }

    async fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Reserve { charge, .. } if !too_large(&self.account.policy.limits, &charge).is_empty() => true,
            Step::Reserve { charge, lives_ms } => self.reserve(charge, lives_ms).await,
            Step::Settle { which, percent } => self.settle(which, percent).await,
            Step::Die { which } => {
                if !self.held.is_empty() {
                    drop(self.held.swap_remove(which % self.held.len()));
                }
                true
            }
            Step::Wait { ms } => {
                self.clock.advance(Millis::from_ms(ms));
                true
            }
        }
    }
}

#[tokio::test]
async fn the_ledger_agrees_with_the_algorithm_in_memory() {
    let dynamodb = crate::start().await;
    let mut runner = TestRunner::deterministic();
    let programs = (plan(), vec(step(), 10..40));
    let mut compared = 0;
    for number in 0..PROGRAMS {
        let (plan, steps) = programs.new_tree(&mut runner).expect("a program").current();
        let (clock, policy) = (Clock::default(), plan.policy(1, 100));
        let account = Account { name: format!("T#{number}"), policy, shards: 1 };
        let ledger = crate::ledger(&dynamodb, &clock);
        let mut pair = Pair { ledger, clock, account, item: Item::new(policy), held: Vec::new() };
        for step in steps {
            if !pair.take(step).await {
                break;
            }
            let images = pair.ledger.images(&pair.account).await.expect("reached");
            assert_eq!(images, [pair.item.image.clone()], "program {number}");
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared} steps compared");
}

const ONE: Charge = Charge { requests: 1, ..Charge::ZERO };

fn account(version: u64, in_flight: u64) -> Account {
    let limits = Limits { in_flight: Some(in_flight), ..Limits::default() };
    Account { name: "T#acme".into(), policy: Policy { version, ..policy(limits, 12) }, shards: 1 }
}

async fn reserved(ledger: &Ledger, clock: &Clock, account: &Account) -> HeldReservation {
    match ledger.reserve(account, ONE, clock.now() + Millis::from_s(60)).await.expect("reached") {
        ReserveOutcome::Reserved(held, _) => held,
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn dead_requests_in_several_slots_do_not_block_a_lower_limit() {
    let dynamodb = crate::start().await;
    let clock = Clock::default();
    let ledger = crate::ledger(&dynamodb, &clock);
    for _ in 0..6 {
        let _dead = reserved(&ledger, &clock, &account(1, 6)).await;
        clock.advance(Millis::from_s(15));
    }
    clock.advance(Millis::from_s(120));
    let lower = account(2, 1);
    ledger.fence(&lower, 1).await.expect("reached");
    let _alive = reserved(&ledger, &clock, &lower).await;
    let outcome = ledger.reserve(&lower, ONE, clock.now() + Millis::from_s(60)).await.expect("reached");
    assert!(matches!(outcome, ReserveOutcome::Refused(..)), "{outcome:?}");
    assert_eq!(ledger.images(&lower).await.expect("reached")[0].get(Attribute::InFlight), 1);
}

#[tokio::test]
async fn a_late_settlement_without_a_correction_removes_stale_attributes() {
    let dynamodb = crate::start().await;
    let (clock, account) = (Clock::default(), account(1, 1));
    let ledger = crate::ledger(&dynamodb, &clock);
    let first = reserved(&ledger, &clock, &account).await;
    ledger.settle(first, &Settled { charge: ONE, ..Settled::default() }).await.expect("reached");
    clock.advance(Millis::from_s(1_000));
    let late = reserved(&ledger, &clock, &account).await;
    let stale = late.reservation().stale.clone();
    assert!(!stale.is_empty());
    clock.advance(Millis::from_s(200));
    let _reaps_it = reserved(&ledger, &clock, &account).await;
    ledger.settle(late, &Settled { charge: ONE, ..Settled::default() }).await.expect("taken");
    let images = ledger.images(&account).await.expect("reached");
    assert!(images[0].iter().all(|(attribute, _)| !stale.contains(&attribute)));
}
