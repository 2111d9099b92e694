//! Whose counters: the items of a tenant or a pool, and the limits that hold for them.

use crate::quota::{self, Image, LimitState, Policy};

/// What the names of tenants' accounts begin with.
const TENANT: &str = "T#";

/// What the names of pools' accounts begin with.
const POOL: &str = "P#";

/// What the names of the accounts of tenants' running jobs begin with.
const DRAIN: &str = "D#";

/// The name of the account of this tenant.
pub fn tenant_account(tenant: &str) -> String {
    format!("{TENANT}{tenant}")
}

/// The name of the account of this tenant's running jobs.
pub fn drain_account(tenant: &str) -> String {
    format!("{DRAIN}{tenant}")
}

/// The name of the account of this pool of a model.
pub fn pool_account(model: &str, pool: &str) -> String {
    format!("{POOL}{model}#{pool}")
}

/// A tenant's or a pool's items and the limits that hold for all of them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What the keys of its items begin with.
    pub name: String,
    /// Its limits.
    pub policy: Policy,
    /// How many items it is spread over.
    pub shards: u64,
}

/// One shard of an account.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    /// Partition key of the item.
    pub key: String,
    /// Its slice of the limits.
    pub policy: Policy,
}

impl Account {
    /// The partition keys of its items.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.shards).map(|index| self.key(index))
    }

    fn key(&self, index: u64) -> String {
        format!("{}#{index}", self.name)
    }

    pub(super) fn shard(&self, index: u64) -> Shard {
        Shard { key: self.key(index), policy: self.policy.slice(index, self.shards) }
    }

    /// One shard chosen at random and, if there are more, another one.
    pub(super) fn draw(&self) -> (Shard, Option<Shard>) {
        let first = fastrand::u64(0..self.shards.max(1));
        let second = (self.shards > 1).then(|| (first + fastrand::u64(1..self.shards)) % self.shards);
        (self.shard(first), second.map(|index| self.shard(index)))
    }

    /// Where the limits stand according to all items, in the order of [`keys`](Self::keys).
    pub fn states(&self, images: &[Image], now_ms: u64) -> Vec<LimitState> {
        let of_shard =
            |(index, image): (u64, &Image)| quota::states(&self.policy.slice(index, self.shards), image, now_ms);
        let all = (0..).zip(images).map(of_shard);
        all.reduce(|sums, states| sums.into_iter().zip(states).map(|(sum, state)| sum.and(state)).collect())
            .unwrap_or_default()
    }
}

/// The account that the item with this key is a shard of; `None` for what else is in the table, and for the running jobs,
/// which are no requests.
pub(super) fn name_of(key: &str) -> Option<&str> {
    let (name, shard) = key.rsplit_once('#')?;
    let is_account = name.starts_with(TENANT) || name.starts_with(POOL);
    (is_account && shard.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// What one item of an account shows of all of it: exact if it is the only one, else as if all stood alike.
#[derive(Debug, Clone)]
pub struct View {
    image: Image,
    policy: Policy,
    shards: u64,
}

impl View {
    pub(super) fn new(image: Image, shard: &Shard, shards: u64) -> Self {
        Self { image, policy: shard.policy, shards }
    }

    /// Where the limits stand.
    pub fn states(&self, now_ms: u64) -> Vec<LimitState> {
        let states = quota::states(&self.policy, &self.image, now_ms);
        states.into_iter().map(|state| state.of_all(self.shards)).collect()
    }

    /// The tokens charged in the last minute.
    pub fn minute_tokens(&self, now_ms: u64) -> u64 {
        quota::minute_tokens(&self.image, now_ms).saturating_mul(self.shards)
    }
}
