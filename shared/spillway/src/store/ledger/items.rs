//! Items of the ledger's table: conditional writes and reads.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::expression;
use crate::{
    quota::{Image, Write},
    store::StoreError,
};

/// Outcome of a write.
pub(in crate::store) enum UpdateOutcome {
    /// The write happened. Holds the new item.
    Done(Image),
    /// A condition did not hold. Holds the old item.
    Refused(Image),
    /// The store refused the write before it tried, so the write has certainly not happened.
    Busy,
}

#[derive(Clone)]
pub(in crate::store) struct Items {
    client: Client,
    table: Arc<str>,
}

impl Items {
    pub(in crate::store) fn new(client: Client, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    pub(in crate::store) async fn update(&self, key: &str, write: &Write) -> Result<UpdateOutcome, StoreError> {
        let compiled = expression::compile(write);
        let request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key("pk", AttributeValue::S(key.into()))
            .update_expression(compiled.update)
            .set_condition_expression(compiled.condition)
            // DynamoDB refuses an empty map. Most writes need no placeholders, and a write that
            // only removes attributes names no values.
            .set_expression_attribute_names(Some(compiled.names).filter(|names| !names.is_empty()))
            .set_expression_attribute_values(Some(compiled.values).filter(|values| !values.is_empty()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match request.send().await {
            Ok(reply) => Ok(UpdateOutcome::Done(image(reply.attributes()))),
            Err(error) => classify(error),
        }
    }

    pub(in crate::store) async fn get(&self, key: &str) -> Result<Image, StoreError> {
        let request = self.client.get_item().table_name(&*self.table).consistent_read(true);
        let reply = request.key("pk", AttributeValue::S(key.into())).send().await?;
        Ok(image(reply.item()))
    }

    /// Reads all items, by key.
    pub(in crate::store) async fn scan(&self) -> Result<Vec<(String, Image)>, StoreError> {
        let request = self.client.scan().table_name(&*self.table).consistent_read(true);
        let mut items = request.into_paginator().items().send();
        let mut images = Vec::new();
        while let Some(item) = items.next().await {
            let item = item?;
            let key = item.get("pk").and_then(|key| key.as_s().ok()).cloned().unwrap_or_default();
            images.push((key, expression::image(&item)));
        }
        Ok(images)
    }
}

fn classify(error: SdkError<UpdateItemError>) -> Result<UpdateOutcome, StoreError> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
            Ok(UpdateOutcome::Refused(image(failed.item())))
        }
        Some(service) if service.code().is_some_and(is_throttle) => Ok(UpdateOutcome::Busy),
        _ => Err(error.into()),
    }
}

fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "ThrottlingException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "TransactionConflictException"
    )
}

fn image(item: Option<&HashMap<String, AttributeValue>>) -> Image {
    item.map(expression::image).unwrap_or_default()
}
