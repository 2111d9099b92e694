//! The index of waiting jobs, in the order in which they are next.

use aws_sdk_dynamodb::{operation::query::builders::QueryFluentBuilder, types::Select};

use super::{Jobs, rows::JobRows};
use crate::{
    job::{Job, Priority},
    store::{
        StoreError,
        list_index::MAX_TIME,
        rows::{number, number_in, text, text_in, unreadable},
        tables,
    },
    units::UnixMs,
};

/// A waiting job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingJob {
    /// Id of the job.
    pub id: String,
    /// Priority of the job.
    pub priority: Priority,
    /// Time from which the job can be claimed.
    pub ready_at: UnixMs,
}

impl Jobs {
    /// Returns up to `limit` waiting jobs of the same tenant that are before `job`, the next one
    /// first.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn before(&self, job: &Job, limit: usize) -> Result<Vec<WaitingJob>, StoreError> {
        self.rows.waiting_before(&job.tenant, job.effective_arrival(), limit).await
    }

    /// Returns the waiting job of `tenant` that is next.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn next_waiting(&self, tenant: &str) -> Result<Option<WaitingJob>, StoreError> {
        Ok(self.rows.waiting_before(tenant, MAX_TIME, 1).await?.pop())
    }

    /// Counts the waiting jobs of the same tenant that are before `job`, up to about ten thousand.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn count_before(&self, job: &Job) -> Result<u64, StoreError> {
        self.rows.count_waiting_before(&job.tenant, job.effective_arrival()).await
    }
}

impl JobRows {
    async fn waiting_before(
        &self,
        tenant: &str,
        effective_arrival: UnixMs,
        limit: usize,
    ) -> Result<Vec<WaitingJob>, StoreError> {
        let request = self.waiting(tenant, effective_arrival).limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let found = request.send().await?;
        let parse = |item| {
            let id = text_in(item, "pk")?.to_owned();
            let priority = Priority::parse(text_in(item, "priority")?)?;
            Some(WaitingJob { id, priority, ready_at: UnixMs::from_ms(number_in(item, "ready_ms")?) })
        };
        let parse = |item| parse(item).ok_or_else(|| unreadable("a waiting job", "an attribute is missing"));
        found.items().iter().map(parse).collect()
    }

    /// Counts up to one page of the index: about ten thousand jobs.
    async fn count_waiting_before(&self, tenant: &str, effective_arrival: UnixMs) -> Result<u64, StoreError> {
        let counted = self.waiting(tenant, effective_arrival).select(Select::Count).send().await?;
        Ok(counted.count().try_into().unwrap_or_default())
    }

    fn waiting(&self, tenant: &str, effective_arrival: UnixMs) -> QueryFluentBuilder {
        let request = self.rows.client.query().table_name(&*self.rows.table).index_name(tables::WAITING_INDEX);
        let request = request.key_condition_expression("waiting = :tenant AND place_ms < :place_ms");
        let request = request.expression_attribute_values(":tenant", text(tenant));
        request.expression_attribute_values(":place_ms", number(effective_arrival.as_ms()))
    }
}
