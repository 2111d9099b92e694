//! The goals on generated traffic, in a debug build.

use super::*;

const LIMIT: u64 = 50_000;
const MINUTES: u64 = 240;

/// Goals of a pool with the default burst of `kind`.
fn goals_of(kind: PoolKind) -> Vec<Goal> {
    let traffic = Traffic::generated(LIMIT, MINUTES, 1);
    let bucket = replay("token bucket", &traffic, LIMIT, None, Quota::bucket(LIMIT), Millis::ZERO);
    let spilled = Outcome::mean(&spilled(&traffic, LIMIT, kind, 2));
    let ledger = PoolLedger::new(LIMIT, kind, 0);
    let hold = Millis::from_s(20);
    let holding = replay("hold", &traffic, LIMIT, Some(ledger), Quota::Unlimited, hold);
    outcome::print("generated", &[spilled.clone(), bucket.clone(), holding.clone()]);
    goals(&[spilled.clone(), spilled, bucket.clone(), bucket], &holding)
}

#[test]
fn a_provisioned_pool_is_used_and_large_requests_get_their_share_of_it() {
    for goal in goals_of(PoolKind::Provisioned) {
        assert!(goal.is_met(), "{}", goal.line());
    }
}

#[test]
fn the_pace_of_an_on_demand_pool_would_miss_the_goals() {
    let lines: Vec<String> = goals_of(PoolKind::OnDemand).iter().filter(|goal| goal.is_met()).map(Goal::line).collect();
    assert_eq!(lines, Vec::<String>::new());
}
