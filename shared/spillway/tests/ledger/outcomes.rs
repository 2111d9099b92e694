//! The ledger says what the same algorithm says in memory, at the moments that the ledger chose.

use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use spillway::{
    clock::Clock,
    quota::{Attribute, Charge, EPOCH_MS, Limit, Limits, Policy, Settled, too_large},
    store::ledger::{Account, Held, Ledger, Outcome},
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
    });
    prop_oneof![
        6 => (charge, 20_000u64..60_000).prop_map(|(charge, lives_ms)| Step::Reserve { charge, lives_ms }),
        3 => (any::<usize>(), 0u64..160).prop_map(|(which, percent)| Step::Settle { which, percent }),
        1 => any::<usize>().prop_map(|which| Step::Die { which }),
        3 => (0u64..9_000).prop_map(|ms| Step::Wait { ms }),
        1 => (60_000u64..120_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// The ledger and the item in memory that it is compared with.
struct Pair {
    ledger: Ledger,
    clock: Clock,
    account: Account,
    item: Item,
    held: Vec<Held>,
}

impl Pair {
    /// Whether an epoch ended while something was under way: then nobody knows which one it was stamped with.
    fn crossed(&self, before_ms: u64) -> bool {
        before_ms / EPOCH_MS != self.clock.now_ms() / EPOCH_MS
    }

    /// Returns false if the comparison cannot go on.
    async fn reserve(&mut self, charge: Charge, lives_ms: u64) -> bool {
        let before_ms = self.clock.now_ms();
        let expires_ms = before_ms + lives_ms;
        match self.ledger.reserve(&self.account, charge, expires_ms).await.expect("reached") {
            Outcome::Reserved(held, _) => {
                self.item.now_ms = held.reservation().at_ms;
                let answer = self.item.reserve(charge, expires_ms - self.item.now_ms);
                let Answer::Admitted(reservation) = answer else { panic!("{charge:?} is refused in memory") };
                assert_eq!(&reservation, held.reservation());
                self.held.push(held);
            }
            Outcome::Refused(refusal, _) => {
                if self.crossed(before_ms) {
                    return false;
                }
                let after_ms = self.clock.now_ms();
                self.item.now_ms = before_ms;
                let answer = self.item.reserve(charge, lives_ms);
                let Answer::Refused(limits, retry_after_ms) = answer else {
                    panic!("{charge:?} is admitted in memory")
                };
                let named: Vec<(Limit, u64)> = refusal.limits.iter().map(|one| (one.limit, one.cap)).collect();
                assert_eq!(named, limits);
                let is_exact = named.iter().all(|(limit, _)| *limit != Limit::InFlight);
                let told_ms = refusal.retry_after_ms();
                let passed_ms = retry_after_ms.saturating_sub(told_ms);
                assert!(!is_exact || passed_ms <= after_ms - before_ms, "{told_ms} ms, {retry_after_ms} ms in memory");
            }
            outcome => panic!("{outcome:?} with nobody else there"),
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
        self.item.now_ms = self.clock.now_ms();
        self.ledger.settle(held, &Settled { charge, ..Settled::default() }).await.expect("reached");
        self.item.settle(&reservation, charge);
        !self.crossed(self.item.now_ms)
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
                self.clock.advance(ms);
                true
            }
        }
    }
}

#[tokio::test]
async fn the_ledger_answers_as_the_algorithm_in_memory() {
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

const ONE: Charge = Charge { requests: 1, minute_tokens: 0, day_tokens: 0, cost_microusd: 0 };

fn at_once(version: u64, in_flight: u64) -> Account {
    let limits = Limits { in_flight: Some(in_flight), ..Limits::default() };
    Account { name: "T#acme".into(), policy: Policy { version, ..policy(limits, 12) }, shards: 1 }
}

async fn reserved(ledger: &Ledger, clock: &Clock, account: &Account) -> Held {
    match ledger.reserve(account, ONE, clock.now_ms() + 60_000).await.expect("reached") {
        Outcome::Reserved(held, _) => held,
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn the_dead_of_several_slots_do_not_lock_out_a_lower_limit() {
    let dynamodb = crate::start().await;
    let clock = Clock::default();
    let ledger = crate::ledger(&dynamodb, &clock);
    for _ in 0..6 {
        let _dead = reserved(&ledger, &clock, &at_once(1, 6)).await;
        clock.advance(15_000);
    }
    clock.advance(120_000);
    let lower = at_once(2, 1);
    ledger.fence(&lower, 1).await.expect("reached");
    let _alive = reserved(&ledger, &clock, &lower).await;
    let outcome = ledger.reserve(&lower, ONE, clock.now_ms() + 60_000).await.expect("reached");
    assert!(matches!(outcome, Outcome::Refused(..)), "{outcome:?}");
    assert_eq!(ledger.images(&lower).await.expect("reached")[0].get(Attribute::InFlight), 1);
}

#[tokio::test]
async fn a_late_settlement_with_nothing_to_correct_still_tidies_up() {
    let dynamodb = crate::start().await;
    let (clock, account) = (Clock::default(), at_once(1, 1));
    let ledger = crate::ledger(&dynamodb, &clock);
    let first = reserved(&ledger, &clock, &account).await;
    ledger.settle(first, &Settled { charge: ONE, ..Settled::default() }).await.expect("reached");
    clock.advance(1_000_000);
    let late = reserved(&ledger, &clock, &account).await;
    let stale = late.reservation().stale.clone();
    assert!(!stale.is_empty());
    clock.advance(200_000);
    let _reaps_it = reserved(&ledger, &clock, &account).await;
    ledger.settle(late, &Settled { charge: ONE, ..Settled::default() }).await.expect("taken");
    let images = ledger.images(&account).await.expect("reached");
    assert!(images[0].iter().all(|(attribute, _)| !stale.contains(&attribute)));
}
