//! A tenant's jobs, as lists: by time, and by who comes next.

use super::{
    Jobs,
    indexes::{Stretch, Waiting, listed_key},
};
use crate::{
    job::{Job, Status},
    store::StoreError,
};

/// The kind of jobs in the index of what tenants have.
const KIND: &str = "job";

/// How many jobs are looked at for one page: with few of the wanted status among many, a page can end before it is full.
const MOST_LOOKED_AT: usize = 1_000;

/// How many are looked at together.
const AT_ONCE: usize = 100;

/// Which of its jobs a tenant wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only these; all when empty.
    pub statuses: Vec<Status>,
    /// Accepted at this time or later, in milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Accepted before this time.
    pub before_ms: Option<u64>,
    /// The oldest first instead of the newest.
    pub oldest_first: bool,
    /// Only what follows this job.
    pub after: Option<Job>,
    /// How many at most.
    pub limit: usize,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The job to go on after, if there may be more.
    pub next: Option<String>,
}

impl Jobs {
    /// The jobs of `tenant` that are wanted. What was accepted within the last second may be missing: the index follows.
    pub async fn list(&self, tenant: &str, wanted: &Wanted) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut stretch = wanted.stretch();
        for _ in 0..MOST_LOOKED_AT / AT_ONCE {
            let ids = self.rows.listed(tenant, &stretch, AT_ONCE).await?;
            let is_last = ids.len() < AT_ONCE;
            for job in self.rows.jobs(&ids).await? {
                stretch.after = Some(key(&job));
                if !wanted.is_wanted(&job) {
                    continue;
                }
                if page.jobs.len() == wanted.limit {
                    page.next = page.jobs.last().map(|job| job.id.clone());
                    return Ok(page);
                }
                page.jobs.push(job);
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = stretch.after.map(|(id, _)| id);
        Ok(page)
    }

    /// The waiting jobs of the tenant of `job` that go before it, at most `most`, the next one first.
    pub async fn before(&self, job: &Job, most: usize) -> Result<Vec<Waiting>, StoreError> {
        self.rows.waiting_before(&job.tenant, job.place_ms(), most).await
    }

    /// The next of the waiting jobs of `tenant`.
    pub async fn next_waiting(&self, tenant: &str) -> Result<Option<Waiting>, StoreError> {
        Ok(self.rows.waiting_before(tenant, LAST_MS, 1).await?.pop())
    }

    /// How many jobs of its tenant wait before `job`.
    pub async fn count_before(&self, job: &Job) -> Result<u64, StoreError> {
        self.rows.count_waiting_before(&job.tenant, job.place_ms()).await
    }
}

impl Wanted {
    fn stretch(&self) -> Stretch {
        let from_ms = self.from_ms.unwrap_or(0);
        let last_ms = self.before_ms.map_or(LAST_MS, |before_ms| before_ms.saturating_sub(1).min(LAST_MS));
        // `~` sorts behind every id.
        Stretch {
            from: listed_key(KIND, from_ms.min(LAST_MS), ""),
            to: listed_key(KIND, last_ms, "~"),
            newest_first: !self.oldest_first,
            after: self.after.as_ref().map(key),
        }
    }

    fn is_wanted(&self, job: &Job) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&job.status)
    }
}

/// The last time of thirteen digits: in the year 2286.
const LAST_MS: u64 = 9_999_999_999_999;

/// The id of a job and its key in the index.
pub(super) fn key(job: &Job) -> (String, String) {
    (job.id.clone(), listed_key(KIND, job.created_ms, &job.id))
}
