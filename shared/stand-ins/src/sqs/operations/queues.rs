//! The operations on queues themselves: creation, deletion, attributes, tags and lists.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{
    checks,
    error::{Error, Fault},
    queue::{About, Queue},
    service::Service,
    settings::{Settings, arn_of_queue},
    state::{Change, State, targets},
};

/// A queue may be purged once in this time.
const PURGE_PAUSE_MS: u64 = 60_000;

#[derive(Deserialize)]
struct Create {
    #[serde(rename = "QueueName")]
    name: Option<String>,
    #[serde(rename = "Attributes")]
    attributes: Option<BTreeMap<String, String>>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attributes {
    attributes: Option<BTreeMap<String, String>>,
    attribute_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tags {
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    queue_name_prefix: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

pub fn create(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: Create = call.input()?;
    let name = input.name.ok_or_else(|| Error::missing("QueueName"))?;
    checks::queue_name(&name)?;
    let attributes = input.attributes.unwrap_or_default();
    service.transact(|state, now_ms| {
        if let Some(queue) = state.queues.get(&name) {
            return agrees(&queue.about.settings, &attributes).map(|()| json!({ "QueueUrl": call.url_of(&name) }));
        }
        let settings = Settings::default().with(&attributes)?;
        check_redrive_target(state, &settings)?;
        let tags = input.tags.unwrap_or_default();
        let about = About { settings, tags, created_ms: now_ms, modified_ms: now_ms, purged_ms: None };
        state.queues.insert(name.clone(), Queue::new(about));
        state.changes.push(Change::Queue(name.clone()));
        Ok(json!({ "QueueUrl": call.url_of(&name) }))
    })
}

pub fn delete(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    service.transact(|state, _| {
        state.queue(&name)?;
        state.purge(&name);
        state.queues.remove(&name);
        state.changes.push(Change::QueueGone(name.clone()));
        Ok(json!({}))
    })
}

pub fn purge(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    service.transact(|state, now_ms| {
        let last_ms = state.queue(&name)?.about.purged_ms;
        if last_ms.is_some_and(|last_ms| now_ms < last_ms + PURGE_PAUSE_MS) {
            let message = format!("Only one PurgeQueue operation on {name} is allowed every 60 seconds.");
            return Err(Error::new(Fault::PurgeQueueInProgress, message));
        }
        state.purge(&name);
        state.queue_mut(&name)?.about.purged_ms = Some(now_ms);
        Ok(json!({}))
    })
}

pub fn attributes(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let wanted = call.input::<Attributes>()?.attribute_names.unwrap_or_default();
    let all = service.transact(|state, _| Ok(rendered(&name, state.queue(&name)?)))?;
    if wanted.iter().any(|name| name == "All") {
        return Ok(json!({ "Attributes": all }));
    }
    const CONDITIONAL: [&str; 5] =
        ["KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "RedrivePolicy"];
    let mut shown = BTreeMap::new();
    for name in &wanted {
        match all.get(name) {
            Some(value) => drop(shown.insert(name.clone(), value.clone())),
            None if CONDITIONAL.contains(&name.as_str()) => {}
            None => return Err(Error::new(Fault::InvalidAttributeName, format!("Unknown Attribute {name}."))),
        }
    }
    Ok(if shown.is_empty() { json!({}) } else { json!({ "Attributes": shown }) })
}

pub fn set_attributes(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let attributes = call.input::<Attributes>()?.attributes.ok_or_else(|| Error::missing("Attributes"))?;
    service.transact(|state, now_ms| {
        let settings = state.queue(&name)?.about.settings.with(&attributes)?;
        check_redrive_target(state, &settings)?;
        let queue = state.queue_mut(&name)?;
        queue.about.settings = settings;
        queue.about.modified_ms = now_ms;
        Ok(json!({}))
    })
}

pub fn url(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.input::<Create>()?.name.ok_or_else(|| Error::missing("QueueName"))?;
    service.transact(|state, _| state.queue(&name).map(|_| ()))?;
    Ok(json!({ "QueueUrl": call.url_of(&name) }))
}

pub fn list(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: Page = call.input()?;
    let prefix = input.queue_name_prefix.clone().unwrap_or_default();
    let names = service.transact(|state, _| Ok(state.queues.keys().cloned().collect::<Vec<_>>()))?;
    page(call, &input, names.into_iter().filter(|name| name.starts_with(&prefix)), "QueueUrls")
}

pub fn list_sources(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let arn = arn_of_queue(&name);
    let names = service.transact(|state, _| {
        state.queue(&name)?;
        let sources = state.queues.iter().filter(|(_, queue)| targets(queue, &arn));
        Ok(sources.map(|(name, _)| name.clone()).collect::<Vec<_>>())
    })?;
    page(call, &call.input()?, names.into_iter(), "queueUrls")
}

pub fn tags(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let tags = service.transact(|state, _| Ok(state.queue(&name)?.about.tags.clone()))?;
    Ok(if tags.is_empty() { json!({}) } else { json!({ "Tags": tags }) })
}

pub fn tag(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let tags = call.input::<Tags>()?.tags.ok_or_else(|| Error::missing("Tags"))?;
    service.transact(|state, _| {
        state.queue_mut(&name)?.about.tags.extend(tags);
        Ok(json!({}))
    })
}

pub fn untag(service: &Service, call: &Call) -> Result<Value, Error> {
    let name = call.queue()?;
    let keys = call.input::<Tags>()?.tag_keys.ok_or_else(|| Error::missing("TagKeys"))?;
    service.transact(|state, _| {
        state.queue_mut(&name)?.about.tags.retain(|key, _| !keys.contains(key));
        Ok(json!({}))
    })
}

/// An existing queue can be "created" again with the values it has, and with no other ones.
fn agrees(settings: &Settings, attributes: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in attributes {
        if settings.with(&BTreeMap::from([(name.clone(), value.clone())]))? != *settings {
            let message =
                format!("A queue already exists with the same name and a different value for attribute {name}");
            return Err(Error::new(Fault::QueueNameExists, message));
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

fn rendered(name: &str, queue: &Queue) -> BTreeMap<String, String> {
    let counts = queue.counts();
    let mut attributes = queue.about.settings.render();
    let computed = [
        ("QueueArn", arn_of_queue(name)),
        ("ApproximateNumberOfMessages", counts.visible.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
        ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
        ("CreatedTimestamp", (queue.about.created_ms / 1_000).to_string()),
        ("LastModifiedTimestamp", (queue.about.modified_ms / 1_000).to_string()),
    ];
    attributes.extend(computed.map(|(name, value)| (name.to_owned(), value)));
    attributes
}

/// One page of queue URLs. The token is the last name shown; AWS pages only when `MaxResults` is given.
fn page(call: &Call, input: &Page, names: impl Iterator<Item = String>, member: &str) -> Result<Value, Error> {
    let count = checks::range("MaxResults", input.max_results, 1_000, (1, 1_000))? as usize;
    let after = input.next_token.as_deref().unwrap_or_default();
    let mut names: Vec<String> = names.filter(|name| name.as_str() > after).take(count + 1).collect();
    let has_more = names.len() > count && input.max_results.is_some();
    names.truncate(count);
    let urls: Vec<String> = names.iter().map(|name| call.url_of(name)).collect();
    let mut output = if urls.is_empty() && member == "QueueUrls" { json!({}) } else { json!({ member: urls }) };
    if has_more {
        output["NextToken"] = json!(names.last());
    }
    Ok(output)
}
