//! Operations on queues: creation, deletion, purge, attributes, tags and lists.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{
    error::{Error, ErrorCode},
    queue::{Queue, QueueMetadata},
    service::Service,
    settings::{Settings, queue_arn},
    state::{Change, State, has_redrive_target},
    validate,
};

/// Minimum time between two purges of a queue.
const MIN_PURGE_INTERVAL_MS: u64 = 60_000;

#[derive(Deserialize)]
struct CreateQueue {
    #[serde(rename = "QueueName")]
    name: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributesInput {
    attributes: Option<BTreeMap<String, String>>,
    attribute_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagsInput {
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageInput {
    queue_name_prefix: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

/// Runs CreateQueue.
pub fn create(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: CreateQueue = call.input()?;
    let name = input.name.ok_or_else(|| Error::missing("QueueName"))?;
    validate::queue_name(&name)?;
    let attributes = input.attributes.unwrap_or_default();
    service.transact(|state, now_ms| {
        if let Some(queue) = state.queues.get(&name) {
            return check_same_settings(&queue.metadata.settings, &attributes)
                .map(|()| json!({ "QueueUrl": call.queue_url(&name) }));
        }
        let settings = Settings::default().with_attributes(&attributes)?;
        check_redrive_target(state, &settings)?;
        let tags = input.tags.unwrap_or_default();
        let metadata = QueueMetadata { settings, tags, created_ms: now_ms, modified_ms: now_ms, purged_ms: None };
        state.queues.insert(name.clone(), Queue::new(metadata));
        state.changes.push(Change::QueueUpdated(name.clone()));
        Ok(json!({ "QueueUrl": call.queue_url(&name) }))
    })
}

/// Runs DeleteQueue.
pub fn delete(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    service.transact(|state, _| {
        state.queue(&name)?;
        state.purge(&name);
        state.queues.remove(&name);
        state.changes.push(Change::QueueDeleted(name.clone()));
        Ok(json!({}))
    })
}

/// Runs PurgeQueue.
pub fn purge(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    service.transact(|state, now_ms| {
        let last_ms = state.queue(&name)?.metadata.purged_ms;
        if last_ms.is_some_and(|last_ms| now_ms < last_ms + MIN_PURGE_INTERVAL_MS) {
            let message = format!("Only one PurgeQueue operation on {name} is allowed every 60 seconds.");
            return Err(Error::new(ErrorCode::PurgeQueueInProgress, message));
        }
        state.purge(&name);
        state.queue_mut(&name)?.metadata.purged_ms = Some(now_ms);
        Ok(json!({}))
    })
}

/// Runs GetQueueAttributes.
pub fn attributes(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let requested = call.input::<AttributesInput>()?.attribute_names.unwrap_or_default();
    let attributes = service.transact(|state, _| Ok(queue_attributes(&name, state.queue(&name)?)))?;
    if requested.iter().any(|name| name == "All") {
        return Ok(json!({ "Attributes": attributes }));
    }
    const CONDITIONAL: [&str; 5] =
        ["KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "RedrivePolicy"];
    let mut selected = BTreeMap::new();
    for name in &requested {
        match attributes.get(name) {
            Some(value) => drop(selected.insert(name.clone(), value.clone())),
            None if CONDITIONAL.contains(&name.as_str()) => {}
            None => return Err(Error::new(ErrorCode::InvalidAttributeName, format!("Unknown Attribute {name}."))),
        }
    }
    Ok(if selected.is_empty() { json!({}) } else { json!({ "Attributes": selected }) })
}

/// Runs SetQueueAttributes.
pub fn set_attributes(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let attributes = call.input::<AttributesInput>()?.attributes.ok_or_else(|| Error::missing("Attributes"))?;
    service.transact(|state, now_ms| {
        let settings = state.queue(&name)?.metadata.settings.with_attributes(&attributes)?;
        check_redrive_target(state, &settings)?;
        let queue = state.queue_mut(&name)?;
        queue.metadata.settings = settings;
        queue.metadata.modified_ms = now_ms;
        Ok(json!({}))
    })
}

/// Runs GetQueueUrl.
pub fn url(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.input::<CreateQueue>()?.name.ok_or_else(|| Error::missing("QueueName"))?;
    service.transact(|state, _| state.queue(&name).map(|_| ()))?;
    Ok(json!({ "QueueUrl": call.queue_url(&name) }))
}

/// Runs ListQueues.
pub fn list(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: PageInput = call.input()?;
    let prefix = input.queue_name_prefix.clone().unwrap_or_default();
    let names = service.transact(|state, _| Ok(state.queues.keys().cloned().collect::<Vec<_>>()))?;
    page(call, &input, names.into_iter().filter(|name| name.starts_with(&prefix)), "QueueUrls")
}

/// Runs ListDeadLetterSourceQueues.
pub fn list_sources(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let arn = queue_arn(&name);
    let names = service.transact(|state, _| {
        state.queue(&name)?;
        let sources = state.queues.iter().filter(|(_, queue)| has_redrive_target(queue, &arn));
        Ok(sources.map(|(name, _)| name.clone()).collect::<Vec<_>>())
    })?;
    page(call, &call.input()?, names.into_iter(), "queueUrls")
}

/// Runs ListQueueTags.
pub fn tags(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let tags = service.transact(|state, _| Ok(state.queue(&name)?.metadata.tags.clone()))?;
    Ok(if tags.is_empty() { json!({}) } else { json!({ "Tags": tags }) })
}

/// Runs TagQueue.
pub fn tag(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let tags = call.input::<TagsInput>()?.tags.ok_or_else(|| Error::missing("Tags"))?;
    service.transact(|state, _| {
        state.queue_mut(&name)?.metadata.tags.extend(tags);
        Ok(json!({}))
    })
}

/// Runs UntagQueue.
pub fn untag(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let keys = call.input::<TagsInput>()?.tag_keys.ok_or_else(|| Error::missing("TagKeys"))?;
    service.transact(|state, _| {
        state.queue_mut(&name)?.metadata.tags.retain(|key, _| !keys.contains(key));
        Ok(json!({}))
    })
}

/// Checks that CreateQueue on an existing queue gives the values that the queue has.
fn check_same_settings(settings: &Settings, attributes: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in attributes {
        if settings.with_attributes(&BTreeMap::from([(name.clone(), value.clone())]))? != *settings {
            let message =
                format!("A queue already exists with the same name and a different value for attribute {name}");
            return Err(Error::new(ErrorCode::QueueNameExists, message));
        }
    }
    Ok(())
}

fn check_redrive_target(state: &State, settings: &Settings) -> Result<(), Error> {
    let Some(redrive) = &settings.redrive else { return Ok(()) };
    if redrive.target().is_some_and(|target| state.queues.contains_key(target)) {
        return Ok(());
    }
    Err(Error::invalid_value("RedrivePolicy", json!(redrive), "Dead letter target does not exist."))
}

fn queue_attributes(name: &str, queue: &Queue) -> BTreeMap<String, String> {
    let counts = queue.counts();
    let mut attributes = queue.metadata.settings.render();
    let computed = [
        ("QueueArn", queue_arn(name)),
        ("ApproximateNumberOfMessages", counts.visible.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
        ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
        ("CreatedTimestamp", (queue.metadata.created_ms / 1_000).to_string()),
        ("LastModifiedTimestamp", (queue.metadata.modified_ms / 1_000).to_string()),
    ];
    attributes.extend(computed.map(|(name, value)| (name.to_owned(), value)));
    attributes
}

/// Returns a page of queue URLs. The token is the last name of the page. AWS pages only if
/// `MaxResults` is given.
fn page(call: &Call, input: &PageInput, names: impl Iterator<Item = String>, member: &str) -> Result<Value, Error> {
    let count = validate::range("MaxResults", input.max_results, 1_000, (1, 1_000))? as usize;
    let last_name = input.next_token.as_deref().unwrap_or_default();
    let mut names: Vec<String> = names.filter(|name| name.as_str() > last_name).take(count + 1).collect();
    let has_more = names.len() > count && input.max_results.is_some();
    names.truncate(count);
    let urls: Vec<String> = names.iter().map(|name| call.queue_url(name)).collect();
    let mut output = if urls.is_empty() && member == "QueueUrls" { json!({}) } else { json!({ member: urls }) };
    if has_more {
        output["NextToken"] = json!(names.last());
    }
    Ok(output)
}
