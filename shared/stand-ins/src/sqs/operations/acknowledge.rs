//! DeleteMessage and ChangeMessageVisibility, and their batches.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, batch};
use crate::sqs::{
    error::{Error, ErrorCode},
    message::Receipt,
    service::Service,
    state::State,
    validate,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiptInput {
    receipt_handle: Option<String>,
    visibility_timeout: Option<i64>,
}

/// Runs DeleteMessage.
pub fn delete(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: ReceiptInput = call.input()?;
    service.transact(|state, _| delete_message(state, &queue, &input))
}

/// Runs DeleteMessageBatch.
pub fn delete_batch(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let entries = batch::entries::<ReceiptInput>(call, "DeleteMessageBatchRequestEntry")?;
    service.transact(|state, _| {
        state.queue(&queue)?;
        let results = entries.into_iter().map(|entry| (entry.id, delete_message(state, &queue, &entry.input)));
        Ok(batch::output(results.collect()))
    })
}

/// Runs ChangeMessageVisibility.
pub fn change_visibility(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: ReceiptInput = call.input()?;
    service.transact(|state, now_ms| change_message_visibility(state, &queue, &input, now_ms))
}

/// Runs ChangeMessageVisibilityBatch.
pub fn change_visibility_batch(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let entries = batch::entries::<ReceiptInput>(call, "ChangeMessageVisibilityBatchRequestEntry")?;
    service.transact(|state, now_ms| {
        state.queue(&queue)?;
        let results =
            entries.into_iter().map(|entry| (entry.id, change_message_visibility(state, &queue, &entry.input, now_ms)));
        Ok(batch::output(results.collect()))
    })
}

fn delete_message(state: &mut State, queue: &str, input: &ReceiptInput) -> Result<Value, Error> {
    state.queue(queue)?;
    state.delete(queue, &receipt(queue, input)?);
    Ok(json!({}))
}

fn change_message_visibility(
    state: &mut State,
    queue: &str,
    input: &ReceiptInput,
    now_ms: u64,
) -> Result<Value, Error> {
    state.queue(queue)?;
    if input.visibility_timeout.is_none() {
        return Err(Error::missing("VisibilityTimeout"));
    }
    let receipt = receipt(queue, input)?;
    let visibility_s = validate::range("VisibilityTimeout", input.visibility_timeout, 0, (0, 43_200))?;
    state.change_visibility(queue, &receipt, visibility_s, now_ms)?;
    Ok(json!({}))
}

fn receipt(queue: &str, input: &ReceiptInput) -> Result<Receipt, Error> {
    let handle = input.receipt_handle.as_deref().filter(|handle| !handle.is_empty());
    let handle = handle.ok_or_else(|| Error::missing("ReceiptHandle"))?;
    Receipt::from_handle(handle).filter(|receipt| receipt.queue == queue).ok_or_else(|| {
        let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
        Error::new(ErrorCode::ReceiptHandleIsInvalid, message)
    })
}
