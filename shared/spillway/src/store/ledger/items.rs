//! Items of the ledger's table: conditional writes and reads.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure},
};

use super::{
    expression::{self, Compiled},
    nonce::{Nonce, NonceAttribute},
};
use crate::{
    connections::{Attempt, ResendingClient},
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
    client: ResendingClient<Client>,
    table: Arc<str>,
}

impl Items {
    pub(in crate::store) fn new(client: ResendingClient<Client>, table: &str) -> Self {
        Self { client, table: table.into() }
    }

    /// Runs `write` once. If its connection breaks, it is sent again, and its nonce keeps it from
    /// taking effect twice. A settlement is sent again only if its connection was reset: it
    /// gives back a part of a reserve, and to give back twice would exceed a limit.
    pub(in crate::store) async fn update(
        &self,
        key: &str,
        write: &Write,
        attribute: NonceAttribute,
    ) -> Result<UpdateOutcome, StoreError> {
        let may_resend = match attribute {
            NonceAttribute::Added => Attempt::broke_soon,
            NonceAttribute::Settled => Attempt::was_reset,
        };
        self.send(key, write, &Nonce::new(attribute)?, may_resend).await
    }

    /// Runs `write` under `nonce`. A later repetition under the same nonce takes no effect if this
    /// write did, unless another process has written to the item in between.
    pub(in crate::store) async fn update_once(
        &self,
        key: &str,
        write: &Write,
        nonce: &Nonce,
    ) -> Result<UpdateOutcome, StoreError> {
        self.send(key, write, nonce, Attempt::broke_soon).await
    }

    async fn send(
        &self,
        key: &str,
        write: &Write,
        nonce: &Nonce,
        may_resend: fn(&Attempt, &SdkError<UpdateItemError>) -> bool,
    ) -> Result<UpdateOutcome, StoreError> {
        let compile = || {
            let mut compiled = expression::compile(write);
            nonce.mark(&mut compiled);
            compiled
        };
        let send = |client: &Client, attempt: &Attempt| {
            let request = self.request(client, key, compile());
            request.customize().mutate_request(attempt.observe()).send()
        };
        match self.client.send(may_resend, send).await {
            Ok(reply) => Ok(UpdateOutcome::Done(image(reply.attributes()))),
            Err(error) => classify(error, nonce),
        }
    }

    fn request(&self, client: &Client, key: &str, compiled: Compiled) -> UpdateItemFluentBuilder {
        client
            .update_item()
            .table_name(&*self.table)
            .key("pk", AttributeValue::S(key.into()))
            .update_expression(compiled.update)
            .set_condition_expression(compiled.condition)
            // DynamoDB refuses an empty map, and most writes need no placeholders.
            .set_expression_attribute_names(Some(compiled.names).filter(|names| !names.is_empty()))
            .set_expression_attribute_values(Some(compiled.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    }

    pub(in crate::store) async fn get(&self, key: &str) -> Result<Image, StoreError> {
        let send = |client: &Client, attempt: &Attempt| {
            let request = client.get_item().table_name(&*self.table).consistent_read(true);
            let request = request.key("pk", AttributeValue::S(key.into()));
            request.customize().mutate_request(attempt.observe()).send()
        };
        Ok(image(self.client.send(Attempt::broke_soon, send).await?.item()))
    }

    /// Reads all items, by key.
    pub(in crate::store) async fn scan(&self) -> Result<Vec<(String, Image)>, StoreError> {
        let request = self.client.pooled().scan().table_name(&*self.table).consistent_read(true);
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

fn classify(error: SdkError<UpdateItemError>, nonce: &Nonce) -> Result<UpdateOutcome, StoreError> {
    match error.as_service_error() {
        // Only the reply of the first attempt was lost. The old item is the one that it made.
        Some(UpdateItemError::ConditionalCheckFailedException(failed)) if nonce.is_in(failed.item()) => {
            Ok(UpdateOutcome::Done(image(failed.item())))
        }
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
