//! The ends of a batch's lines, each counted once: the counter moves in the transaction that ends the job.
//!
//! The counters of a batch are several rows, `<batch>#count<n>`, because transactions on one row refuse each other.

use std::time::Duration;

use aws_sdk_dynamodb::{
    operation::{put_item::builders::PutItemFluentBuilder, transact_write_items::TransactWriteItemsError},
    types::{CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update},
};

use super::rows::{Replaced, Rows, number, read_job, text, unreadable};
use crate::{
    batch::Counts,
    job::{Job, Member},
    store::{StoreError, tables},
};

/// How many rows count the lines of a batch.
pub(in crate::store) const SHARDS: u64 = 16;

/// How often a transaction that met another one is tried again.
const MOST_TRIES: u32 = 12;

/// The longest pause before that, at first; it doubles up to four times.
const PAUSE: Duration = Duration::from_millis(8);

/// The row that counts a line.
pub(in crate::store) fn counter_key(batch: &str, line: u64) -> String {
    format!("{batch}#count{}", line % SHARDS)
}

impl Rows {
    /// Writes a job's row and counts its end, both or neither.
    pub(super) async fn write_and_count(
        &self,
        request: PutItemFluentBuilder,
        job: &Job,
        member: &Member,
        expires_s: u64,
    ) -> Result<Replaced, StoreError> {
        let put = self.put_of(&request, &job.id)?;
        let count = self.count_of(job, member, expires_s)?;
        for tries in 0..MOST_TRIES {
            let request = self.client.transact_write_items();
            let request = request.transact_items(TransactWriteItem::builder().put(put.clone()).build());
            let request = request.transact_items(TransactWriteItem::builder().update(count.clone()).build());
            let error = match request.send().await {
                Ok(_) => return Ok(Replaced::Done(job.clone())),
                Err(error) => error,
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error()
            else {
                return Err(error.into());
            };
            match refused(cancelled.cancellation_reasons()) {
                // A transaction whose answer was lost may have been sent again: if what is there is what we wrote, it is done.
                Some(reason) => {
                    let there = reason.item().map(read_job).transpose()?;
                    return Ok(match there {
                        Some(there) if there.etag == job.etag => Replaced::Done(there),
                        there => Replaced::Conflict(there),
                    });
                }
                None if is_passing(cancelled.cancellation_reasons()) => {
                    tokio::time::sleep((PAUSE * 2_u32.pow(tries.min(4))).mul_f64(fastrand::f64())).await;
                }
                None => return Err(error.into()),
            }
        }
        Err(StoreError::Contended { row: counter_key(&member.batch, member.line) })
    }

    fn put_of(&self, request: &PutItemFluentBuilder, id: &str) -> Result<Put, StoreError> {
        let put = Put::builder()
            .table_name(&*self.table)
            .set_item(request.get_item().clone())
            .set_condition_expression(request.get_condition_expression().clone())
            .set_expression_attribute_values(request.get_expression_attribute_values().clone())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        put.build().map_err(|error| unreadable(id, &error.to_string()))
    }

    fn count_of(&self, job: &Job, member: &Member, expires_s: u64) -> Result<Update, StoreError> {
        let key = counter_key(&member.batch, member.line);
        let counter = Counts::counter(job.status).ok_or_else(|| unreadable(&job.id, "it has not ended"))?;
        let update = Update::builder().table_name(&*self.table).key("pk", text(&key));
        let update = update.update_expression("ADD #counter :one SET #expires = :expires");
        let update = update.expression_attribute_names("#counter", counter);
        let update = update.expression_attribute_names("#expires", tables::EXPIRES_S);
        let update = update.expression_attribute_values(":one", number(1));
        let update = update.expression_attribute_values(":expires", number(expires_s));
        update.build().map_err(|error| unreadable(&key, &error.to_string()))
    }
}

/// What was not as it was seen, if that is why.
fn refused(reasons: &[CancellationReason]) -> Option<&CancellationReason> {
    reasons.iter().find(|reason| reason.code() == Some("ConditionalCheckFailed"))
}

/// Whether it may work later (Amazon DynamoDB API Reference, "TransactWriteItems").
fn is_passing(reasons: &[CancellationReason]) -> bool {
    let passing = ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    reasons.iter().any(|reason| reason.code().is_some_and(|code| passing.contains(&code)))
}
