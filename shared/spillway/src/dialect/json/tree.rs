//! Builds the tree of a JSON text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Builds a [`Value`] as serde_json does, with two differences. An array takes no more memory than
/// its elements. The member names that serde_json reserves for itself are names like any other:
/// of `$serde_json::private::RawValue`, serde_json would parse the text as JSON again.
pub struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(Self)? {
            array.push(element);
        }
        array.shrink_to_fit();
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let Some(name) = members.next_key::<String>()? else { return Ok(Value::Object(Map::new())) };
        // Without a capacity, the first member takes the memory of three.
        let mut object = Map::with_capacity(1);
        object.insert(name, members.next_value_seed(Self)?);
        while let Some(name) = members.next_key::<String>()? {
            object.insert(name, members.next_value_seed(Self)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn tree(text: &str) -> Option<Value> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tree = Tree.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok().map(|()| tree)
    }

    proptest! {
        #[test]
        fn a_tree_is_the_one_of_serde_json(text in r#"([\[\]{}",:\\0-9.eE-]|true|null|"a"|"b":){0,20}"#) {
            prop_assert_eq!(tree(&text), serde_json::from_str(&text).ok());
        }
    }

    #[test]
    fn members_keep_their_order_and_the_last_of_a_name_counts() {
        let text = r#"{"z":[1,-2,2.5,1e400,"\u0061"],"a":{"b":null,"b":true}}"#;
        assert_eq!(tree(text), None, "1e400 is out of range, as in serde_json");
        let text = text.replace("1e400", "18446744073709551615");
        let tree = tree(&text).expect("a tree");
        assert_eq!(tree.to_string(), r#"{"z":[1,-2,2.5,18446744073709551615,"a"],"a":{"b":true}}"#);
    }

    #[test]
    fn no_text_inside_a_string_is_parsed() {
        let member = r#"{"$serde_json::private::RawValue":"[[[]]]"}"#;
        assert_eq!(serde_json::from_str::<Value>(member).ok(), Some(json!([[[]]])), "serde_json parses it");
        assert_eq!(tree(member).map(|tree| tree.to_string()), Some(member.to_owned()));
        let number = r#"{"$serde_json::private::Number":"7"}"#;
        assert_eq!(tree(number).map(|tree| tree.to_string()), Some(number.to_owned()));
    }
}
