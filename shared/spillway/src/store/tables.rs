//! Creates the three tables in deployments without a template: on a laptop and in tests.

use anyhow::Context;
use aws_sdk_dynamodb::{
    Client,
    operation::create_table::builders::CreateTableFluentBuilder,
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
        ScalarAttributeType, TableStatus, TimeToLiveSpecification, builders::ProjectionBuilder,
    },
};

use crate::config::Config;

/// Attribute of the jobs table with the time when DynamoDB may delete the row, in seconds since
/// 1970.
pub(super) const EXPIRES_S: &str = "expires_s";

/// Index of open jobs and batches, by the time when they are due.
pub(super) const OPEN_INDEX: &str = "open";

/// Index of a tenant's resources, by kind and time.
pub(super) const LIST_INDEX: &str = "listed";

/// Index of waiting jobs, in the order in which they are next.
pub(super) const WAITING_INDEX: &str = "waiting";

/// Creates the three tables that `config` names, unless they exist.
///
/// # Errors
/// Returns an error if DynamoDB is unavailable or refuses a table.
pub async fn create(client: &Client, config: &Config) -> anyhow::Result<()> {
    create_registry(client, &config.registry_table).await?;
    create_ledger(client, &config.ledger_table).await?;
    create_jobs(client, &config.jobs_table).await
}

/// Creates the registry table unless it exists.
pub async fn create_registry(client: &Client, table: &str) -> anyhow::Result<()> {
    let request = client
        .create_table()
        .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("sk", ScalarAttributeType::S)?)
        .key_schema(key("pk", KeyType::Hash)?)
        .key_schema(key("sk", KeyType::Range)?);
    create_table(client, request, table).await.map(drop)
}

/// Creates the ledger table unless it exists.
pub async fn create_ledger(client: &Client, table: &str) -> anyhow::Result<()> {
    let request = client
        .create_table()
        .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
        .key_schema(key("pk", KeyType::Hash)?);
    create_table(client, request, table).await.map(drop)
}

/// Creates the jobs table with its three indexes and its time to live, unless it exists.
///
/// # Errors
/// Returns an error if DynamoDB is unavailable or refuses the table.
pub async fn create_jobs(client: &Client, table: &str) -> anyhow::Result<()> {
    let keys_only = || Projection::builder().projection_type(ProjectionType::KeysOnly);
    let index = |name: &str, hash: &str, range: &str, projection: ProjectionBuilder| {
        let index = GlobalSecondaryIndex::builder().index_name(name).projection(projection.build());
        anyhow::Ok(index.key_schema(key(hash, KeyType::Hash)?).key_schema(key(range, KeyType::Range)?).build()?)
    };
    let waiting_attributes = Projection::builder().projection_type(ProjectionType::Include);
    let waiting_attributes = waiting_attributes.non_key_attributes("priority").non_key_attributes("ready_ms");
    let request = client
        .create_table()
        .attribute_definitions(attribute("pk", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("open", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("due_ms", ScalarAttributeType::N)?)
        .attribute_definitions(attribute("tenant", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("listed", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("waiting", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("place_ms", ScalarAttributeType::N)?)
        .key_schema(key("pk", KeyType::Hash)?)
        .global_secondary_indexes(index(OPEN_INDEX, "open", "due_ms", keys_only())?)
        .global_secondary_indexes(index(LIST_INDEX, "tenant", "listed", keys_only())?)
        .global_secondary_indexes(index(WAITING_INDEX, "waiting", "place_ms", waiting_attributes)?);
    if create_table(client, request, table).await? {
        let time_to_live = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_S).build()?;
        let request = client.update_time_to_live().table_name(table).time_to_live_specification(time_to_live);
        request.send().await.with_context(|| format!("setting the time to live of table {table}"))?;
    }
    Ok(())
}

/// Creates a table unless it exists, and waits until it can be used. Returns whether it was
/// created.
async fn create_table(client: &Client, request: CreateTableFluentBuilder, table: &str) -> anyhow::Result<bool> {
    let created = match request.table_name(table).billing_mode(BillingMode::PayPerRequest).send().await {
        Ok(_) => true,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => false,
        Err(error) => return Err(error).with_context(|| format!("creating table {table}")),
    };
    loop {
        let described = client.describe_table().table_name(table).send().await;
        let description = described.with_context(|| format!("waiting for table {table}"))?;
        if description.table().and_then(|table| table.table_status()) == Some(&TableStatus::Active) {
            return Ok(created);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn attribute(name: &str, kind: ScalarAttributeType) -> anyhow::Result<AttributeDefinition> {
    Ok(AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()?)
}

fn key(name: &str, kind: KeyType) -> anyhow::Result<KeySchemaElement> {
    Ok(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?)
}
