//! Compiles a [`Write`] to DynamoDB's expressions, and reads items back.

use std::{collections::HashMap, fmt::Write as _};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::quota::{Attribute, Condition, Image, Update, Write};

/// A write in DynamoDB's words.
pub(super) struct Compiled {
    pub update: String,
    pub condition: Option<String>,
    pub values: HashMap<String, AttributeValue>,
}

/// Compiles `write`. Attribute names stand in the expressions as they are: they are letters and digits, and none is
/// one of DynamoDB's reserved words.
pub(super) fn compile(write: &Write) -> Compiled {
    let mut values = Values::default();
    let condition = write.conditions.iter().map(|condition| clause(*condition, &mut values)).collect::<Vec<_>>();
    let update = updates(&write.updates, &mut values);
    let condition = (!condition.is_empty()).then(|| condition.join(" AND "));
    Compiled { update, condition, values: values.by_name }
}

fn clause(condition: Condition, values: &mut Values) -> String {
    match condition {
        Condition::AtMost(attribute, bound) => {
            let name = attribute.name();
            format!("(attribute_not_exists({name}) OR {name} <= {})", values.name(i128::from(bound)))
        }
        Condition::AtLeast(attribute, bound) => format!("{} >= {}", attribute.name(), values.name(i128::from(bound))),
        Condition::Equals(attribute, bound) => format!("{} = {}", attribute.name(), values.name(i128::from(bound))),
    }
}

fn updates(updates: &[Update], values: &mut Values) -> String {
    let (mut add, mut set, mut remove) = (String::new(), String::new(), String::new());
    for update in updates {
        match *update {
            Update::Add(attribute, by) => list(&mut add, "ADD", &attribute.name(), &values.name(i128::from(by))),
            Update::Set(attribute, to) => {
                list(&mut set, "SET", &attribute.name(), &format!("= {}", values.name(i128::from(to))));
            }
            Update::Remove(attribute) => list(&mut remove, "REMOVE", &attribute.name(), ""),
        }
    }
    [set, add, remove].into_iter().filter(|list| !list.is_empty()).collect::<Vec<_>>().join(" ")
}

fn list(list: &mut String, verb: &str, name: &str, rest: &str) {
    let separator = if list.is_empty() { verb } else { "," };
    let space = if rest.is_empty() { "" } else { " " };
    // Writing to a String cannot fail.
    let _ = write!(list, "{separator} {name}{space}{rest}");
}

/// The values of an expression, each named once.
#[derive(Default)]
struct Values {
    names: HashMap<i128, String>,
    by_name: HashMap<String, AttributeValue>,
}

impl Values {
    fn name(&mut self, value: i128) -> String {
        let next = format!(":{}", self.names.len());
        let name = self.names.entry(value).or_insert(next).clone();
        self.by_name.entry(name.clone()).or_insert_with(|| AttributeValue::N(value.to_string()));
        name
    }
}

/// Reads the numbers of an item; what is not ours is left out.
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
    fn a_write_reads_as_one_update() {
        let compiled = compile(&Write {
            conditions: vec![
                Condition::AtMost(Attribute::InFlight, 39),
                Condition::AtLeast(Attribute::Slot(36), 1),
                Condition::Equals(Attribute::Slot(1), 39),
            ],
            updates: vec![
                Update::Add(Attribute::InFlight, -1),
                Update::Set(Attribute::Version, 7),
                Update::Add(Attribute::Tokens(35), 39),
                Update::Remove(Attribute::Requests(1)),
                Update::Remove(Attribute::Tokens(1)),
            ],
        });
        assert_eq!(
            compiled.condition.as_deref(),
            Some("(attribute_not_exists(c) OR c <= :0) AND i10 >= :1 AND i1 = :0")
        );
        assert_eq!(compiled.update, "SET v = :3 ADD c :2, tz :0 REMOVE r1, t1");
        assert_eq!(compiled.values[":2"], AttributeValue::N("-1".into()));
        assert_eq!(compiled.values.len(), 4);
    }

    #[test]
    fn an_item_without_conditions_needs_no_condition() {
        let compiled =
            compile(&Write { conditions: Vec::new(), updates: vec![Update::Add(Attribute::SettledRequests, 1)] });
        assert_eq!((compiled.condition, compiled.update.as_str()), (None, "ADD sr :0"));
    }
}
