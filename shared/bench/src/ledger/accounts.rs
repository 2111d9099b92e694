//! Account of a tenant or a pool: its items, their slices of its limits, and its actual charges in
//! time.

use std::collections::BTreeMap;

use spillway::{
    quota::{Burst, EPOCHS, Limits, Policy},
    store::ledger::Account,
};

/// A charge at its true time.
#[derive(Debug, Clone, Copy)]
pub struct Charged {
    pub at_us: u64,
    /// Epoch by the clock of its process.
    pub epoch: u64,
    pub requests: u64,
    /// Reserved tokens; used tokens after settlement.
    pub tokens: u64,
}

/// A simulated account.
#[derive(Debug)]
pub struct SimulatedAccount {
    pub limits: Limits,
    pub burst: Burst,
    /// Index of its first item. Its further items follow.
    pub first_item: usize,
    pub shards: u64,
    /// Policy of each shard, for tenants within their committed share and for tenants above it.
    slices: [Vec<Policy>; 2],
    pub charges: Vec<Charged>,
}

impl SimulatedAccount {
    /// Creates an account. Tenants above their committed share may fill it up to the policy of
    /// `excess`.
    pub fn new(account: &Account, excess: &Account, shards: Option<u64>, first_item: usize) -> Self {
        let shards = shards.unwrap_or(account.shards);
        let slices = |policy: &Policy| (0..shards).map(|index| policy.slice(index, shards)).collect();
        Self {
            limits: account.policy.limits,
            burst: account.policy.burst,
            first_item,
            shards,
            slices: [slices(&account.policy), slices(&excess.policy)],
            charges: Vec::new(),
        }
    }

    pub fn policy(&self, shard: u64, is_excess: bool) -> &Policy {
        &self.slices[usize::from(is_excess)][shard as usize]
    }

    pub fn item(&self, shard: u64) -> usize {
        self.first_item + shard as usize
    }

    /// Returns the maximum total of `amount` in any `span_us` of true time.
    pub fn worst(&self, span_us: u64, amount: impl Fn(&Charged) -> u64) -> u64 {
        let (mut worst, mut sum, mut oldest) = (0, 0, 0);
        for charged in &self.charges {
            sum += amount(charged);
            while self.charges[oldest].at_us + span_us <= charged.at_us {
                sum -= amount(&self.charges[oldest]);
                oldest += 1;
            }
            worst = worst.max(sum);
        }
        worst
    }

    /// Returns the maximum of the tokens in any window of a minute.
    pub fn worst_window(&self) -> u64 {
        let mut by_epoch: BTreeMap<u64, u64> = BTreeMap::new();
        for charged in &self.charges {
            *by_epoch.entry(charged.epoch).or_default() += charged.tokens;
        }
        let window = |start: &u64| by_epoch.range(start..&(start + EPOCHS)).map(|(_, tokens)| tokens).sum();
        by_epoch.keys().map(window).max().unwrap_or_default()
    }

    /// Returns the total of `amount` charged since `from_us`.
    pub fn charged(&self, from_us: u64, amount: impl Fn(&Charged) -> u64) -> u64 {
        self.charges.iter().filter(|charged| charged.at_us >= from_us).map(amount).sum()
    }
}
