//! ReceiveMessage, with long polling.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{
    digest,
    error::{Error, ErrorCode},
    message::Message,
    service::Service,
    settings::ACCOUNT_ID,
    state::Received,
    validate,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveInput {
    attribute_names: Option<Vec<String>>,
    message_system_attribute_names: Option<Vec<String>>,
    message_attribute_names: Option<Vec<String>>,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<i64>,
}

/// Names of the attributes that the caller requests.
struct RequestedAttributes {
    system: Vec<String>,
    attributes: Vec<String>,
}

/// Runs ReceiveMessage.
pub async fn receive(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: ReceiveInput = call.input()?;
    let settings = service.transact(|state, _| Ok(state.queue(&queue)?.metadata.settings.clone()))?;
    let count = validate::range("MaxNumberOfMessages", input.max_number_of_messages, 1, (1, 10))?;
    let visibility_s =
        validate::range("VisibilityTimeout", input.visibility_timeout, settings.visibility_s, (0, 43_200))?;
    let wait_s = validate::range("WaitTimeSeconds", input.wait_time_seconds, settings.wait_s, (0, 20))?;
    let received = service.long_poll(&queue, wait_s, |state, now_ms| {
        match state.receive(&queue, count, visibility_s, now_ms) {
            // A long poll waits until fewer messages are in flight. A short poll gets the error.
            Err(error) if error.code == ErrorCode::OverLimit && wait_s > 0 => Ok(None),
            received => received.map(|received| Some(received).filter(|received| !received.is_empty())),
        }
    });
    let mut system = input.message_system_attribute_names.unwrap_or_default();
    system.extend(input.attribute_names.unwrap_or_default());
    let wanted = RequestedAttributes { system, attributes: input.message_attribute_names.unwrap_or_default() };
    Ok(match received.await? {
        Some(received) => {
            json!({ "Messages": received.iter().map(|received| to_json(received, &wanted)).collect::<Vec<_>>() })
        }
        None => json!({}),
    })
}

fn to_json(received: &Received, wanted: &RequestedAttributes) -> Value {
    let content = &received.message.content;
    let mut output = json!({
        "MessageId": content.id,
        "ReceiptHandle": received.receipt.to_handle(),
        "MD5OfBody": digest::for_body(&content.body),
        "Body": content.body,
    });
    let system = system_attributes(&received.message, &wanted.system);
    if !system.is_empty() {
        output["Attributes"] = json!(system);
    }
    let attributes: BTreeMap<_, _> =
        content.attributes.iter().filter(|(name, _)| is_wanted(name, &wanted.attributes)).collect();
    if let Some(digest) = digest::for_attributes(attributes.iter().map(|(name, value)| (*name, *value))) {
        output["MD5OfMessageAttributes"] = json!(digest);
        output["MessageAttributes"] = json!(attributes);
    }
    output
}

fn system_attributes(message: &Message, wanted: &[String]) -> BTreeMap<&'static str, String> {
    let (content, delivery) = (&message.content, &message.delivery);
    let attributes = [
        ("SenderId", Some(ACCOUNT_ID.to_owned())),
        ("SentTimestamp", Some(content.sent_ms.to_string())),
        ("ApproximateReceiveCount", Some(delivery.receive_count.to_string())),
        ("ApproximateFirstReceiveTimestamp", delivery.first_received_ms.map(|at_ms| at_ms.to_string())),
        ("MessageGroupId", content.group.clone()),
        ("AWSTraceHeader", content.trace_header.clone()),
        ("DeadLetterQueueSourceArn", delivery.source_arn.clone()),
    ];
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == "All" || wanted == name);
    attributes
        .into_iter()
        .filter(|(name, _)| is_wanted(name))
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// Returns whether a name is requested: by `All`, `.*`, its full name, or a prefix followed by
/// `.*`.
fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.iter().any(|wanted| match wanted.strip_suffix(".*") {
        Some(prefix) => name.starts_with(prefix),
        None => wanted == "All" || wanted == name,
    })
}
