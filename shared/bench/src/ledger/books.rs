//! The account of one tenant or pool: its items, their slices of its limits, and what was really charged to it and when.

use spillway::{
    quota::{Burst, Limits, Policy},
    store::ledger::Account,
};

/// One charge, at its true time.
#[derive(Debug, Clone, Copy)]
pub struct Charged {
    pub at_us: u64,
    pub requests: u64,
    /// The reserve; once it is settled, what was used.
    pub tokens: u64,
}

/// One account.
#[derive(Debug)]
pub struct Books {
    pub limits: Limits,
    pub burst: Burst,
    /// Its first item; the others follow.
    pub first_item: usize,
    pub shards: u64,
    /// The policy of each shard, for those within their committed share and for those above it.
    slices: [Vec<Policy>; 2],
    pub charges: Vec<Charged>,
}

impl Books {
    /// The books of an account of which tenants above their committed share may fill as much as `excess` says.
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

    /// The most of `of` that any `span_us` of true time holds.
    pub fn worst(&self, span_us: u64, of: impl Fn(&Charged) -> u64) -> u64 {
        let (mut worst, mut sum, mut oldest) = (0, 0, 0);
        for charged in &self.charges {
            sum += of(charged);
            while self.charges[oldest].at_us + span_us <= charged.at_us {
                sum -= of(&self.charges[oldest]);
                oldest += 1;
            }
            worst = worst.max(sum);
        }
        worst
    }

    /// How much of `of` was charged from `from_us` on.
    pub fn charged(&self, from_us: u64, of: impl Fn(&Charged) -> u64) -> u64 {
        self.charges.iter().filter(|charged| charged.at_us >= from_us).map(of).sum()
    }
}
