//! Writes have the same effect in memory and in DynamoDB: the same programs, with all their
//! refusals, give the same items.

use std::collections::HashMap;

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};
use futures_util::future::join_all;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use spillway::{
    quota::{Attribute, Image, Update, Write},
    store::ledger::compile,
};

use crate::world::{Traced, World, program};

/// Number of programs.
const PROGRAMS: usize = 48;

/// Number of programs that run concurrently.
const CONCURRENCY: usize = 8;

/// Runs a write. Returns whether its conditions held, and the item after it.
async fn update(client: &Client, table: &str, key: &str, write: &Write) -> (bool, Image) {
    let compiled = compile(write);
    let request = client
        .update_item()
        .table_name(table)
        .key("pk", AttributeValue::S(key.to_owned()))
        .update_expression(compiled.update)
        .set_condition_expression(compiled.condition)
        .set_expression_attribute_names(Some(compiled.names).filter(|names| !names.is_empty()))
        .set_expression_attribute_values(Some(compiled.values).filter(|values| !values.is_empty()))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    match request.send().await {
        Ok(reply) => (true, image(reply.attributes())),
        Err(error) => match error.into_service_error() {
            aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(failed) => {
                (false, image(failed.item()))
            }
            error => panic!("{error:?}"),
        },
    }
}

fn image(item: Option<&HashMap<String, AttributeValue>>) -> Image {
    let number = |(name, value): (&String, &AttributeValue)| {
        Some((Attribute::parse(name)?, value.as_n().expect("a number").parse().expect("a whole number")))
    };
    item.into_iter().flatten().filter_map(number).collect()
}

fn traces() -> Vec<Vec<Traced>> {
    let mut runner = TestRunner::deterministic();
    let mut traces = Vec::new();
    for _ in 0..PROGRAMS {
        let program = program(60).new_tree(&mut runner).expect("a program").current();
        let mut world = World::new(&program, None);
        world.trace = Some(Vec::new());
        program.steps.iter().for_each(|step| world.take(step));
        traces.extend(world.trace);
    }
    traces
}

/// The driver decides by the outcome of each write and by the image that it returns. So programs
/// whose writes agree in both agree in the admitted requests, the refusing limits and the waiting
/// times.
#[tokio::test]
async fn a_program_runs_in_dynamodb_as_it_does_in_memory() {
    let dynamodb = crate::start().await;
    let client = crate::client(&dynamodb);
    let traces = traces();
    let count = |has: &dyn Fn(&Traced) -> bool| traces.iter().flatten().filter(|traced| has(traced)).count();
    let frees = |traced: &Traced| {
        traced.is_done && traced.write.updates.iter().any(|update| matches!(update, Update::Remove(Attribute::Slot(_))))
    };
    let (refused, freed) = (count(&|traced| !traced.is_done), count(&frees));
    assert!(refused > 200 && freed > 20, "{refused} refused, {freed} freed");

    for (round, together) in traces.chunks(CONCURRENCY).enumerate() {
        let replays = together.iter().enumerate().map(|(place, trace)| {
            let (client, table) = (&client, &dynamodb.table);
            async move {
                for (number, Traced { shard, write, is_done, image }) in trace.iter().enumerate() {
                    let key = format!("T#{}#{shard}", round * CONCURRENCY + place);
                    let (was_done, item) = update(client, table, &key, write).await;
                    assert_eq!(was_done, *is_done, "write {number} on {key}: {write:?}");
                    assert_eq!(item, *image, "write {number} on {key}: {write:?}");
                }
            }
        });
        join_all(replays).await;
    }
}
