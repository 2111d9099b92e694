//! Answers for repetitions that reach another process: rows of the jobs table, each of one call.
//!
//! A row is claimed by the process that runs the call, under a lease that it renews, and becomes the answer. Claims and
//! answers count until `until_ms`; what is older is as good as absent, whenever DynamoDB deletes it.

use std::sync::Arc;

use aws_sdk_dynamodb::{
    Client,
    operation::put_item::{PutItemError, builders::PutItemFluentBuilder},
    primitives::Blob,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;

use super::{Item, StoreError, jobs::MAX_ROW_BODY_BYTES, tables};
use crate::job::StoredResult;

/// A call as its row names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which call: the key of an [`Identity`](crate::idempotency::Identity).
    pub key: [u8; 32],
    /// What is asked.
    pub payload: [u8; 32],
    /// Who runs it: different for each run.
    pub owner: String,
    /// When it began, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What a row says that still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What was asked.
    pub payload: [u8; 32],
    /// When the call began, in milliseconds since 1970.
    pub since_ms: u64,
    /// How far it is.
    pub state: State,
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Somebody runs it.
    Running,
    /// It was answered with this, at this time.
    Answered { ended_ms: u64, answer: StoredResult },
    /// It was answered with more than a row holds.
    TooLarge { ended_ms: u64 },
}

/// The rows of calls in the jobs table.
#[derive(Clone)]
pub struct Answers {
    client: Client,
    table: Arc<str>,
}

impl Answers {
    /// The answers in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// What is known of the call.
    pub async fn find(&self, key: &[u8; 32], now_ms: u64) -> Result<Option<Found>, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let item = request.key("pk", AttributeValue::S(row_key(key))).send().await?.item;
        item.map(|item| read(&item, now_ms)).transpose().map(Option::flatten)
    }

    /// Claims the call until `until_ms`, or renews the claim; what is there if somebody else has it, or it is answered.
    pub async fn claim(&self, claim: &Claim, until_ms: u64, now_ms: u64) -> Result<Option<Found>, StoreError> {
        let request = self
            .put(claim, until_ms)
            .condition_expression(
                "attribute_not_exists(pk) OR until_ms <= :now OR (#owner = :me AND attribute_not_exists(ended_ms))",
            )
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_values(":me", AttributeValue::S(claim.owner.clone()))
            .expression_attribute_values(":now", number(now_ms))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => match failed.item() {
                    Some(item) => read(item, now_ms),
                    None => Err(StoreError::Contended { row: row_key(&claim.key) }),
                },
                _ => Err(error.into()),
            },
        }
    }

    /// Ends a claimed call with its answer, which is kept until `until_ms`.
    pub async fn answer(
        &self,
        claim: &Claim,
        answer: Option<&StoredResult>,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let mut request = self.put(claim, until_ms).item("ended_ms", number(now_ms));
        if let Some(answer) = answer.filter(|answer| answer.body.len() <= MAX_ROW_BODY_BYTES) {
            let headers = serde_json::to_string(&answer.headers).map_err(|error| unreadable(&error.to_string()))?;
            request = request
                .item("status", number(answer.status.into()))
                .item("headers", AttributeValue::S(headers))
                .item("body", AttributeValue::B(Blob::new(answer.body.to_vec())));
        }
        self.if_owned(request, claim).await
    }

    /// Gives a claimed call back: it came to nothing that is worth keeping.
    pub async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.if_owned(self.put(claim, 0), claim).await
    }

    fn put(&self, claim: &Claim, until_ms: u64) -> PutItemFluentBuilder {
        // One that is given back may be looked at for a moment.
        let expires_s = until_ms.max(claim.since_ms) / 1_000 + 60;
        let bytes = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
        let request = self.client.put_item().table_name(&*self.table);
        request
            .item("pk", AttributeValue::S(row_key(&claim.key)))
            .item("payload", bytes(&claim.payload))
            .item("owner", AttributeValue::S(claim.owner.clone()))
            .item("since_ms", number(claim.since_ms))
            .item("until_ms", number(until_ms))
            .item(tables::EXPIRES_S, number(expires_s))
    }

    /// Writes as long as the row is this claim's: one whose lease has ended may have found another owner.
    async fn if_owned(&self, request: PutItemFluentBuilder, claim: &Claim) -> Result<(), StoreError> {
        let request = request.condition_expression("#owner = :me").expression_attribute_names("#owner", "owner");
        let request = request.expression_attribute_values(":me", AttributeValue::S(claim.owner.clone()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Jobs are named by UUIDs, so no id of a job can reach these rows.
fn row_key(key: &[u8; 32]) -> String {
    format!("answer#{}", BASE64_URL_SAFE_NO_PAD.encode(key))
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// What the row says, unless its time is over.
fn read(item: &Item, now_ms: u64) -> Result<Option<Found>, StoreError> {
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<u64>().ok();
    let needed = |name: &str| number(name).ok_or_else(|| unreadable(&format!("it has no {name}")));
    if needed("until_ms")? <= now_ms {
        return Ok(None);
    }
    let bytes = |name: &str| item.get(name)?.as_b().ok().map(AsRef::as_ref);
    let payload = bytes("payload").and_then(|payload: &[u8]| payload.try_into().ok());
    let payload = payload.ok_or_else(|| unreadable("it has no payload"))?;
    let state = match (number("ended_ms"), number("status")) {
        (None, _) => State::Running,
        (Some(ended_ms), None) => State::TooLarge { ended_ms },
        (Some(ended_ms), Some(status)) => {
            let headers = item.get("headers").and_then(|headers| serde_json::from_str(headers.as_s().ok()?).ok());
            let (Ok(status), Some(headers), Some(body)) = (u16::try_from(status), headers, bytes("body")) else {
                return Err(unreadable("its answer is not one"));
            };
            let body = Bytes::copy_from_slice(body);
            State::Answered { ended_ms, answer: StoredResult { status, headers, body } }
        }
    };
    Ok(Some(Found { payload, since_ms: needed("since_ms")?, state }))
}

fn unreadable(why: &str) -> StoreError {
    StoreError::Unreadable { row: "the answer to a call".to_owned(), why: why.to_owned() }
}
