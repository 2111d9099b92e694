//! Accounts: the items of a tenant or a pool, and their limits.

use crate::{
    outage::Outage,
    quota::{self, Attribute, Capacity, Charge, Image, LimitState, Policy},
    units::UnixMs,
};

/// Prefix of the names of tenants' accounts.
const TENANT: &str = "T#";

/// Prefix of the names of pools' accounts.
const POOL: &str = "P#";

/// Prefix of the names of the accounts of tenants' running jobs.
const DRAIN: &str = "D#";

/// Returns the name of a tenant's account.
pub fn tenant_account(tenant: &str) -> String {
    format!("{TENANT}{tenant}")
}

/// Returns the name of the account of a tenant's running jobs.
pub fn drain_account(tenant: &str) -> String {
    format!("{DRAIN}{tenant}")
}

/// Returns the name of the account of a model's pool.
pub fn pool_account(model: &str, pool: &str) -> String {
    format!("{POOL}{model}#{pool}")
}

/// Items of a tenant or a pool, and the limits for all of them together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Prefix of the keys of its items.
    pub name: String,
    /// Limits of the account.
    pub policy: Policy,
    /// Number of items.
    pub shards: u64,
}

/// One shard of an account.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    /// Partition key of the item.
    pub key: String,
    /// Slice of the limits.
    pub policy: Policy,
}

impl Account {
    /// Returns the partition keys of its items.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.shards).map(|index| self.key(index))
    }

    fn key(&self, index: u64) -> String {
        format!("{}#{index}", self.name)
    }

    pub(super) fn shard(&self, index: u64) -> Shard {
        Shard { key: self.key(index), policy: self.policy.slice(index, self.shards) }
    }

    /// Returns a random shard and, if there are several, a second one.
    pub(super) fn draw(&self) -> (Shard, Option<Shard>) {
        let first = fastrand::u64(0..self.shards.max(1));
        let second = (self.shards > 1).then(|| (first + fastrand::u64(1..self.shards)) % self.shards);
        (self.shard(first), second.map(|index| self.shard(index)))
    }

    /// Returns the state of the limits from the images of all items, in the order of
    /// [`keys`](Self::keys).
    pub fn states(&self, images: &[Image], now: UnixMs) -> Vec<LimitState> {
        let shard_states =
            |(index, image): (u64, &Image)| quota::states(&self.policy.slice(index, self.shards), image, now);
        let states = (0..).zip(images).map(shard_states);
        states
            .reduce(|sums, states| sums.into_iter().zip(states).map(|(sum, state)| sum.merge(state)).collect())
            .unwrap_or_default()
    }

    /// Finds when requests of the size `charge` fit within `period`, for up to `max` requests, from
    /// the images of all items, in the order of [`keys`](Self::keys). Returns `None` if an item has
    /// seen newer limits than this account has.
    pub fn capacity(
        &self,
        images: &[Image],
        charge: &Charge,
        period: (UnixMs, UnixMs),
        max: usize,
    ) -> Option<Capacity> {
        let mut whole: Option<Capacity> = None;
        for (index, image) in (0..).zip(images) {
            let policy = self.policy.slice(index, self.shards);
            let part = quota::capacity(&policy, &policy.fit(charge), image, period, max)?;
            whole = Some(match whole {
                Some(whole) => whole.beside(part),
                None => part,
            });
        }
        whole
    }
}

/// Returns the account that the item with this key is a shard of; `None` for other items in the
/// table, and for running jobs, which are not requests.
pub(super) fn name_from_key(key: &str) -> Option<&str> {
    let (name, shard) = key.rsplit_once('#')?;
    let is_account = name.starts_with(TENANT) || name.starts_with(POOL);
    (is_account && shard.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// State of an account as one of its items shows it. It is exact if that is the only item;
/// otherwise all items are taken to be alike.
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

    /// Returns the state of the limits.
    pub fn states(&self, now: UnixMs) -> Vec<LimitState> {
        let states = quota::states(&self.policy, &self.image, now);
        states.into_iter().map(|state| state.for_all_shards(self.shards)).collect()
    }

    /// Returns the outages of pools that other processes have met, each with the pool's number.
    pub fn outages(&self) -> impl Iterator<Item = (u64, Outage)> + '_ {
        self.image.iter().filter_map(|(attribute, value)| {
            let Attribute::Outage(pool) = attribute else { return None };
            Some((pool, Outage::from_number(u64::try_from(value).ok()?)?))
        })
    }

    /// Returns the tokens that were charged in the last minute.
    pub fn minute_tokens(&self, now: UnixMs) -> u64 {
        quota::minute_tokens(&self.image, now).saturating_mul(self.shards)
    }
}
