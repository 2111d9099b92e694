//! Tests of the DynamoDB stand-in through the AWS SDK.

#[path = "dynamodb/faults.rs"]
mod faults;
#[path = "dynamodb/server.rs"]
mod server;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use aws_sdk_dynamodb::{
    error::ProvideErrorMetadata,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure, TimeToLiveSpecification},
};
use spillway_stand_ins::{clock::Clock, dynamodb::Options};

use server::{KEY, Server, TABLE, client, create_table, get, key, put};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_concurrent_updates_of_a_limit_of_forty_admit_exactly_forty() {
    let server = Server::start(Options::default()).await;
    let client = server.client_with_table().await;
    let updates = (0..50).map(|_| {
        let update = client
            .update_item()
            .table_name(TABLE)
            .key(KEY, key("permits"))
            .update_expression("ADD taken :one")
            .condition_expression("attribute_not_exists(taken) OR taken < :limit")
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .expression_attribute_values(":limit", AttributeValue::N("40".into()));
        tokio::spawn(update.send())
    });
    let mut admitted = 0;
    for update in updates.collect::<Vec<_>>() {
        match update.await.unwrap() {
            Ok(_) => admitted += 1,
            Err(error) => assert!(error.into_service_error().is_conditional_check_failed_exception()),
        }
    }
    assert_eq!(admitted, 40);
    assert_eq!(get(&client, "permits").await.unwrap()["taken"], AttributeValue::N("40".into()));
    let stats = server.faults.stats();
    assert_eq!((stats.operations["UpdateItem"], stats.failed_conditions), (50, 10));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_condition_returns_the_old_item() {
    let server = Server::start(Options::default()).await;
    let client = server.client_with_table().await;
    put(&client, "full").await.unwrap();
    let error = client
        .update_item()
        .table_name(TABLE)
        .key(KEY, key("full"))
        .update_expression("SET more = :v")
        .condition_expression("attribute_not_exists(written)")
        .expression_attribute_values(":v", AttributeValue::Bool(true))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(failure) = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(failure.item, get(&client, "full").await);
    assert!(failure.item.unwrap().contains_key("written"));
    server.stop().await;
}

#[tokio::test]
async fn a_reserved_word_is_no_attribute_name_without_a_placeholder() {
    let server = Server::start(Options::default()).await;
    let client = server.client_with_table().await;
    let update = client.update_item().table_name(TABLE).key(KEY, key("one"));
    let update = update.expression_attribute_values(":one", AttributeValue::N("1".into()));
    let refused = update.clone().update_expression("ADD other :one").send().await.unwrap_err().into_service_error();
    let message = refused.message().unwrap_or_default();
    assert_eq!(refused.code(), Some("ValidationException"));
    assert!(message.ends_with("Attribute name is a reserved keyword; reserved keyword: other"), "{message}");
    let update = update.update_expression("ADD #other :one").expression_attribute_names("#other", "other");
    update.send().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn data_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options { data: Some(directory.path().to_owned()), ..Options::default() };
    let server = Server::start(options()).await;
    put(&server.client_with_table().await, "kept").await.unwrap();
    server.stop().await;
    // The write-ahead log is merged, so the file has the complete state.
    assert!(!directory.path().join("dynamodb.sqlite-wal").exists());

    let server = Server::start(options()).await;
    assert!(get(&client(&server.url), "kept").await.is_some());
    server.stop().await;
}

#[tokio::test]
async fn an_invalid_database_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("dynamodb.sqlite"), "not a database, but long enough to be read as one")
        .unwrap();
    let server = Server::start(Options { data: Some(directory.path().to_owned()), ..Options::default() }).await;
    let error = server.serving.await.unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("cannot open the database"), "{error:#}");
}

#[tokio::test]
async fn an_expired_item_is_deleted_when_the_clock_passes_its_expiry() {
    let clock = Clock::default();
    let server = Server::start(Options { clock: clock.clone(), ..Options::default() }).await;
    let client = server.client_with_table().await;
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name("expires").build().unwrap();
    client.update_time_to_live().table_name(TABLE).time_to_live_specification(ttl).send().await.unwrap();
    for (name, expires_in_s) in [("soon", 3600), ("later", 36_000)] {
        let expires = AttributeValue::N((clock.now_ms() / 1000 + expires_in_s).to_string());
        client.put_item().table_name(TABLE).item(KEY, key(name)).item("expires", expires).send().await.unwrap();
    }
    clock.advance(7_200_000);
    tokio::time::timeout(Duration::from_secs(10), async {
        while get(&client, "soon").await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the expired item must be deleted");
    assert!(get(&client, "later").await.is_some());
    server.stop().await;
}

const CHILD_DIRECTORY: &str = "SPILLWAY_TEST_KILLED_DIRECTORY";

#[tokio::test]
async fn an_acknowledged_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve_until_killed", "--nocapture"])
        .env(CHILD_DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let url = lines.find_map(|line| line.find("http://").map(|start| line[start..].to_owned())).unwrap();
    let client = client(&url);
    create_table(&client).await;
    let writer = tokio::spawn(async move {
        let mut acknowledged = 0;
        while put(&client, &acknowledged.to_string()).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = writer.await.unwrap();

    let server = Server::start(Options { data: Some(directory.path().to_owned()), ..Options::default() }).await;
    let client = server::client(&server.url);
    assert!(acknowledged > 0);
    for name in 0..acknowledged {
        assert!(get(&client, &name.to_string()).await.is_some(), "{name} of {acknowledged} is lost");
    }
    server.stop().await;
}

/// The process that [`an_acknowledged_write_survives_kill_9`] kills. It serves only if the
/// environment names a directory.
#[tokio::test]
async fn serve_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let server = Server::start(Options { data: Some(directory.into()), ..Options::default() }).await;
    println!("{}", server.url);
    server.serving.await.unwrap().unwrap();
}
