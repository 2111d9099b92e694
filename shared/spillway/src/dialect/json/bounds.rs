//! Bounds of JSON from callers: one pass over its bytes, without an allocation and before anything
//! is built of them.

use std::fmt;

use memchr::memchr2;

/// Maximum depth of arrays and objects. The schema of a tool takes two levels for each level of the
/// tool's arguments, and the tools in use have fewer than ten. serde_json stops at 127 levels.
pub const MAX_DEPTH: usize = 64;

/// Maximum number of values and member names in a request. In memory, each takes up to
/// [`BYTES_PER_VALUE`] beside its text: 18 MB in all. The largest body has 40 bytes for each of
/// them. A conversation has more: a message of one word takes 50 bytes for 5 of them, a tool call
/// with its result takes 1,000 bytes for 30.
pub const MAX_VALUES: usize = 150_000;

/// Maximum number of values and member names in the JSON inside the strings of a request, in
/// addition. The arguments of a tool call, of which a conversation has thousands, have about ten.
pub const MAX_INNER_VALUES: usize = 50_000;

/// Maximum memory of a value or member name in a tree, without its text: an object with two members
/// of one character takes 440 bytes for four of them.
pub const BYTES_PER_VALUE: usize = 120;

/// The bound that a text exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Arrays and objects are nested deeper than [`MAX_DEPTH`].
    Depth,
    /// There are more values and member names than are allowed.
    Values,
}

impl fmt::Display for Excess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => {
                write!(
                    formatter,
                    "is nested deeper than {MAX_DEPTH} levels; send arrays and objects that are less deep"
                )
            }
            Self::Values => {
                let instead = "split it into several requests, or send data as text in one string";
                write!(
                    formatter,
                    "has more than {MAX_VALUES} JSON values and member names, or {MAX_INNER_VALUES} inside strings; {instead}"
                )
            }
        }
    }
}

/// Returns the number of values and member names in `json`, if it is within the bounds and has at
/// most `max_values`. What is not JSON is not an error here.
pub fn check(json: &[u8], max_values: usize) -> Result<usize, Excess> {
    let (mut at, mut depth, mut values) = (0, 0_usize, 0);
    while let Some(byte) = json.get(at) {
        let next = at + 1;
        at = match byte {
            b'"' => string_end(json, next),
            b'[' | b'{' => {
                depth += 1;
                next
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at = next;
                continue;
            }
            b'a'..=b'z' | b'0'..=b'9' | b'-' => scalar_end(json, next),
            _ => {
                at = next;
                continue;
            }
        };
        values += 1;
        if depth > MAX_DEPTH {
            return Err(Excess::Depth);
        }
        if values > max_values {
            return Err(Excess::Values);
        }
    }
    Ok(values)
}

/// Returns the place after the string whose content starts at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
        at += found + 1;
        if json[at - 1] == b'"' {
            return at;
        }
        // The character after the backslash belongs to the escape.
        at += 1;
    }
    json.len()
}

/// Returns the place after the number or word that has a character before `at`.
fn scalar_end(json: &[u8], at: usize) -> usize {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    at + json[at..].iter().take_while(|byte| is_part(byte)).count()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Map, Value, json};

    use super::*;

    /// The depth of a tree, and its number of values and member names.
    fn measured(tree: &Value) -> (usize, usize) {
        let inner: Vec<_> = match tree {
            Value::Array(elements) => elements.iter().map(measured).collect(),
            Value::Object(members) => members.values().map(measured).collect(),
            _ => return (0, 1),
        };
        let names = tree.as_object().map_or(0, Map::len);
        let depth = inner.iter().map(|(depth, _)| *depth).max().unwrap_or_default();
        (depth + 1, names + 1 + inner.iter().map(|(_, values)| *values).sum::<usize>())
    }

    fn trees() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
            r#"([\[\]{}",:\\]|\PC){0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            let members = vec((r#"([\[\]{}",:\\]|\PC){0,8}"#, inner.clone()), 0..6);
            prop_oneof![
                vec(inner, 0..6).prop_map(Value::from),
                members.prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// The text of `tree`, with blanks where JSON allows them, and with other escapes.
    fn written(tree: &Value, blank: &str, escapes_all: bool) -> String {
        let string = |text: &str| match escapes_all {
            true => format!("\"{}\"", text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>()),
            false => json!(text).to_string(),
        };
        let list = |open, parts: Vec<String>, close| {
            format!("{open}{blank}{}{blank}{close}", parts.join(&format!("{blank},{blank}")))
        };
        match tree {
            Value::String(text) => string(text),
            Value::Array(elements) => {
                list('[', elements.iter().map(|element| written(element, blank, escapes_all)).collect(), ']')
            }
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    format!("{}{blank}:{blank}{}", string(name), written(value, blank, escapes_all))
                };
                list('{', members.iter().map(member).collect(), '}')
            }
            scalar => scalar.to_string(),
        }
    }

    proptest! {
        #[test]
        fn the_pass_counts_what_a_tree_has(tree in trees(), blank in "[ \r\n\t]{0,2}", escapes_all: bool) {
            let text = written(&tree, &blank, escapes_all);
            prop_assert_eq!(&serde_json::from_str::<Value>(&text).expect("JSON"), &tree);
            let (depth, values) = measured(&tree);
            prop_assert_eq!(check(text.as_bytes(), values), Ok(values));
            prop_assert_eq!(check(text.as_bytes(), values - 1), Err(Excess::Values));
            // One level more than is allowed around the tree, and as many as are allowed.
            for (around, expected) in [(MAX_DEPTH - depth, true), (MAX_DEPTH - depth + 1, false)] {
                let nested = format!("{}{text}{}", "[".repeat(around), "]".repeat(around));
                prop_assert_eq!(check(nested.as_bytes(), MAX_VALUES).is_ok(), expected);
            }
        }

        #[test]
        fn any_bytes_are_counted(bytes: Vec<u8>, text in r#"([\[\]{}",:\\0-9a-z .-]){0,60}"#) {
            let _ = check(&bytes, MAX_VALUES);
            let _ = check(text.as_bytes(), MAX_VALUES);
        }

        /// A tree is never built of more values than the pass counts, even if the text is broken.
        #[test]
        fn broken_json_has_no_more_values_than_are_counted(tree in trees(), cut in 0.0..1.0_f64) {
            let text = tree.to_string();
            let cut = (0..=(text.len() as f64 * cut) as usize).rev().find(|at| text.is_char_boundary(*at));
            let (_, values) = measured(&tree);
            prop_assert!(check(&text.as_bytes()[..cut.unwrap_or_default()], values).is_ok());
        }
    }

    #[test]
    fn each_bound_is_named() {
        assert_eq!(check("[".repeat(MAX_DEPTH + 1).as_bytes(), MAX_VALUES), Err(Excess::Depth));
        assert_eq!(check("[0],".repeat(MAX_VALUES).as_bytes(), MAX_VALUES), Err(Excess::Values));
        assert!(Excess::Depth.to_string().contains("64 levels") && Excess::Values.to_string().contains("150000"));
    }
}
