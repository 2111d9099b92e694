//! The ledger: the counters that admission is decided on, one DynamoDB item for each shard of each tenant and pool.
//!
//! One `UpdateItem` charges or settles all limits of an item, for one request or for several that wait at once. The client
//! must not retry by itself: `ADD` is not idempotent. When the ledger cannot be reached nothing is admitted (it fails
//! closed).

mod account;
mod denials;
mod expression;
pub(super) mod items;
mod lanes;
mod reserving;
mod settling;

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

pub use account::{Account, View, drain_account, pool_account, tenant_account};
pub use expression::{Compiled, compile};

use super::{StoreError, skew::Skew};
use crate::{
    clock::Clock,
    quota::{Attribute, Charge, Condition, Image, Refusal, Reservation, Settled, Update, Write},
};
use account::Shard;
use denials::Denials;
use items::{Items, Updated};
use lanes::Lanes;
use reserving::{Answer, Reserving};
use settling::Settling;

/// What came of an attempt to reserve.
#[derive(Debug)]
pub enum Outcome {
    /// Charged.
    Reserved(Held, View),
    /// No room; nothing was changed.
    Refused(Refusal, View),
    /// The item knows newer limits than the account brought.
    Stale,
    /// The item takes no more writes for the moment; nothing was changed.
    Busy,
}

/// A reservation together with the item it was made on.
#[must_use = "a reservation holds capacity until it is settled or expires"]
#[derive(Debug)]
pub struct Held {
    key: String,
    reservation: Reservation,
}

impl Held {
    /// What was reserved.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }
}

/// The ledger table. Clones share what waits and what was refused.
#[derive(Clone)]
pub struct Ledger {
    desk: Desk,
    reserving: Lanes<Reserving>,
    settling: Lanes<Settling>,
    skew: Skew,
}

/// What those who wait for an item are served with.
#[derive(Clone)]
struct Desk {
    items: Items,
    denials: Denials,
    clock: Clock,
}

/// The pause before a busy item is asked once more, where there is no other shard to ask.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

impl Ledger {
    /// The ledger in `table`. `client` must have retries disabled.
    pub fn new(client: Client, table: &str, clock: Clock, skew: Skew) -> Self {
        let desk = Desk { items: Items::new(client, table), denials: Denials::new(clock.clone()), clock };
        Self { desk, reserving: Lanes::default(), settling: Lanes::default(), skew }
    }

    /// Charges `charge` to every limit of `account`, or to none. The reservation expires by itself at `expires_ms`. A shard
    /// that has no room or is busy leads to one other.
    ///
    /// # Errors
    /// The store could not be reached or did not answer in time: the charge may then have been made, and expires. Or this
    /// machine's clock is too far off to charge by.
    pub async fn reserve(&self, account: &Account, charge: Charge, expires_ms: u64) -> Result<Outcome, StoreError> {
        self.skew.check()?;
        let (first, second) = account.draw();
        let outcome = self.reserve_on(&first, account.shards, charge, expires_ms).await?;
        let second = match (&outcome, second) {
            (Outcome::Refused(..) | Outcome::Busy, Some(second)) => second,
            (Outcome::Busy, None) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                first
            }
            _ => return Ok(outcome),
        };
        let other = self.reserve_on(&second, account.shards, charge, expires_ms).await?;
        Ok(match (outcome, other) {
            (Outcome::Refused(one, _), Outcome::Refused(other, view))
                if other.retry_after_ms() <= one.retry_after_ms() =>
            {
                Outcome::Refused(other, view)
            }
            (refused @ Outcome::Refused(..), Outcome::Refused(..) | Outcome::Busy) => refused,
            (_, other) => other,
        })
    }

    async fn reserve_on(
        &self,
        shard: &Shard,
        shards: u64,
        charge: Charge,
        expires_ms: u64,
    ) -> Result<Outcome, StoreError> {
        let charge = shard.policy.fit(&charge);
        if let Some((refusal, image)) = self.desk.denials.find(&shard.key, &shard.policy, &charge) {
            return Ok(Outcome::Refused(refusal, View::new(image, shard, shards)));
        }
        let (reply, answer) = oneshot::channel();
        let one = Reserving { shard: shard.clone(), charge, expires_ms, reply };
        let desk = self.desk.clone();
        self.reserving.enter(&shard.key, one, move |key, waiting| {
            let desk = desk.clone();
            async move { desk.answer_all(&key, waiting).await }
        });
        Ok(match answer.await.map_err(|_| died())?? {
            Answer::Reserved(reservation, image) => {
                Outcome::Reserved(Held { key: shard.key.clone(), reservation }, View::new(image, shard, shards))
            }
            Answer::Refused(refusal, image) => Outcome::Refused(refusal, View::new(image, shard, shards)),
            Answer::Stale => Outcome::Stale,
            Answer::Busy => Outcome::Busy,
        })
    }

    /// Replaces the reserve by what really happened. Takes effect at most once, so an ambiguous failure is not
    /// repeated: the slot expires by itself, and the reserve stays charged.
    ///
    /// # Errors
    /// The store could not be reached or did not answer in time.
    pub async fn settle(&self, held: Held, settled: &Settled) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let one = Settling { reservation: held.reservation, settled: *settled, reply };
        let desk = self.desk.clone();
        self.settling.enter(&held.key, one, move |key, waiting| {
            let desk = desk.clone();
            async move { desk.settle_all(&key, waiting).await }
        });
        answer.await.map_err(|_| died())?
    }

    /// The items of `account` as they are.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn images(&self, account: &Account) -> Result<Vec<Image>, StoreError> {
        try_join_all(account.keys().map(|key| async move { self.desk.items.get(&key).await })).await
    }

    /// The items of all accounts, by account. For operators: it reads the whole table.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn accounts(&self) -> Result<BTreeMap<String, Vec<Image>>, StoreError> {
        let mut accounts: BTreeMap<String, Vec<Image>> = BTreeMap::new();
        for (key, image) in self.desk.items.all().await? {
            if let Some(name) = account::name_of(&key) {
                accounts.entry(name.to_owned()).or_default().push(image);
            }
        }
        Ok(accounts)
    }

    /// Makes every admission under limits older than the account's fail and reload, from this moment on. `former_shards` is
    /// how many items it was spread over under those.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn fence(&self, account: &Account, former_shards: u64) -> Result<(), StoreError> {
        let version = account.policy.version;
        let write = Write {
            conditions: vec![Condition::AtMost(Attribute::Version, version)],
            updates: vec![Update::Set(Attribute::Version, version)],
        };
        let spread = Account { shards: account.shards.max(former_shards), ..account.clone() };
        for key in spread.keys() {
            if let Updated::Busy = self.desk.items.update(&key, &write).await? {
                return Err(StoreError::Unavailable(format!("{key} takes no more writes for the moment")));
            }
        }
        Ok(())
    }
}

fn died() -> StoreError {
    StoreError::Unavailable("the task that writes to the ledger died".to_owned())
}
