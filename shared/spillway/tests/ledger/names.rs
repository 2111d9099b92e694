//! Attribute names that are reserved words of DynamoDB.

use std::collections::HashSet;

use aws_sdk_dynamodb::types::AttributeValue;
use spillway::{
    quota::{Attribute, Condition, Image, Update, Write},
    store::ledger::compile,
};

use crate::start;

/// Number of buckets of answer lengths in a day.
const BUCKETS: u64 = 64;

/// UTC days from 1970 to the year 2100.
const DAYS: u64 = 130 * 366;

fn reserved_words() -> HashSet<String> {
    let lines = include_str!("reserved_words.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(str::to_lowercase).collect()
}

/// A write that names `attribute` in its condition and in its update.
fn write(attribute: Attribute) -> Write {
    Write { conditions: vec![Condition::AtMost(attribute, 9)], updates: vec![Update::Add(attribute, 1)] }
}

/// Returns the words in the expressions of a write that DynamoDB reads as attribute names.
fn bare_names(attribute: Attribute) -> Vec<String> {
    let compiled = compile(&write(attribute));
    let update = compiled.update.strip_prefix("ADD ").expect("one update").to_owned();
    let condition = compiled.condition.expect("a condition").replace("attribute_not_exists", "").replace(" OR ", " ");
    let text = format!("{update} {condition}");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '#' | ':'));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).map(str::to_owned).collect()
}

#[test]
fn no_attribute_of_any_time_until_2100_is_named_by_a_reserved_word() {
    let reserved = reserved_words();
    assert_eq!(reserved.len(), 573);
    assert!(reserved.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())), "they are only letters");
    let fixed = [
        Attribute::Version,
        Attribute::InFlight,
        Attribute::SettledRequests,
        Attribute::SettledInput,
        Attribute::SettledOutput,
        Attribute::SettledCost,
        Attribute::Regained,
    ];
    let days = (0..DAYS).flat_map(|day| {
        let answers = (0..BUCKETS).map(move |bucket| Attribute::Answers(day * BUCKETS + bucket));
        answers.chain([Attribute::Day(day), Attribute::EstimatedInput(day), Attribute::MeasuredInput(day)])
    });
    let months = (0..2_100 * 12).map(Attribute::Month);
    // Names of slots and of minutes are too many to try, but a name has one attribute at most.
    let of_words = reserved.iter().filter_map(|word| Attribute::parse(word));
    let mut words = 0;
    for attribute in fixed.into_iter().chain(days).chain(months).chain(of_words) {
        let is_reserved = reserved.contains(&attribute.name());
        words += u32::from(is_reserved);
        if is_reserved || !attribute.has_index() {
            assert!(bare_names(attribute).iter().all(|name| !reserved.contains(name)), "{}", attribute.name());
        }
    }
    assert!(words > 10, "{words} names are reserved words");
}

#[tokio::test]
async fn an_attribute_named_by_a_reserved_word_is_written_and_read() {
    let dynamodb = start().await;
    for word in ["other", "outer", "owner", "else"] {
        let attribute = Attribute::parse(word).expect("an attribute");
        let compiled = compile(&write(attribute));
        let update = dynamodb.client.update_item().table_name(&dynamodb.table);
        let update = update.key("pk", AttributeValue::S("one".into())).update_expression(compiled.update);
        let update = update.set_condition_expression(compiled.condition);
        let update = update.set_expression_attribute_names(Some(compiled.names));
        let update = update.set_expression_attribute_values(Some(compiled.values));
        update.send().await.expect(word);
    }
    let read = dynamodb.client.get_item().table_name(&dynamodb.table).key("pk", AttributeValue::S("one".into()));
    let item = read.consistent_read(true).send().await.expect("read").item.expect("an item");
    let image: Image = item
        .iter()
        .filter_map(|(name, value)| Some((Attribute::parse(name)?, value.as_n().ok()?.parse().ok()?)))
        .collect();
    assert_eq!(image.iter().filter(|(_, value)| *value == 1).count(), 4);
}
