//! Counters of the lines of a batch by outcome. Each line is counted once, because the transaction
//! that ends its job also changes the counter.
//!
//! The counters of a batch are in several rows, `<batch>#count<n>`, because concurrent transactions
//! on one row refuse each other.

use std::time::Duration;

use aws_sdk_dynamodb::{
    operation::{put_item::builders::PutItemFluentBuilder, transact_write_items::TransactWriteItemsError},
    types::{CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};

use super::rows::JobRows;
use crate::{
    batch::LineCounts,
    job::{BatchMember, Job},
    store::{
        StoreError, WriteOutcome,
        rows::{after_conflict, number, text, unreadable},
        tables,
    },
};

/// Number of rows that count the lines of a batch.
pub(in crate::store) const SHARDS: u64 = 16;

/// Maximum of tries of a transaction that conflicts with others.
const MAX_TRANSACTION_TRIES: u32 = 12;

/// Maximum pause before the second try. It doubles up to four times.
const MAX_FIRST_PAUSE: Duration = Duration::from_millis(8);

/// Returns the key of the row that counts a line.
pub(in crate::store) fn counter_key(batch: &str, line: u64) -> String {
    format!("{batch}#count{}", line % SHARDS)
}

impl JobRows {
    /// Writes a job's row and counts its end, both or neither.
    pub(super) async fn write_and_count(
        &self,
        request: PutItemFluentBuilder,
        job: Job,
        member: &BatchMember,
        expires_s: u64,
    ) -> Result<WriteOutcome<Job>, StoreError> {
        let put = self.put_in_transaction(&request, &job.id)?;
        let count = self.count(&job, member, expires_s)?;
        for tries in 0..MAX_TRANSACTION_TRIES {
            let request = self.rows.client.transact_write_items();
            let request = request.transact_items(TransactWriteItem::builder().put(put.clone()).build());
            let request = request.transact_items(TransactWriteItem::builder().update(count.clone()).build());
            let error = match request.send().await {
                Ok(_) => return Ok(WriteOutcome::Written(job)),
                Err(error) => error,
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
            else {
                return Err(error.into());
            };
            match failed_condition(cancelled.cancellation_reasons()) {
                Some(reason) => {
                    let etag = job.etag.clone();
                    return after_conflict(job, &etag, reason.item());
                }
                None if is_transient(cancelled.cancellation_reasons()) => {
                    tokio::time::sleep((MAX_FIRST_PAUSE * 2_u32.pow(tries.min(4))).mul_f64(fastrand::f64())).await;
                }
                None => return Err(error.into()),
            }
        }
        Err(StoreError::Contended { row: counter_key(&member.batch_id, member.line) })
    }

    fn put_in_transaction(&self, request: &PutItemFluentBuilder, id: &str) -> Result<Put, StoreError> {
        let put = Put::builder()
            .table_name(&*self.rows.table)
            .set_item(request.get_item().clone())
            .set_condition_expression(request.get_condition_expression().clone())
            .set_expression_attribute_values(request.get_expression_attribute_values().clone())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        put.build().map_err(|error| unreadable(id, &error.to_string()))
    }

    fn count(&self, job: &Job, member: &BatchMember, expires_s: u64) -> Result<Update, StoreError> {
        let key = counter_key(&member.batch_id, member.line);
        let counter = LineCounts::counter(job.status).ok_or_else(|| unreadable(&job.id, "it has not ended"))?;
        let update = Update::builder().table_name(&*self.rows.table).key("pk", text(&key));
        let update = update.update_expression("ADD #counter :one SET #expires = :expires");
        let update = update.expression_attribute_names("#counter", counter);
        let update = update.expression_attribute_names("#expires", tables::EXPIRES_S);
        let update = update.expression_attribute_values(":one", number(1));
        let update = update.expression_attribute_values(":expires", number(expires_s));
        update.build().map_err(|error| unreadable(&key, &error.to_string()))
    }
}

/// Returns the reason of the condition that failed, if one did.
fn failed_condition(reasons: &[CancellationReason]) -> Option<&CancellationReason> {
    reasons.iter().find(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

/// Whether the transaction may work later (Amazon DynamoDB API Reference, "TransactWriteItems").
fn is_transient(reasons: &[CancellationReason]) -> bool {
    let transient = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    reasons.iter().any(|reason| reason.code().is_some_and(|code| transient.contains(&code)))
}
