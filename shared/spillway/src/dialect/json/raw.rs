//! JSON that is only carried: its members and elements stay the bytes of the caller.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::bounds::{Excess, MAX_VALUES};

/// The members of an object, each with its text. At most [`MAX_VALUES`].
pub fn members(json: &[u8]) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let members = deserializer.deserialize_map(Members)?;
    deserializer.end()?;
    Ok(members)
}

/// The elements of an array, each with its text. At most [`MAX_VALUES`].
pub fn elements(json: &RawValue) -> serde_json::Result<Vec<&RawValue>> {
    serde_json::Deserializer::from_str(json.get()).deserialize_seq(Elements)
}

/// Returns the last member with this name, which is the one that counts, as in a tree.
pub fn member<'j>(members: &[(String, &'j RawValue)], name: &str) -> Option<&'j RawValue> {
    members.iter().rev().find(|(member, _)| member == name).map(|(_, value)| *value)
}

/// Returns the value if it is a string.
pub fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = source.next_entry()? {
            members.push(member);
            if members.len() > MAX_VALUES {
                return Err(A::Error::custom(Excess::Values));
            }
        }
        Ok(members)
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = source.next_element()? {
            elements.push(element);
            if elements.len() > MAX_VALUES {
                return Err(A::Error::custom(Excess::Values));
            }
        }
        Ok(elements)
    }
}
