//! SendMessage and SendMessageBatch.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, batch};
use crate::sqs::{
    digest,
    error::{Error, ErrorCode},
    message::{AttributeValue, Content},
    service::Service,
    settings::Settings,
    state::State,
    validate,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendInput {
    message_body: Option<String>,
    delay_seconds: Option<i64>,
    message_attributes: Option<BTreeMap<String, AttributeValue>>,
    message_system_attributes: Option<BTreeMap<String, AttributeValue>>,
    message_deduplication_id: Option<String>,
    message_group_id: Option<String>,
}

/// Runs SendMessage.
pub fn send(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let input: SendInput = call.input()?;
    service.transact(|state, now_ms| send_message(state, &queue, input, now_ms))
}

/// Runs SendMessageBatch.
pub fn batch(service: &Service, call: &Call) -> Result<Value, Error> {
    let queue = call.queue()?;
    let entries = batch::entries::<SendInput>(call, "SendMessageBatchRequestEntry")?;
    let bytes: usize = entries.iter().map(|entry| entry.input.size_bytes()).sum();
    if bytes > validate::MAX_MESSAGE_BYTES {
        let max_bytes = validate::MAX_MESSAGE_BYTES;
        let message = format!("Batch requests cannot be longer than {max_bytes} bytes. You have sent {bytes} bytes.");
        return Err(Error::new(ErrorCode::BatchRequestTooLong, message));
    }
    service.transact(|state, now_ms| {
        state.queue(&queue)?;
        let results = entries.into_iter().map(|entry| (entry.id, send_message(state, &queue, entry.input, now_ms)));
        Ok(batch::output(results.collect()))
    })
}

fn send_message(state: &mut State, queue: &str, input: SendInput, now_ms: u64) -> Result<Value, Error> {
    let settings = &state.queue(queue)?.metadata.settings;
    input.check(settings)?;
    let delay_s = validate::range("DelaySeconds", input.delay_seconds, settings.delay_s, (0, 900))?;
    let content = input.into_content(now_ms)?;
    let mut output = json!({ "MessageId": content.id, "MD5OfMessageBody": digest::for_body(&content.body) });
    if let Some(digest) = digest::for_attributes(&content.attributes) {
        output["MD5OfMessageAttributes"] = json!(digest);
    }
    if let Some(header) = &content.trace_header {
        let data_type = "String".to_owned();
        let value = AttributeValue { data_type, string_value: Some(header.clone()), ..AttributeValue::default() };
        output["MD5OfMessageSystemAttributes"] =
            json!(digest::for_attributes([(&"AWSTraceHeader".to_owned(), &value)]));
    }
    state.send(queue, content, delay_s, now_ms);
    Ok(output)
}

impl SendInput {
    fn size_bytes(&self) -> usize {
        let attributes = self.message_attributes.as_ref();
        validate::size_bytes(self.body(), attributes.unwrap_or(&BTreeMap::new()))
    }

    fn body(&self) -> &str {
        self.message_body.as_deref().unwrap_or_default()
    }

    fn check(&self, settings: &Settings) -> Result<(), Error> {
        if self.body().is_empty() {
            return Err(Error::missing("MessageBody"));
        }
        if let Some(id) = &self.message_deduplication_id {
            let reason = "The request includes a parameter that is not valid for this queue type.";
            return Err(Error::invalid_value("MessageDeduplicationId", id, reason));
        }
        if self.size_bytes() > settings.max_bytes as usize {
            let max_bytes = settings.max_bytes;
            let message =
                format!("One or more parameters are invalid. Reason: Message must be shorter than {max_bytes} bytes.");
            return Err(Error::new(ErrorCode::InvalidParameterValue, message));
        }
        validate::characters(self.body())?;
        self.message_group_id.as_deref().map_or(Ok(()), validate::group)?;
        self.message_attributes.as_ref().map_or(Ok(()), validate::attributes)
    }

    fn into_content(self, now_ms: u64) -> Result<Content, Error> {
        let mut trace_header = None;
        for (name, value) in self.message_system_attributes.unwrap_or_default() {
            match value.string_value {
                Some(header) if name == "AWSTraceHeader" && value.data_type == "String" => trace_header = Some(header),
                _ => {
                    let message = format!("Message system attribute name '{name}' is invalid.");
                    return Err(Error::new(ErrorCode::InvalidParameterValue, message));
                }
            }
        }
        Ok(Content {
            id: uuid::Uuid::new_v4().to_string(),
            body: self.message_body.unwrap_or_default(),
            group: self.message_group_id,
            attributes: self.message_attributes.unwrap_or_default(),
            trace_header,
            sent_ms: now_ms,
        })
    }
}
