//! The ledger: the counters that admission is decided on, one DynamoDB item for each tenant and each pool.
//!
//! One `UpdateItem` charges or settles all limits of an item. The client must not retry by itself: `ADD` is not
//! idempotent. When the ledger cannot be reached nothing is admitted (it fails closed).

mod expression;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use crate::{
    clock::Clock,
    quota::{self, Charge, Image, Policy, Refusal, Reservation, Settled, Verdict, Write},
};

/// Whose counters: a tenant's or a pool's item, and the limits that hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Partition key of the item.
    pub key: String,
    /// Its limits.
    pub policy: Policy,
}

/// What came of an attempt to reserve.
#[derive(Debug)]
pub enum Outcome {
    /// Charged. The image is the item as it is now.
    Reserved(Held, Image),
    /// No room; nothing was changed. The image is the item as it is.
    Refused(Refusal, Image),
    /// The item knows newer limits than the account brought.
    Stale,
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

/// The ledger table.
#[derive(Clone)]
pub struct Ledger {
    client: Client,
    table: Arc<str>,
    clock: Clock,
}

/// How often a reservation is tried when it lost a race or the store was busy.
const ATTEMPTS: u32 = 4;

/// The pause after a busy store's first refusal to settle; it doubles. Nobody waits for room here, so there is time.
const BUSY_PAUSE: Duration = Duration::from_millis(25);

impl Ledger {
    /// The ledger in `table`. `client` must have retries disabled.
    pub fn new(client: Client, table: &str, clock: Clock) -> Self {
        Self { client, table: table.into(), clock }
    }

    /// Charges `charge` to every limit of `account`, or to none. The reservation expires by itself at `expires_ms`.
    ///
    /// # Errors
    /// The store could not be reached or did not answer in time. The charge may then have been made; it expires.
    pub async fn reserve(&self, account: &Account, charge: Charge, expires_ms: u64) -> anyhow::Result<Outcome> {
        let mut reap = None;
        for _ in 0..ATTEMPTS {
            let now_ms = self.clock.now_ms();
            let mut reservation = Reservation::new(charge, now_ms, expires_ms);
            let image = match self.update(&account.key, &quota::reserve(&account.policy, &reservation, reap)).await? {
                Updated::Done(image) => {
                    reservation.note_stale(&image);
                    return Ok(Outcome::Reserved(Held { key: account.key.clone(), reservation }, image));
                }
                Updated::Refused(image) => image,
                Updated::Busy => {
                    reap = None;
                    continue;
                }
            };
            reap = match quota::explain(&account.policy, &charge, &image, now_ms) {
                Verdict::Refused(refusal) => return Ok(Outcome::Refused(refusal, image)),
                Verdict::Stale => return Ok(Outcome::Stale),
                Verdict::Reap(slot, count) => Some((slot, count)),
                Verdict::Retry => None,
            };
        }
        Err(busy())
    }

    /// Replaces the reserve by what really happened. Takes effect at most once, so an ambiguous failure is not
    /// repeated: the slot expires by itself, and the reserve stays charged.
    ///
    /// # Errors
    /// The store could not be reached or did not answer in time.
    pub async fn settle(&self, held: Held, settled: &Settled) -> anyhow::Result<()> {
        let Held { key, reservation } = held;
        let now_ms = self.clock.now_ms();
        let updated = self.update_in_time(&key, &quota::settle(&reservation, settled, now_ms)).await?;
        let was_reaped = matches!(updated, Updated::Refused(_)) && reservation.is_dead(now_ms);
        if was_reaped {
            let write = quota::settle_reaped(&reservation, settled, now_ms);
            if !write.updates.is_empty() {
                self.update_in_time(&key, &write).await?;
            }
        }
        Ok(())
    }

    /// The item as it is.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn image(&self, key: &str) -> anyhow::Result<Image> {
        let reply = self
            .client
            .get_item()
            .table_name(&*self.table)
            .key("pk", AttributeValue::S(key.into()))
            .consistent_read(true)
            .send()
            .await
            .context("reading the ledger")?;
        Ok(reply.item.map(|item| expression::image(&item)).unwrap_or_default())
    }

    /// Makes every admission under limits older than `version` fail and reload, from this moment on.
    ///
    /// # Errors
    /// The store could not be reached.
    pub async fn fence(&self, key: &str, version: u64) -> anyhow::Result<()> {
        let write = Write {
            conditions: vec![quota::Condition::AtMost(quota::Attribute::Version, version)],
            updates: vec![quota::Update::Set(quota::Attribute::Version, version)],
        };
        self.update(key, &write).await?;
        Ok(())
    }

    /// Writes, and waits a little for a store that is busy: what it refused before it tried can be sent again.
    async fn update_in_time(&self, key: &str, write: &Write) -> anyhow::Result<Updated> {
        for attempt in 0..ATTEMPTS {
            match self.update(key, write).await? {
                Updated::Busy => tokio::time::sleep(BUSY_PAUSE * (1 << attempt)).await,
                updated => return Ok(updated),
            }
        }
        Err(busy())
    }

    async fn update(&self, key: &str, write: &Write) -> anyhow::Result<Updated> {
        let compiled = expression::compile(write);
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key("pk", AttributeValue::S(key.into()))
            .update_expression(compiled.update)
            .set_condition_expression(compiled.condition)
            .set_expression_attribute_values(Some(compiled.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(reply) => Ok(Updated::Done(image(reply.attributes()))),
            Err(error) => classify(error),
        }
    }
}

fn busy() -> anyhow::Error {
    anyhow!("the ledger stayed busy through {ATTEMPTS} attempts")
}

enum Updated {
    Done(Image),
    Refused(Image),
    /// Surely not done: the store refused the write before it tried.
    Busy,
}

fn classify(error: SdkError<UpdateItemError>) -> anyhow::Result<Updated> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => Ok(Updated::Refused(image(failed.item()))),
        Some(service) if service.code().is_some_and(is_throttle) => Ok(Updated::Busy),
        _ => Err(anyhow::Error::new(error).context("writing the ledger")),
    }
}

fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "TransactionConflictException"
    )
}

fn image(item: Option<&HashMap<String, AttributeValue>>) -> Image {
    item.map(expression::image).unwrap_or_default()
}
