//! Idempotency records: the answers to calls, for repetitions that reach another process. Each call
//! has a row in the jobs table.
//!
//! The process that runs a call claims its row under a lease, renews the lease, and finally stores
//! the answer or releases the row. Claims and answers count until `until_ms`. After that time a row
//! counts as absent, even if DynamoDB has not deleted it yet.
//!
//! An attempt that waits for the answer marks the claim. A marked claim is not released after an
//! answer, only after a failure.

mod packed_answer;

use aws_sdk_dynamodb::{
    Client,
    operation::{
        put_item::builders::PutItemFluentBuilder,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::AttributeValue,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

pub use packed_answer::PackedAnswer;

use super::{
    Item, StoreError,
    rows::{Put, Rows, binary, bytes_in, number, number_in, put_if, text, text_in, unreadable},
    tables,
};
use crate::{job::StoredResult, units::UnixMs};

/// Condition that a claim belongs to its owner and has not ended.
const IS_RUNNING: &str = "#owner = :owner AND attribute_not_exists(ended_ms)";

/// A claim to run a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Key of the call's [`CallIdentity`](crate::idempotency::CallIdentity).
    pub key: [u8; 32],
    /// Digest of the request.
    pub fingerprint: [u8; 32],
    /// Id of the run. Each run has another.
    pub owner: String,
    /// Time when the call began.
    pub since: UnixMs,
}

/// A record that still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Digest of the request.
    pub fingerprint: [u8; 32],
    /// Id of the run.
    pub owner: String,
    /// Time when the call began.
    pub since: UnixMs,
    /// State of the call.
    pub state: CallState,
}

/// State of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// A process runs the call. `is_awaited` if an attempt waits for its answer.
    Running { is_awaited: bool },
    /// The call was answered.
    Answered { ended_at: UnixMs, answer: StoredResult },
    /// The call was answered, but the answer is too large for a row.
    TooLarge { ended_at: UnixMs },
}

/// The idempotency records in the jobs table.
#[derive(Clone)]
pub struct IdempotencyRecords {
    rows: Rows,
}

impl IdempotencyRecords {
    /// The records in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { rows: Rows::new(client, table) }
    }

    /// Returns the record of the call with this key.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn find(&self, key: &[u8; 32], now: UnixMs) -> Result<Option<IdempotencyRecord>, StoreError> {
        let item = self.rows.get(&row_key(key)).await?;
        item.map(|item| parse(&item, now)).transpose().map(Option::flatten)
    }

    /// Claims the call until `until`. Returns the existing record if another process runs the call
    /// or the call is answered.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn claim(
        &self,
        claim: &Claim,
        until: UnixMs,
        now: UnixMs,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let condition = format!("attribute_not_exists(pk) OR until_ms <= :now OR ({IS_RUNNING})");
        let request = self
            .put(claim, until)
            .condition_expression(condition)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":owner", text(&claim.owner))
            .expression_attribute_values(":now", number(now.as_ms()));
        match put_if(request).await? {
            Put::Written => Ok(None),
            Put::Conflict(Some(item)) => parse(&item, now),
            Put::Conflict(None) => Err(StoreError::Contended { row: row_key(&claim.key) }),
        }
    }

    /// Renews a claim until `until`. Returns whether the call still belongs to it.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn renew(&self, claim: &Claim, until: UnixMs) -> Result<bool, StoreError> {
        let request = self
            .update(&claim.key, &claim.owner)
            .update_expression("SET until_ms = :until, #expires = :expires")
            .condition_expression(IS_RUNNING)
            .expression_attribute_names("#expires", tables::EXPIRES_S)
            .expression_attribute_values(":until", number(until.as_ms()))
            .expression_attribute_values(":expires", number(expires_s(claim.since, until)));
        is_updated(request).await
    }

    /// Marks the claim of `owner`, because an attempt waits for the answer. Returns whether the
    /// call still runs.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn mark(&self, key: &[u8; 32], owner: &str, now: UnixMs) -> Result<bool, StoreError> {
        let request = self
            .update(key, owner)
            .update_expression("SET awaited = :true")
            .condition_expression(format!("{IS_RUNNING} AND until_ms > :now"))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
            .expression_attribute_values(":now", number(now.as_ms()));
        is_updated(request).await
    }

    /// Ends a claimed call with its answer, which is kept until `until`. `None` is an answer that
    /// is too large for a row.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn answer(
        &self,
        claim: &Claim,
        answer: Option<&PackedAnswer>,
        until: UnixMs,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut request = self.put(claim, until).item("ended_ms", number(now.as_ms()));
        if let Some(answer) = answer {
            request = request.item("answer", binary(answer.as_bytes()));
        }
        self.put_if_owned(request, claim, "#owner = :owner").await.map(drop)
    }

    /// Releases a claimed call without an answer.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.put_if_owned(self.put(claim, UnixMs::default()), claim, "#owner = :owner").await.map(drop)
    }

    /// Releases a claimed call without an answer, unless an attempt waits for the answer. Returns
    /// whether the claim is over.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn release_unless_awaited(&self, claim: &Claim) -> Result<bool, StoreError> {
        let condition = "#owner = :owner AND attribute_not_exists(awaited)";
        let found = self.put_if_owned(self.put(claim, UnixMs::default()), claim, condition).await?;
        Ok(found.is_none_or(|item| text_in(&item, "owner") != Some(&claim.owner)))
    }

    fn put(&self, claim: &Claim, until: UnixMs) -> PutItemFluentBuilder {
        let request = self.rows.put(&row_key(&claim.key), expires_s(claim.since, until));
        request
            .item("payload", binary(&claim.fingerprint))
            .item("owner", text(&claim.owner))
            .item("since_ms", number(claim.since.as_ms()))
            .item("until_ms", number(until.as_ms()))
    }

    /// Writes the row under a condition on its owner. Returns the row if the condition fails. After
    /// the end of the lease, the row may belong to another process.
    async fn put_if_owned(
        &self,
        request: PutItemFluentBuilder,
        claim: &Claim,
        condition: &str,
    ) -> Result<Option<Item>, StoreError> {
        let request = request.condition_expression(condition).expression_attribute_names("#owner", "owner");
        match put_if(request.expression_attribute_values(":owner", text(&claim.owner))).await? {
            Put::Written => Ok(None),
            Put::Conflict(item) => Ok(Some(item.unwrap_or_default())),
        }
    }

    fn update(&self, key: &[u8; 32], owner: &str) -> UpdateItemFluentBuilder {
        let request = self.rows.update(&row_key(key)).expression_attribute_names("#owner", "owner");
        request.expression_attribute_values(":owner", text(owner))
    }
}

/// Sends a conditional update. Returns whether its condition held.
async fn is_updated(request: UpdateItemFluentBuilder) -> Result<bool, StoreError> {
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Time when DynamoDB may delete a row. Other processes may still look at a call that was released.
fn expires_s(since: UnixMs, until: UnixMs) -> u64 {
    until.max(since).as_s() + 60
}

/// Ids of jobs are UUIDs, so no id of a job names one of these rows.
fn row_key(key: &[u8; 32]) -> String {
    format!("answer#{}", BASE64_URL_SAFE_NO_PAD.encode(key))
}

/// Parses a row, unless it has expired.
fn parse(item: &Item, now: UnixMs) -> Result<Option<IdempotencyRecord>, StoreError> {
    let key = text_in(item, "pk").unwrap_or("an idempotency record");
    let time = |name: &str| number_in(item, name).map(UnixMs::from_ms);
    let required = |name: &str| time(name).ok_or_else(|| unreadable(key, &format!("it has no {name}")));
    if required("until_ms")? <= now {
        return Ok(None);
    }
    let fingerprint = bytes_in(item, "payload").and_then(|payload| payload.as_ref().try_into().ok());
    let fingerprint = fingerprint.ok_or_else(|| unreadable(key, "it has no payload"))?;
    let state = match time("ended_ms") {
        None => CallState::Running { is_awaited: item.contains_key("awaited") },
        Some(ended_at) => match answer(item, key)? {
            Some(answer) => CallState::Answered { ended_at, answer },
            None => CallState::TooLarge { ended_at },
        },
    };
    let owner = text_in(item, "owner").unwrap_or_default().to_owned();
    Ok(Some(IdempotencyRecord { fingerprint, owner, since: required("since_ms")?, state }))
}

/// Returns the answer in a row, or `None` if it was too large.
fn answer(item: &Item, key: &str) -> Result<Option<StoredResult>, StoreError> {
    let malformed = || unreadable(key, "its answer is malformed");
    if let Some(packed) = bytes_in(item, "answer") {
        return packed_answer::unpack(&packed).map(Some).ok_or_else(malformed);
    }
    // An older version stored answers without packing them. Its rows live for at most an hour.
    let Some(status) = number_in(item, "status") else { return Ok(None) };
    let headers = text_in(item, "headers").and_then(|headers| serde_json::from_str(headers).ok());
    let (Ok(status), Some(headers), Some(body)) = (u16::try_from(status), headers, bytes_in(item, "body")) else {
        return Err(malformed());
    };
    Ok(Some(StoredResult { status, headers, body }))
}
