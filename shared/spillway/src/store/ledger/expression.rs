//! Compilation of a [`Write`] to DynamoDB's expressions, and parsing of items.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::quota::{Attribute, Condition, Image, Update, Write};

/// A write as DynamoDB's expressions.
pub struct Compiled {
    /// Update expression.
    pub update: String,
    /// Condition expression, if there are conditions.
    pub condition: Option<String>,
    /// Attribute names that the two expressions replace by placeholders.
    pub names: HashMap<String, String>,
    /// Values that the two expressions name.
    pub values: HashMap<String, AttributeValue>,
}

/// Compiles `write`.
pub fn compile(write: &Write) -> Compiled {
    let mut names = Names::default();
    let mut values = Values::default();
    let mut condition = String::with_capacity(64 * write.conditions.len());
    for clause in &write.conditions {
        if !condition.is_empty() {
            condition.push_str(" AND ");
        }
        push_clause(&mut condition, clause, &mut names, &mut values);
    }
    let update = updates(&write.updates, &mut names, &mut values);
    let condition = (!condition.is_empty()).then_some(condition);
    Compiled { update, condition, names: names.by_placeholder(), values: values.by_name() }
}

fn push_clause(text: &mut String, condition: &Condition, names: &mut Names, values: &mut Values) {
    let attribute = condition.attribute();
    match *condition {
        Condition::AtMost(_, bound) => {
            text.push_str("(attribute_not_exists(");
            names.push(text, attribute);
            text.push_str(") OR ");
            names.push(text, attribute);
            text.push_str(" <= ");
            values.push(text, counter(bound));
            text.push(')');
        }
        Condition::AtLeast(_, bound) => {
            names.push(text, attribute);
            text.push_str(" >= ");
            values.push(text, counter(bound));
        }
        Condition::Equals(_, bound) => {
            names.push(text, attribute);
            text.push_str(" = ");
            values.push(text, counter(bound));
        }
    }
}

fn updates(updates: &[Update], names: &mut Names, values: &mut Values) -> String {
    let mut text = String::with_capacity(16 * updates.len());
    let mut push_verb = |verb: &str, text: &mut String, has_verb: fn(&Update) -> bool, values: &mut Values| {
        for (number, update) in updates.iter().filter(|update| has_verb(update)).enumerate() {
            match number {
                0 if text.is_empty() => text.push_str(verb),
                0 => {
                    text.push(' ');
                    text.push_str(verb);
                }
                _ => text.push_str(", "),
            }
            names.push(text, update.attribute());
            match *update {
                Update::Set(_, to) => {
                    text.push_str(" = ");
                    values.push(text, counter(to));
                }
                Update::Add(_, by) => {
                    text.push(' ');
                    values.push(text, by);
                }
                Update::Remove(_) => {}
            }
        }
    };
    push_verb("SET ", &mut text, |update| matches!(update, Update::Set(..)), values);
    push_verb("ADD ", &mut text, |update| matches!(update, Update::Add(..)), values);
    push_verb("REMOVE ", &mut text, |update| matches!(update, Update::Remove(_)), values);
    text
}

/// Converts a bound to the type of the counters. A bound above `i64::MAX` always holds, as
/// `i64::MAX` does.
fn counter(bound: u64) -> i64 {
    i64::try_from(bound).unwrap_or(i64::MAX)
}

/// Attribute names of an expression that have placeholders. They are few, so a linear search finds
/// them.
#[derive(Default)]
struct Names {
    names: Vec<String>,
}

impl Names {
    /// Appends the name of `attribute` to `text`. A name with an index can be a word, such as
    /// `other`. DynamoDB's reserved words consist of letters only (Amazon DynamoDB Developer Guide,
    /// "Reserved words in DynamoDB"), so an index without a digit gets a placeholder.
    fn push(&mut self, text: &mut String, attribute: Attribute) {
        let start = text.len();
        attribute.push_name(text);
        let name = &text[start..];
        if attribute.has_index() && name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            if !self.names.iter().any(|known| known == name) {
                self.names.push(name.to_owned());
            }
            text.insert(start, '#');
        }
    }

    fn by_placeholder(self) -> HashMap<String, String> {
        self.names.into_iter().map(|name| (format!("#{name}"), name)).collect()
    }
}

/// Values of an expression. Each value is named once, after its position. They are few, so a linear
/// search finds them.
#[derive(Default)]
struct Values {
    values: Vec<(i64, String)>,
}

impl Values {
    fn push(&mut self, text: &mut String, value: i64) {
        let known = self.values.iter().position(|(known, _)| *known == value);
        let position = known.unwrap_or_else(|| {
            self.values.push((value, format!(":{}", self.values.len())));
            self.values.len() - 1
        });
        text.push_str(&self.values[position].1);
    }

    fn by_name(self) -> HashMap<String, AttributeValue> {
        self.values.into_iter().map(|(value, name)| (name, AttributeValue::N(value.to_string()))).collect()
    }
}

/// Reads the numbers of an item, without attributes that are not counters.
pub(super) fn image(item: &HashMap<String, AttributeValue>) -> Image {
    item.iter()
        .filter_map(|(name, value)| {
            let attribute = Attribute::parse(name)?;
            let number = value.as_n().ok()?.parse().ok()?;
            Some((attribute, number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_compiles_to_one_update() {
        let compiled = compile(&Write {
            conditions: vec![
                Condition::AtMost(Attribute::InFlight, 39),
                Condition::AtLeast(Attribute::Slot(36), 1),
                Condition::Equals(Attribute::Slot(1), 39),
            ],
            updates: vec![
                Update::Add(Attribute::InFlight, -1),
                Update::Set(Attribute::Version, 7),
                Update::Add(Attribute::Tokens(71), 39),
                Update::Remove(Attribute::Requests(1)),
                Update::Remove(Attribute::Tokens(1)),
            ],
        });
        assert_eq!(
            compiled.condition.as_deref(),
            Some("(attribute_not_exists(c) OR c <= :0) AND i10 >= :1 AND i1 = :0")
        );
        assert_eq!(compiled.update, "SET v = :2 ADD c :3, t1z :0 REMOVE r1, t1");
        assert_eq!(compiled.values[":3"], AttributeValue::N("-1".into()));
        assert_eq!(compiled.values.len(), 4);
        assert!(compiled.names.is_empty());
    }

    #[test]
    fn a_name_that_is_a_word_is_replaced_by_a_placeholder() {
        let other = Attribute::parse("other").expect("an attribute");
        let write = Write {
            conditions: vec![Condition::AtMost(other, 1)],
            updates: vec![Update::Add(other, 1), Update::Add(Attribute::SettledOutput, 1)],
        };
        let compiled = compile(&write);
        assert_eq!(compiled.condition.as_deref(), Some("(attribute_not_exists(#other) OR #other <= :0)"));
        assert_eq!(compiled.update, "ADD #other :0, so :0");
        assert_eq!(compiled.names, HashMap::from([("#other".to_owned(), "other".to_owned())]));
    }

    #[test]
    fn a_write_without_conditions_has_no_condition_expression() {
        let compiled =
            compile(&Write { conditions: Vec::new(), updates: vec![Update::Add(Attribute::SettledRequests, 1)] });
        assert_eq!((compiled.condition, compiled.update.as_str()), (None, "ADD sr :0"));
    }
}
