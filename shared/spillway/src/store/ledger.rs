//! Ledger: the counters that admission is decided on, in one DynamoDB item for each shard of each
//! tenant and pool.
//!
//! One `UpdateItem` charges or settles all limits of an item, for one request or for a group of
//! concurrent requests. The SDK must not retry, because `ADD` is not idempotent; a write whose
//! connection broke is sent again under its [`nonce`]. While the ledger is unavailable, nothing is
//! admitted (it fails closed).

mod account;
mod expression;
mod group_commit;
pub(super) mod items;
pub(super) mod nonce;
mod recent_refusals;
mod reserve;
mod settle;

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;

pub use account::{Account, View, drain_account, pool_account, tenant_account};
pub use expression::{Compiled, compile};
pub use recent_refusals::is_recent;

use super::{LedgerError, StoreError, clock_skew::ClockSkew};
use crate::{
    clock::Clock,
    connections::{MAX_SILENT_TIME, ResendingClient, TimeLimits},
    quota::{Attribute, Charge, Condition, Image, Refusal, Reservation, Settled, Update, Write},
    units::UnixMs,
};
use account::Shard;
use group_commit::GroupCommit;
use items::{Items, UpdateOutcome};
use nonce::NonceAttribute;
use recent_refusals::RecentRefusals;
use reserve::{PendingReserve, ReserveReply};
use settle::PendingSettle;

/// Outcome of an attempt to reserve.
#[derive(Debug)]
pub enum ReserveOutcome {
    /// The reservation was made.
    Reserved(HeldReservation, View),
    /// There is no room. Nothing was changed.
    Refused(Refusal, View),
    /// The item has seen newer limits than the account has.
    Stale,
    /// The item accepts no more writes at the moment. Nothing was changed.
    Busy,
}

/// A reservation and the item that it was made on.
#[must_use = "a reservation holds capacity until it is settled or expires"]
#[derive(Debug)]
pub struct HeldReservation {
    key: String,
    reservation: Reservation,
}

impl HeldReservation {
    /// Returns the reservation.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }
}

/// The ledger table. Clones share pending requests and recent refusals.
#[derive(Clone)]
pub struct Ledger {
    writer: Writer,
    reserves: GroupCommit<PendingReserve>,
    settles: GroupCommit<PendingSettle>,
    clock_skew: ClockSkew,
}

/// Writes groups of pending requests to their items.
#[derive(Clone)]
struct Writer {
    items: Items,
    recent_refusals: RecentRefusals,
    clock: Clock,
}

/// Longest time for the reply to a pending request, which may wait for the write of an earlier
/// group.
const REPLY_LIMITS: TimeLimits = TimeLimits { for_caller: MAX_SILENT_TIME, in_background: Duration::from_secs(20) };

/// Pause before a busy item is tried again, if the account has no other shard.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

impl Ledger {
    /// Creates the ledger in `table`.
    pub fn new(client: ResendingClient<Client>, table: &str, clock: Clock, clock_skew: ClockSkew) -> Self {
        let recent_refusals = RecentRefusals::new(clock.clone());
        let writer = Writer { items: Items::new(client, table), recent_refusals, clock };
        Self { writer, reserves: GroupCommit::default(), settles: GroupCommit::default(), clock_skew }
    }

    /// Charges `charge` to every limit of `account`, or to none. The reservation expires at
    /// `expires_at` unless it is settled. If a shard has no room or is busy, one other shard is
    /// tried.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable or does not answer in time: the charge may then
    /// have been made, and expires. Also returns an error if the clock of this machine is too far
    /// off.
    pub async fn reserve(
        &self,
        account: &Account,
        charge: Charge,
        expires_at: UnixMs,
    ) -> Result<ReserveOutcome, LedgerError> {
        self.clock_skew.check()?;
        let (first, second) = account.draw();
        let outcome = self.reserve_on(&first, account.shards, charge, expires_at).await?;
        let second = match (&outcome, second) {
            (ReserveOutcome::Refused(..) | ReserveOutcome::Busy, Some(second)) => second,
            (ReserveOutcome::Busy, None) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                first
            }
            _ => return Ok(outcome),
        };
        let retried = self.reserve_on(&second, account.shards, charge, expires_at).await?;
        Ok(match (outcome, retried) {
            (ReserveOutcome::Refused(first, _), ReserveOutcome::Refused(second, view))
                if second.retry_after() <= first.retry_after() =>
            {
                ReserveOutcome::Refused(second, view)
            }
            (refused @ ReserveOutcome::Refused(..), ReserveOutcome::Refused(..) | ReserveOutcome::Busy) => refused,
            (_, retried) => retried,
        })
    }

    async fn reserve_on(
        &self,
        shard: &Shard,
        shards: u64,
        charge: Charge,
        expires_at: UnixMs,
    ) -> Result<ReserveOutcome, LedgerError> {
        let charge = shard.policy.fit(&charge);
        if let Some((refusal, image)) = self.writer.recent_refusals.find(&shard.key, &shard.policy, &charge) {
            return Ok(ReserveOutcome::Refused(refusal, View::new(image, shard, shards)));
        }
        let (reply, replied) = oneshot::channel();
        let pending = PendingReserve { shard: shard.clone(), charge, expires_at, reply };
        let writer = self.writer.clone();
        self.reserves.submit(&shard.key, pending, move |key, group| {
            let writer = writer.clone();
            async move { writer.reserve_group(&key, group).await }
        });
        Ok(match REPLY_LIMITS.apply(replied).await?.map_err(|_| writer_died())?? {
            ReserveReply::Reserved(reservation, image) => ReserveOutcome::Reserved(
                HeldReservation { key: shard.key.clone(), reservation },
                View::new(image, shard, shards),
            ),
            ReserveReply::Refused(refusal, image) => ReserveOutcome::Refused(refusal, View::new(image, shard, shards)),
            ReserveReply::Stale => ReserveOutcome::Stale,
            ReserveReply::Busy => ReserveOutcome::Busy,
        })
    }

    /// Replaces the reserve by the actual usage. It takes effect at most once. An ambiguous failure
    /// other than a broken connection is not retried: the slot expires, and the reserve stays
    /// charged.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable or does not answer in time.
    pub async fn settle(&self, held: HeldReservation, settled: &Settled) -> Result<(), LedgerError> {
        let (reply, replied) = oneshot::channel();
        let pending = PendingSettle { reservation: held.reservation, settled: *settled, reply };
        let writer = self.writer.clone();
        self.settles.submit(&held.key, pending, move |key, group| {
            let writer = writer.clone();
            async move { writer.settle_group(&key, group).await }
        });
        Ok(REPLY_LIMITS.apply(replied).await?.map_err(|_| writer_died())??)
    }

    /// Reads the items of `account`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn images(&self, account: &Account) -> Result<Vec<Image>, LedgerError> {
        Ok(try_join_all(account.keys().map(|key| async move { self.writer.items.get(&key).await })).await?)
    }

    /// Reads the items of all accounts, by account. This is for operators: it scans the whole
    /// table.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn accounts(&self) -> Result<BTreeMap<String, Vec<Image>>, LedgerError> {
        let mut accounts: BTreeMap<String, Vec<Image>> = BTreeMap::new();
        for (key, image) in self.writer.items.scan().await? {
            if let Some(name) = account::name_from_key(&key) {
                accounts.entry(name.to_owned()).or_default().push(image);
            }
        }
        Ok(accounts)
    }

    /// Makes every later admission under limits older than the account's fail and reload them.
    /// `former_shards` is the number of shards under the older limits.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn fence(&self, account: &Account, former_shards: u64) -> Result<(), LedgerError> {
        let version = account.policy.version;
        let write = Write {
            conditions: vec![Condition::AtMost(Attribute::Version, version)],
            updates: vec![Update::Set(Attribute::Version, version)],
        };
        let spread = Account { shards: account.shards.max(former_shards), ..account.clone() };
        for key in spread.keys() {
            if let UpdateOutcome::Busy = self.writer.items.update(&key, &write, NonceAttribute::Added).await? {
                return Err(StoreError::Unavailable(format!("ledger item {key} is busy")).into());
            }
        }
        Ok(())
    }
}

fn writer_died() -> StoreError {
    StoreError::Unavailable("the task that writes to the ledger died".to_owned())
}
