//! Deletes and changes of visibility: what a consumer does with its receipt handle, one at a time or in batches.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, batch};
use crate::sqs::{
    checks,
    error::{Error, Fault},
    message::Receipt,
    service::Service,
    state::State,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Acknowledge {
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

pub fn delete(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: Acknowledge = call.input()?;
    service.transact(|state, _| delete_one(state, &queue, &input))
}

pub fn delete_batch(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let entries = batch::entries::<Acknowledge>(call, "DeleteMessageBatchRequestEntry")?;
    service.transact(|state, _| {
        state.queue(&queue)?;
        let results = entries.into_iter().map(|entry| (entry.id, delete_one(state, &queue, &entry.input)));
        Ok(batch::answer(results.collect()))
    })
}

pub fn change_visibility(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: Acknowledge = call.input()?;
    service.transact(|state, now_ms| change_one(state, &queue, &input, now_ms))
}

pub fn change_visibility_batch(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let entries = batch::entries::<Acknowledge>(call, "ChangeMessageVisibilityBatchRequestEntry")?;
    service.transact(|state, now_ms| {
        state.queue(&queue)?;
        let results = entries.into_iter().map(|entry| (entry.id, change_one(state, &queue, &entry.input, now_ms)));
        Ok(batch::answer(results.collect()))
    })
}

fn delete_one(state: &mut State, queue: &str, input: &Acknowledge) -> Result<Value, Error> {
    state.queue(queue)?;
    state.delete(queue, &receipt(queue, input)?);
    Ok(json!({}))
}

fn change_one(state: &mut State, queue: &str, input: &Acknowledge, now_ms: u64) -> Result<Value, Error> {
    state.queue(queue)?;
    if input.visibility_timeout.is_none() {
        return Err(Error::missing("VisibilityTimeout"));
    }
    let receipt = receipt(queue, input)?;
    let visibility_s = checks::range("VisibilityTimeout", input.visibility_timeout, 0, (0, 43_200))?;
    state.change_visibility(queue, &receipt, visibility_s, now_ms)?;
    Ok(json!({}))
}

fn receipt(queue: &str, input: &Acknowledge) -> Result<Receipt, Error> {
    let handle = input.receipt_handle.as_deref().filter(|handle| !handle.is_empty());
    let handle = handle.ok_or_else(|| Error::missing("ReceiptHandle"))?;
    Receipt::from_handle(handle).filter(|receipt| receipt.queue == queue).ok_or_else(|| {
        let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
        Error::new(Fault::ReceiptHandleIsInvalid, message)
    })
}
