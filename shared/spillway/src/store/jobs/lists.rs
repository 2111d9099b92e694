//! Lists of a tenant's jobs, by time.

use super::Jobs;
use crate::{
    job::{Job, JobStatus},
    store::{
        StoreError,
        list_index::{ListRange, MAX_TIME, list_key},
    },
    units::{Millis, UnixMs},
};

/// Kind of jobs in the index of a tenant's resources.
const KIND: &str = "job";

/// Maximum of jobs that are read for one page. If few of them have a wanted status, the page ends
/// before it is full.
const MAX_JOBS_READ: usize = 1_000;

/// Number of jobs in one read.
const READ_JOBS: usize = 100;

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// Only jobs with one of these statuses. Empty means all.
    pub statuses: Vec<JobStatus>,
    /// Only jobs that were accepted at this time or later.
    pub from: Option<UnixMs>,
    /// Only jobs that were accepted before this time.
    pub before: Option<UnixMs>,
    /// The oldest first instead of the newest.
    pub oldest_first: bool,
    /// Only jobs after this job.
    pub after: Option<Job>,
    /// Maximum of jobs.
    pub limit: usize,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Id of the job after which the next page begins, if there may be more jobs.
    pub next: Option<String>,
}

impl Jobs {
    /// Lists jobs of `tenant`. Jobs that were accepted within the last second may be missing,
    /// because the index lags behind.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn list(&self, tenant: &str, query: &JobQuery) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut range = query.range();
        for _ in 0..MAX_JOBS_READ / READ_JOBS {
            let ids = self.rows.rows.list(tenant, &range, READ_JOBS).await?;
            let is_last = ids.len() < READ_JOBS;
            for job in self.rows.get_all(&ids).await? {
                range.continue_after(index_key(&job));
                if !query.matches(&job) {
                    continue;
                }
                if page.jobs.len() == query.limit {
                    page.next = page.jobs.last().map(|job| job.id.clone());
                    return Ok(page);
                }
                page.jobs.push(job);
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = range.into_after_id();
        Ok(page)
    }
}

impl JobQuery {
    fn range(&self) -> ListRange {
        let from = self.from.unwrap_or_default();
        let until = self.before.map_or(MAX_TIME, |before| before - Millis::from_ms(1));
        let after = self.after.as_ref().map(index_key);
        ListRange::new(KIND, from, until).oldest_first(self.oldest_first).after(after)
    }

    fn matches(&self, job: &Job) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&job.status)
    }
}

/// The id of a job and its key in the index.
pub(super) fn index_key(job: &Job) -> (String, String) {
    (job.id.clone(), list_key(KIND, job.created_at, &job.id))
}
