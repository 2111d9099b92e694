//! JSON from callers: bounded, parsed, and read with types. Every error names the path of the value
//! and never quotes it.

mod bounds;
pub mod raw;
mod tree;

use std::fmt;

use serde::de::DeserializeSeed;
use serde_json::{Map, Number, Value};

use self::bounds::{BYTES_PER_VALUE, MAX_INNER_VALUES};
pub use self::bounds::{Excess, MAX_VALUES};
use self::tree::Tree;
use crate::problem::{Kind, Problem};

/// Maximum number of characters of a role, type or field name that an error repeats.
const MAX_WORD_CHARS: usize = 32;

/// Maximum number of ignored parameters that are listed. A longer list would not fit in a header.
const MAX_IGNORED: usize = 32;

/// Why a text is not parsed.
#[derive(Debug)]
pub enum JsonError {
    /// It exceeds a bound.
    Excess(Excess),
    /// It is not JSON.
    Syntax(serde_json::Error),
}

/// The number of values and member names that may still be parsed of one request. Its strings can
/// have JSON inside.
#[derive(Debug)]
pub struct ValueBudget(usize);

impl ValueBudget {
    /// The budget for a body.
    pub fn for_body() -> Self {
        Self(MAX_VALUES)
    }

    /// The budget for all JSON inside the strings of a body.
    pub fn for_strings() -> Self {
        Self(MAX_INNER_VALUES)
    }

    /// Parses a text from a caller, after a check of its bounds. Nothing else in this crate builds
    /// a tree of such a text.
    pub fn parse(&mut self, text: &str) -> Result<Value, JsonError> {
        self.0 -= bounds::check(text.as_bytes(), self.0).map_err(JsonError::Excess)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tree = Tree.deserialize(&mut deserializer);
        let tree = tree.and_then(|tree| deserializer.end().map(|()| tree));
        tree.map_err(JsonError::Syntax)
    }
}

/// Returns the number of values and member names in a tree.
pub fn count(tree: &Value) -> usize {
    match tree {
        Value::Array(elements) => 1 + elements.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(|value| 1 + count(value)).sum::<usize>(),
        _ => 1,
    }
}

/// Returns the memory that a request takes beside its body: its tree, and the body that is sent to
/// the model.
pub fn memory(body: &[u8]) -> usize {
    let values = bounds::check(body, MAX_VALUES).unwrap_or(0);
    2 * body.len() + BYTES_PER_VALUE * values
}

/// Checks the bounds of a text from a caller that is not parsed yet.
///
/// # Errors
/// Returns the bound that it exceeds.
pub fn check_bounds(json: &[u8]) -> Result<(), Excess> {
    bounds::check(json, MAX_VALUES).map(drop)
}

/// Parses a request body, which must be one JSON object.
///
/// # Errors
/// Returns [`Kind::Invalid`] if it is not, or if it exceeds a bound.
pub fn body(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let invalid = |message: String| Problem::new(Kind::Invalid, message);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid("The body is empty; expected a JSON object.".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(format!("The body is not UTF-8: byte {} is wrong.", error.valid_up_to())))?;
    let value = ValueBudget::for_body().parse(text).map_err(|error| match error {
        JsonError::Excess(excess) => invalid(format!("The body {excess}.")),
        JsonError::Syntax(error) => invalid(syntax(&error)),
    })?;
    object(value, &Path::Root)
}

/// Describes a syntax error by its place and class, because serde_json's messages can quote the
/// input.
fn syntax(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Eof => format!("The body is not valid JSON: it ends too early, at {place}."),
        _ => format!("The body is not valid JSON: syntax error at {place}."),
    }
}

/// Parses JSON inside a value at `at`. `what` says what is wrong if it is not JSON.
pub fn inner(text: &str, budget: &mut ValueBudget, at: &Path, what: &str) -> Read<Value> {
    budget.parse(text).map_err(|error| match error {
        JsonError::Excess(excess) => at.error(excess),
        JsonError::Syntax(_) => at.error(what),
    })
}

/// Path of a value in the body, as callers write it: `messages[2].content`.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    /// Returns the member `name` of the object at this path.
    pub fn key(&'a self, name: &'a str) -> Path<'a> {
        Path::Key(self, name)
    }

    /// Returns the element `index` of the array at this path.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// Returns the path without indices: `messages[].content`.
    fn pattern(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Key(Path::Root, name) => (*name).to_owned(),
            Path::Key(parent, name) => format!("{}.{name}", parent.pattern()),
            Path::Index(parent, _) => format!("{}[]", parent.pattern()),
        }
    }

    /// Creates an error about the value at this path. `text` says what is wrong and what would be
    /// right.
    pub fn error(&self, text: impl fmt::Display) -> Problem {
        match self {
            Path::Root => Problem::new(Kind::Invalid, format!("The body: {text}")),
            _ => Problem::invalid(self.to_string(), format!("{self}: {text}")),
        }
    }

    /// Creates an error about the type of the value at this path.
    pub fn mistyped(&self, expected: &str, got: &Value) -> Problem {
        self.error(format_args!("expected {expected}, got {}", type_of(got)))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, name) => formatter.write_str(name),
            Path::Key(parent, name) => write!(formatter, "{parent}.{name}"),
            Path::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
        }
    }
}

/// An object whose members are taken out one by one. The remaining members are listed as ignored.
pub struct Fields<'p> {
    members: Map<String, Value>,
    at: &'p Path<'p>,
}

impl<'p> Fields<'p> {
    /// Takes the members of `value`, which must be an object.
    pub fn from_value(value: Value, at: &'p Path<'p>) -> Result<Self, Problem> {
        Ok(Self { members: object(value, at)?, at })
    }

    /// Takes the members of the object at `at`.
    pub fn new(members: Map<String, Value>, at: &'p Path<'p>) -> Self {
        Self { members, at }
    }

    /// Takes a member out. `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Takes a member out and reads it, if it is present.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(Value, &Path) -> Read<T>) -> Read<Option<T>> {
        self.take(name).map(|value| read(value, &self.at.key(name))).transpose()
    }

    /// Takes a member out and reads it. Returns an error if it is absent.
    pub fn required<T>(&mut self, name: &str, read: impl FnOnce(Value, &Path) -> Read<T>) -> Read<T> {
        let value = self.take(name).ok_or_else(|| self.at.key(name).error("is missing"))?;
        read(value, &self.at.key(name))
    }

    /// Takes out a member that has no effect here, and lists it as ignored.
    pub fn ignore(&mut self, name: &str, ignored: &mut Ignored) {
        if self.take(name).is_some() {
            ignored.note(&self.at.key(name));
        }
    }

    /// Rejects a member that is not supported and that would change the answer. Values that request
    /// nothing (`null`, `false`, `0`, empty) pass.
    pub fn reject(&mut self, name: &str, text: &str) -> Read<()> {
        match self.take(name) {
            Some(value) if !requests_nothing(&value) => Err(self.at.key(name).error(text)),
            _ => Ok(()),
        }
    }

    /// Returns the remaining members.
    pub fn into_members(self) -> Map<String, Value> {
        self.members
    }

    /// Lists the remaining members as ignored.
    pub fn finish(self, ignored: &mut Ignored) {
        for (name, value) in &self.members {
            if !requests_nothing(value) {
                ignored.note(&self.at.key(&sanitized(name)));
            }
        }
    }
}

/// Result of reading a value.
pub type Read<T> = Result<T, Problem>;

/// Known parameters that have no effect here, without indices and without duplicates.
#[derive(Debug, Default)]
pub struct Ignored(Vec<String>);

impl Ignored {
    /// Adds the parameter at `at`.
    pub fn note(&mut self, at: &Path) {
        let name = at.pattern();
        if self.0.len() < MAX_IGNORED && !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    /// Returns the names of the parameters.
    pub fn into_names(self) -> Vec<String> {
        self.0
    }
}

/// Creates an object and moves `members` into it. The macro `json!` would copy them.
pub fn object_of<const N: usize>(members: [(&str, Value); N]) -> Value {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads the value as an object.
pub fn object(value: Value, at: &Path) -> Read<Map<String, Value>> {
    match value {
        Value::Object(members) => Ok(members),
        value => Err(at.mistyped("an object", &value)),
    }
}

/// Reads the value as an array.
pub fn array(value: Value, at: &Path) -> Read<Vec<Value>> {
    match value {
        Value::Array(elements) => Ok(elements),
        value => Err(at.mistyped("an array", &value)),
    }
}

/// Reads the value as a string.
pub fn string(value: Value, at: &Path) -> Read<String> {
    match value {
        Value::String(text) => Ok(text),
        value => Err(at.mistyped("a string", &value)),
    }
}

/// Reads the value as a string that is not empty.
pub fn name(value: Value, at: &Path) -> Read<String> {
    match string(value, at)? {
        text if text.is_empty() => Err(at.error("is empty")),
        text => Ok(text),
    }
}

/// Reads the value as a boolean.
pub fn boolean(value: Value, at: &Path) -> Read<bool> {
    value.as_bool().ok_or_else(|| at.mistyped("true or false", &value))
}

/// Reads the value as a number from 0 to 1, in the caller's notation.
pub fn fraction(value: Value, at: &Path) -> Read<Number> {
    match value {
        Value::Number(number) if number.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number)) => Ok(number),
        Value::Number(_) => Err(at.error("is out of range; expected a number from 0 to 1")),
        value => Err(at.mistyped("a number from 0 to 1", &value)),
    }
}

/// Reads the value as an output limit in tokens, which Converse takes as a signed 32-bit integer.
pub fn token_limit(value: Value, at: &Path) -> Read<u64> {
    const RANGE: std::ops::RangeInclusive<u64> = 1..=i32::MAX as u64;
    let expected = format!("a whole number from {} to {}", RANGE.start(), RANGE.end());
    match value {
        Value::Number(number) => number
            .as_u64()
            .filter(|tokens| RANGE.contains(tokens))
            .ok_or_else(|| at.error(format_args!("is out of range; expected {expected}"))),
        value => Err(at.mistyped(&expected, &value)),
    }
}

/// Reads the value as strings that are not empty.
pub fn names(value: Value, at: &Path) -> Read<Vec<String>> {
    array(value, at)?.into_iter().enumerate().map(|(index, value)| name(value, &at.index(index))).collect()
}

/// Returns the caller's `word` (a role, a type, a field name) in a form that an error can repeat:
/// truncated, and without special characters.
pub fn sanitized(word: &str) -> String {
    word.chars().take(MAX_WORD_CHARS).map(shown_char).collect()
}

/// Returns `c` if an error can repeat it, else a question mark.
pub fn shown_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || "_-.:/[]".contains(c) { c } else { '?' }
}

/// Returns whether `name` is `plain` in lower case and without `_` and `-`, as the members of
/// models are compared.
pub fn is_spelling(name: &str, plain: &str) -> bool {
    let letters = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
    name.len() >= plain.len() && letters.map(|byte| byte.to_ascii_lowercase()).eq(plain.bytes())
}

fn requests_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
