//! Admits what calls no model: waiting jobs, stored bytes, and all other requests.
//!
//! Each has a limit of the tenant that protects what tenants share. `quota::allowance` decides, and
//! `store::allowances` counts across processes. This module knows how what a tenant holds is
//! counted, and how a refusal is reported.

use crate::{
    app::App,
    problem::{Kind, Problem, RefusedBy},
    quota::{Allowance, LimitName, allowance::MIN_OBJECT_BYTES},
    store::{StoreError, allowances::TakeOutcome},
    tenant::Tenant,
};

/// Admits a request that calls no model.
///
/// # Errors
/// Returns an error if the tenant has reached its limit (429).
pub async fn admit_request(app: &App, tenant: &Tenant) -> Result<(), Problem> {
    admit(app, tenant, Allowance::OtherRequests, 1).await
}

/// Admits `jobs` that will wait.
///
/// # Errors
/// Returns an error if the tenant has reached its limit (429), if it can never have as many waiting
/// jobs (413), or if the ledger is unavailable (503).
pub async fn admit_jobs(app: &App, tenant: &Tenant, jobs: u64) -> Result<(), Problem> {
    admit(app, tenant, Allowance::WaitingJobs, jobs).await
}

/// Admits an object of `bytes` to the bucket.
///
/// # Errors
/// Returns an error if the tenant has reached its limit (400), if no object of the tenant can be as
/// large (413), or if the ledger is unavailable (503).
pub async fn admit_object(app: &App, tenant: &Tenant, bytes: u64) -> Result<(), Problem> {
    admit(app, tenant, Allowance::StoredBytes, bytes.max(MIN_OBJECT_BYTES)).await
}

async fn admit(app: &App, tenant: &Tenant, of: Allowance, amount: u64) -> Result<(), Problem> {
    // On the heap: counting needs several clients, and most requests do not count.
    let count = async { Box::pin(count(app, &tenant.name, of)).await };
    let problem = match Box::pin(app.allowances.take(tenant, of, amount, count)).await? {
        TakeOutcome::Taken => return Ok(()),
        TakeOutcome::Full { retry_after } => {
            Problem { retry_after: (of != Allowance::StoredBytes).then_some(retry_after), ..reached(tenant, of) }
        }
        TakeOutcome::TooLarge => too_large(tenant, of, amount),
    };
    app.refusals.add(&tenant.name, &[LimitName::Allowance(of)]).await;
    Err(problem)
}

/// Counts what `tenant` holds.
async fn count(app: &App, tenant: &str, of: Allowance) -> Result<u64, StoreError> {
    let now = app.clock.now();
    match of {
        Allowance::WaitingJobs => {
            let counted = tokio::try_join!(app.jobs.count_waiting(tenant), app.batches.count_coming_lines(tenant, now));
            counted.map(|(jobs, lines)| jobs + lines)
        }
        Allowance::StoredBytes => {
            let Some(blobs) = &app.blobs else { return Ok(0) };
            let stored =
                async { Ok(blobs.sum_sizes(&format!("{tenant}/"), |bytes| bytes.max(MIN_OBJECT_BYTES)).await?) };
            let counted = tokio::try_join!(stored, app.uploads.sum_open_bytes(tenant, now));
            counted.map(|(stored, announced)| stored + announced)
        }
        // Their item counts them itself.
        Allowance::OtherRequests => Ok(0),
    }
}

/// The problem of a tenant that has reached its limit.
fn reached(tenant: &Tenant, of: Allowance) -> Problem {
    let (kind, advice) = match of {
        Allowance::WaitingJobs => {
            (Kind::Throttled, "Try again when some of its jobs have ended, or cancel jobs or batches.")
        }
        Allowance::StoredBytes => (
            Kind::Invalid,
            "Delete files, and try again after ten seconds. Files and large bodies expire after 30 days.",
        ),
        Allowance::OtherRequests => (
            Kind::Throttled,
            "It counts requests that call no model, such as polls, lists, uploads, token counts and repeated calls.",
        ),
    };
    let message =
        format!("Tenant {} has reached its limit: {} of {}. {advice}", tenant.name, of.name(), tenant.max(of));
    Problem { refused_by: Some(RefusedBy::Allowance(of)), ..Problem::new(kind, message) }
}

/// The problem of a request for more than the tenant can ever have.
fn too_large(tenant: &Tenant, of: Allowance, amount: u64) -> Problem {
    let what = match of {
        Allowance::WaitingJobs => format!("The batch has {amount} lines"),
        Allowance::StoredBytes => format!("The content counts as {amount} bytes"),
        Allowance::OtherRequests => format!("These are {amount} requests"),
    };
    let message = format!("{what}, but tenant {} has the limit {} of {}.", tenant.name, of.name(), tenant.max(of));
    Problem { refused_by: Some(RefusedBy::Allowance(of)), ..Problem::new(Kind::TooLarge, message) }
}
