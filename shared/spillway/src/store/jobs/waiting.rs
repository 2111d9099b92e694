//! The index of waiting jobs, in the order in which they are next.

use aws_sdk_dynamodb::{operation::query::builders::QueryFluentBuilder, types::Select};

use super::{Jobs, rows::JobRows};
use crate::{
    job::{Job, Priority, WaitingJob},
    store::{
        StoreError,
        list_index::MAX_TIME,
        rows::{number, number_in, text, text_in, unreadable},
        tables,
    },
    units::UnixMs,
};

/// Maximum number of jobs that are counted.
pub const MAX_COUNTED: u64 = 500;

impl Jobs {
    /// Returns waiting jobs of the same tenant that are before `job`: up to `limit` parked jobs
    /// and, unless `job` is parked itself, up to `limit` jobs that have messages. The next ones are
    /// first.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn before(&self, job: &Job, limit: usize) -> Result<Vec<WaitingJob>, StoreError> {
        let before = async |is_parked| {
            self.rows.waiting_before(&partition(&job.tenant, is_parked), job.effective_arrival(), limit).await
        };
        if job.is_parked {
            return before(true).await;
        }
        let (parked, with_messages) = tokio::try_join!(before(true), before(false))?;
        Ok(parked.into_iter().chain(with_messages).collect())
    }

    /// Returns up to `limit` parked jobs of `tenant`, and up to `limit` waiting jobs that have
    /// messages. The next ones are first. Jobs that began to wait within the last second may be
    /// missing, because the index lags behind.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn waiting(&self, tenant: &str, limit: usize) -> Result<(Vec<WaitingJob>, Vec<WaitingJob>), StoreError> {
        let (parked, with_messages) = (partition(tenant, true), partition(tenant, false));
        tokio::try_join!(
            self.rows.waiting_before(&parked, MAX_TIME, limit),
            self.rows.waiting_before(&with_messages, MAX_TIME, limit)
        )
    }

    /// Returns when the first waiting job of `tenant` is ready, if one waits. Jobs that began to
    /// wait within the last second may be missing.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn first_ready_at(&self, tenant: &str) -> Result<Option<UnixMs>, StoreError> {
        let (jobs, owner) = (self.clone(), tenant.to_owned());
        let look = async move {
            let (parked, with_messages) = jobs.waiting(&owner, 1).await?;
            Ok(parked.iter().chain(&with_messages).map(|job| job.ready_at).min())
        };
        self.looks.join(tenant, look).await
    }

    /// Counts the waiting jobs of `tenant`. Jobs that began to wait within the last second may be
    /// missing.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn count_waiting(&self, tenant: &str) -> Result<u64, StoreError> {
        let (parked, with_messages) = (partition(tenant, true), partition(tenant, false));
        let counted = tokio::try_join!(self.rows.count_waiting(&parked), self.rows.count_waiting(&with_messages));
        counted.map(|(parked, with_messages)| parked + with_messages)
    }

    /// Counts the waiting jobs of the same tenant that are before `job`. Stops above
    /// [`MAX_COUNTED`].
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn count_before(&self, job: &Job) -> Result<u64, StoreError> {
        let count = async |is_parked| {
            self.rows.count_waiting_before(&partition(&job.tenant, is_parked), job.effective_arrival()).await
        };
        let (parked, with_messages) = tokio::try_join!(count(true), count(false))?;
        Ok((parked + with_messages).min(MAX_COUNTED + 1))
    }
}

/// Returns the partition of the index for jobs of `tenant` that are parked, or that have messages.
/// Names of tenants contain no `#`.
pub(super) fn partition(tenant: &str, is_parked: bool) -> String {
    if is_parked { format!("{tenant}#parked") } else { tenant.to_owned() }
}

impl JobRows {
    async fn waiting_before(
        &self,
        partition: &str,
        effective_arrival: UnixMs,
        limit: usize,
    ) -> Result<Vec<WaitingJob>, StoreError> {
        let request = self.in_partition(partition, effective_arrival);
        let found = request.limit(i32::try_from(limit).unwrap_or(i32::MAX)).send().await?;
        let parse = |item| {
            let id = text_in(item, "pk")?.to_owned();
            let priority = Priority::parse(text_in(item, "priority")?)?;
            Some(WaitingJob { id, priority, ready_at: UnixMs::from_ms(number_in(item, "ready_ms")?) })
        };
        let parse = |item| parse(item).ok_or_else(|| unreadable("a waiting job", "an attribute is missing"));
        found.items().iter().map(parse).collect()
    }

    async fn count_waiting_before(&self, partition: &str, effective_arrival: UnixMs) -> Result<u64, StoreError> {
        let request = self.in_partition(partition, effective_arrival).select(Select::Count);
        let counted = request.limit(i32::try_from(MAX_COUNTED + 1).unwrap_or(i32::MAX)).send().await?;
        Ok(counted.count().try_into().unwrap_or_default())
    }

    /// Counts the whole partition, page by page.
    async fn count_waiting(&self, partition: &str) -> Result<u64, StoreError> {
        let request = self.in_partition(partition, MAX_TIME).select(Select::Count);
        let mut pages = request.into_paginator().send();
        let mut counted = 0;
        while let Some(page) = pages.next().await {
            counted += u64::try_from(page?.count()).unwrap_or_default();
        }
        Ok(counted)
    }

    fn in_partition(&self, partition: &str, effective_arrival: UnixMs) -> QueryFluentBuilder {
        let request = self.rows.client.query().table_name(&*self.rows.table).index_name(tables::WAITING_INDEX);
        let request = request.key_condition_expression("waiting = :partition AND place_ms < :place_ms");
        let request = request.expression_attribute_values(":partition", text(partition));
        request.expression_attribute_values(":place_ms", number(effective_arrival.as_ms()))
    }
}
