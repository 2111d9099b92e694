//! Validation of requests against the limits of SQS: ranges, characters, names and sizes.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    error::{Error, ErrorCode},
    message::AttributeValue,
};

/// Maximum size of a message, and of all messages of a batch together.
pub const MAX_MESSAGE_BYTES: usize = 1_048_576;
/// Maximum number of entries in a batch.
pub const MAX_BATCH_ENTRIES: usize = 10;

/// Checks a parameter against the range that SQS documents. Returns `fallback` if the request omits
/// it.
pub fn range(parameter: &str, value: Option<i64>, fallback: u32, allowed: (u32, u32)) -> Result<u32, Error> {
    let Some(value) = value else { return Ok(fallback) };
    let (min, max) = allowed;
    u32::try_from(value).ok().filter(|number| (min..=max).contains(number)).ok_or_else(|| {
        Error::invalid_value(parameter, value, &format!("Must be between {min} and {max}, if provided."))
    })
}

/// Checks that a text has only characters that XML 1.0 allows.
pub fn characters(text: &str) -> Result<(), Error> {
    let allowed = |character: char| match character {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        character => character >= ' ',
    };
    if text.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidMessageContents,
        "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | \
         #x10000 to #x10FFFF",
    ))
}

/// Checks the name of a standard queue.
pub fn queue_name(name: &str) -> Result<(), Error> {
    if name.ends_with(".fifo") {
        return Err(Error::new(
            ErrorCode::UnsupportedOperation,
            "This stand-in supports only standard queues, not FIFO queues.",
        ));
    }
    let reason = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
    if is_plain_name(name) { Ok(()) } else { Err(Error::new(ErrorCode::InvalidParameterValue, reason)) }
}

/// Checks a message group id: up to 128 letters, digits and ASCII punctuation characters.
pub fn group(name: &str) -> Result<(), Error> {
    let allowed = (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if allowed {
        return Ok(());
    }
    let reason = "MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.";
    Err(Error::invalid_value("MessageGroupId", name, reason))
}

/// Checks the ids of a batch: 1 to 10 entries with distinct, well-formed ids.
pub fn batch_ids<'a>(ids: impl Iterator<Item = &'a str>, entry_type: &str) -> Result<(), Error> {
    let ids: Vec<&str> = ids.collect();
    if ids.is_empty() {
        let message = format!("There should be at least one {entry_type} in the request.");
        return Err(Error::new(ErrorCode::EmptyBatchRequest, message));
    }
    if ids.len() > MAX_BATCH_ENTRIES {
        let message =
            format!("Maximum number of entries per request are {MAX_BATCH_ENTRIES}. You have sent {}.", ids.len());
        return Err(Error::new(ErrorCode::TooManyEntriesInBatchRequest, message));
    }
    if !ids.iter().all(|id| is_plain_name(id)) {
        return Err(Error::new(
            ErrorCode::InvalidBatchEntryId,
            "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 \
             letters long.",
        ));
    }
    match ids.iter().enumerate().find(|(index, id)| ids[..*index].contains(*id)) {
        Some((_, id)) => Err(Error::new(ErrorCode::BatchEntryIdsNotDistinct, format!("Id {id} repeated."))),
        None => Ok(()),
    }
}

/// Checks message attributes: at most ten, with valid names, valid types and non-empty values.
pub fn attributes(attributes: &BTreeMap<String, AttributeValue>) -> Result<(), Error> {
    if attributes.len() > 10 {
        let message = format!("Number of message attributes [{}] exceeds the allowed maximum [10].", attributes.len());
        return Err(Error::new(ErrorCode::InvalidParameterValue, message));
    }
    attributes.iter().try_for_each(|(name, value)| {
        attribute_name(name)?;
        attribute_value(name, value)
    })
}

/// Returns the size that counts towards the limits: the body, and the names, types and values of
/// the attributes.
pub fn size_bytes(body: &str, attributes: &BTreeMap<String, AttributeValue>) -> usize {
    let attribute_bytes =
        attributes.iter().map(|(name, value)| name.len() + value.data_type.len() + value.bytes().len());
    body.len() + attribute_bytes.sum::<usize>()
}

fn is_plain_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=80).contains(&name.len()) && name.bytes().all(allowed)
}

fn attribute_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let lower_case = name.to_ascii_lowercase();
    let is_reserved = lower_case.starts_with("aws.") || lower_case.starts_with("amazon.");
    let has_stray_dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
    if (1..=256).contains(&name.len()) && name.bytes().all(allowed) && !is_reserved && !has_stray_dots {
        return Ok(());
    }
    let message = format!("The message attribute name '{name}' is invalid.");
    Err(Error::new(ErrorCode::InvalidParameterValue, message))
}

fn attribute_value(name: &str, value: &AttributeValue) -> Result<(), Error> {
    if value.string_list_values.as_ref().is_some_and(|list| !list.is_empty())
        || value.binary_list_values.as_ref().is_some_and(|list| !list.is_empty())
    {
        let message = "Message attribute list values in SendMessage operation are not supported.";
        return Err(Error::new(ErrorCode::UnsupportedOperation, message));
    }
    let invalid = |reason: &str| {
        Err(Error::new(ErrorCode::InvalidParameterValue, format!("The message attribute '{name}' {reason}.")))
    };
    let kind = value.data_type.split('.').next().unwrap_or_default();
    let text = value.string_value.as_deref();
    match (kind, text, value.binary_value.as_deref()) {
        ("", ..) => invalid("must contain a non-empty message attribute type"),
        ("Binary", _, Some(binary)) if !binary.is_empty() && STANDARD.decode(binary).is_ok() => Ok(()),
        ("String", Some(text), _) if !text.is_empty() => characters(text),
        ("Number", Some(text), _) if text.parse::<f64>().is_ok_and(f64::is_finite) => Ok(()),
        ("Number", Some(_), _) => invalid("must hold a number"),
        ("Binary" | "String" | "Number", ..) => {
            invalid(&format!("must contain a non-empty value for its type ({kind})"))
        }
        _ => invalid("has an invalid type, it must be String, Number or Binary, with an optional suffix"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_xml_characters_are_accepted() {
        for allowed in ["\t\n\r ~", "\u{D7FF}\u{E000}\u{FFFD}", "\u{10000}\u{10FFFF}"] {
            assert_eq!(characters(allowed), Ok(()), "{allowed:?}");
        }
        for refused in ["\0", "\u{8}", "\u{B}", "\u{1F}", "\u{FFFE}", "\u{FFFF}"] {
            assert_eq!(characters(refused).expect_err(refused).code, ErrorCode::InvalidMessageContents, "{refused:?}");
        }
    }

    #[test]
    fn a_range_includes_both_ends() {
        for (value, expected) in [(0, Some(0)), (900, Some(900)), (-1, None), (901, None), (i64::MAX, None)] {
            assert_eq!(range("DelaySeconds", Some(value), 7, (0, 900)).ok(), expected, "{value}");
        }
        assert_eq!(range("DelaySeconds", None, 7, (0, 900)), Ok(7));
    }
}
