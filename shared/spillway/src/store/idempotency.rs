//! Idempotency records: the answers to calls, for repetitions that reach another process. Each call
//! has a row in the jobs table.
//!
//! The process that runs a call claims its row under a lease, renews the lease, and finally stores
//! the answer. Claims and answers count until `until_ms`. After that time a row counts as absent,
//! even if DynamoDB has not deleted it yet.

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::{PutItemError, builders::PutItemFluentBuilder},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{
    Item, StoreError,
    jobs::MAX_ROW_BODY_BYTES,
    rows::{Put, Rows, binary, bytes_in, number, number_in, put_if, text, text_in, unreadable},
};
use crate::{job::StoredResult, units::UnixMs};

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
    /// Time when the call began.
    pub since: UnixMs,
    /// State of the call.
    pub state: CallState,
}

/// State of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallState {
    /// A process runs the call.
    Running,
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

    /// Claims the call until `until`, or renews the claim. Returns the existing record if another
    /// process runs the call or the call is answered.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn claim(
        &self,
        claim: &Claim,
        until: UnixMs,
        now: UnixMs,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let condition =
            "attribute_not_exists(pk) OR until_ms <= :now OR (#owner = :owner AND attribute_not_exists(ended_ms))";
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

    /// Ends a claimed call with its answer, which is kept until `until`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn answer(
        &self,
        claim: &Claim,
        answer: Option<&StoredResult>,
        until: UnixMs,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        let mut request = self.put(claim, until).item("ended_ms", number(now.as_ms()));
        if let Some(answer) = answer.filter(|answer| answer.body.len() <= MAX_ROW_BODY_BYTES) {
            let headers = serde_json::to_string(&answer.headers);
            let headers = headers.map_err(|error| unreadable(&row_key(&claim.key), &error.to_string()))?;
            request = request
                .item("status", number(answer.status.into()))
                .item("headers", text(&headers))
                .item("body", binary(&answer.body));
        }
        self.write_if_owned(request, claim).await
    }

    /// Releases a claimed call without an answer.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.write_if_owned(self.put(claim, UnixMs::default()), claim).await
    }

    fn put(&self, claim: &Claim, until: UnixMs) -> PutItemFluentBuilder {
        // Other processes may still look at a call that was released.
        let expires_s = until.max(claim.since).as_s() + 60;
        let request = self.rows.put(&row_key(&claim.key), expires_s);
        request
            .item("payload", binary(&claim.fingerprint))
            .item("owner", text(&claim.owner))
            .item("since_ms", number(claim.since.as_ms()))
            .item("until_ms", number(until.as_ms()))
    }

    /// Writes the row if it still belongs to this claim. After the end of the lease, it may belong
    /// to another process.
    async fn write_if_owned(&self, request: PutItemFluentBuilder, claim: &Claim) -> Result<(), StoreError> {
        let request = request.condition_expression("#owner = :owner").expression_attribute_names("#owner", "owner");
        match request.expression_attribute_values(":owner", text(&claim.owner)).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
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
    let state = match (time("ended_ms"), number_in(item, "status")) {
        (None, _) => CallState::Running,
        (Some(ended_at), None) => CallState::TooLarge { ended_at },
        (Some(ended_at), Some(status)) => CallState::Answered { ended_at, answer: answer(item, key, status)? },
    };
    Ok(Some(IdempotencyRecord { fingerprint, since: required("since_ms")?, state }))
}

fn answer(item: &Item, key: &str, status: u64) -> Result<StoredResult, StoreError> {
    let headers = text_in(item, "headers").and_then(|headers| serde_json::from_str(headers).ok());
    let (Ok(status), Some(headers), Some(body)) = (u16::try_from(status), headers, bytes_in(item, "body")) else {
        return Err(unreadable(key, "its answer is malformed"));
    };
    Ok(StoredResult { status, headers, body })
}
