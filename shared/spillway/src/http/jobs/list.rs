//! `GET /v1/jobs`: lists the caller's jobs by status and time.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, find, object, reply};
use crate::{
    app::App,
    http::query::{Query, invalid},
    job::JobStatus,
    problem::Problem,
    store::jobs::JobQuery,
    units::UnixMs,
};

/// Names that the query may have.
const NAMES: [&str; 6] = ["status", "limit", "order", "created_from_ms", "created_before_ms", "after"];

/// Number of jobs in a page without `limit`.
const DEFAULT_LIMIT: usize = 20;

/// Maximum `limit`.
const MAX_LIMIT: usize = 100;

/// `GET /v1/jobs`: a page of the caller's jobs, the newest first unless `order=asc`.
///
/// # Errors
/// Returns an error if the query is invalid, if it names a job that does not exist, or if the store
/// is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let (mut job_query, after) = parse(call.head.parts.uri.query())?;
    if let Some(id) = after {
        job_query.after = Some(find(app, call, &id).await?);
    }
    let page = app.jobs.list(&call.tenant.name, &job_query).await?;
    let now = app.clock.now();
    let jobs: Vec<Value> = page.jobs.iter().map(|job| object(call, job, now)).collect();
    let body = json!({ "object": "list", "data": jobs, "has_more": page.next.is_some(), "next_after": page.next });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// Parses the query. Also returns the id of the job after which the page begins, which the caller
/// must find.
fn parse(query: Option<&str>) -> Result<(JobQuery, Option<String>), Problem> {
    let query = Query::read(query, &NAMES)?;
    let time = |name| query.get(name).map(|value| parse_time(name, value)).transpose();
    let job_query = JobQuery {
        statuses: query.get("status").map(parse_statuses).transpose()?.unwrap_or_default(),
        from: time("created_from_ms")?,
        before: time("created_before_ms")?,
        oldest_first: query.is_oldest_first()?,
        after: None,
        limit: query.limit(DEFAULT_LIMIT, MAX_LIMIT)?,
    };
    Ok((job_query, query.get("after").map(str::to_owned)))
}

fn parse_statuses(value: &str) -> Result<Vec<JobStatus>, Problem> {
    let unknown = || invalid("status", "one or more of queued,running,succeeded,failed,cancelled,expired");
    value.split(',').map(|name| JobStatus::parse(name).ok_or_else(unknown)).collect()
}

fn parse_time(name: &str, value: &str) -> Result<UnixMs, Problem> {
    value.parse().map(UnixMs::from_ms).map_err(|_| invalid(name, "milliseconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    #[test]
    fn a_query_selects_jobs_by_status_and_time() {
        let parsed =
            parse(Some("status=queued%2Crunning&limit=5&order=asc&created_from_ms=7&created_before_ms=9&after=x"));
        let expected = JobQuery {
            statuses: vec![JobStatus::Queued, JobStatus::Running],
            from: Some(UnixMs::from_ms(7)),
            before: Some(UnixMs::from_ms(9)),
            oldest_first: true,
            after: None,
            limit: 5,
        };
        assert_eq!(parsed, Ok((expected, Some("x".into()))));
        assert_eq!(parse(None), Ok((JobQuery { limit: 20, ..JobQuery::default() }, None)));
    }

    #[test]
    fn an_invalid_query_parameter_is_refused_by_name() {
        let invalid =
            ["status=done", "limit=0", "limit=101", "order=up", "created_from_ms=noon", "limit=1&limit=2", "page=2"];
        for query_string in invalid {
            let refused = parse(Some(query_string)).expect_err(query_string);
            let name = query_string.split('=').next();
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, name), "{query_string}");
        }
    }
}
