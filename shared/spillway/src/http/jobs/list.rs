//! `GET /v1/jobs`: the caller's jobs, by status and time.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, Call, find, reply, status};
use crate::{
    app::App,
    http::query::{Query, invalid},
    job::JobStatus,
    problem::Problem,
    store::jobs::JobQuery,
    units::UnixMs,
};

/// What its query may name.
const NAMES: [&str; 6] = ["status", "limit", "order", "created_from_ms", "created_before_ms", "after"];

/// How many jobs a page has when nobody says.
const DEFAULT_LIMIT: usize = 20;

/// The most that it can have.
const MAX_LIMIT: usize = 100;

/// A page of the caller's jobs, the newest first.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let (mut wanted, after) = wanted(call.head.parts.uri.query().unwrap_or_default())?;
    if let Some(id) = after {
        wanted.after = Some(find(app, call, &id).await?);
    }
    let page = app.jobs.list(&tenant.name, &wanted).await;
    let page = page?;
    let now = app.clock.now();
    let jobs: Vec<Value> = page.jobs.iter().map(|job| status(app, job, now)).collect();
    let body = json!({ "object": "list", "data": jobs, "has_more": page.next.is_some(), "next_after": page.next });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// The jobs that are wanted, and the id of the one to go on after.
fn wanted(query: &str) -> Result<(JobQuery, Option<String>), Problem> {
    let query = Query::read(Some(query), &NAMES)?;
    let time = |name| query.get(name).map(|value| time(name, value)).transpose();
    let wanted = JobQuery {
        statuses: query.get("status").map(statuses).transpose()?.unwrap_or_default(),
        from: time("created_from_ms")?,
        before: time("created_before_ms")?,
        oldest_first: query.get("order").map(is_ascending).transpose()?.unwrap_or_default(),
        after: None,
        limit: query.limit(DEFAULT_LIMIT, MAX_LIMIT)?,
    };
    Ok((wanted, query.get("after").map(str::to_owned)))
}

fn statuses(value: &str) -> Result<Vec<JobStatus>, Problem> {
    let unknown = || invalid("status", "some of queued,running,succeeded,failed,cancelled,expired");
    value.split(',').map(|name| JobStatus::parse(name).ok_or_else(unknown)).collect()
}

fn is_ascending(value: &str) -> Result<bool, Problem> {
    match value {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err(invalid("order", "asc or desc")),
    }
}

fn time(name: &str, value: &str) -> Result<UnixMs, Problem> {
    value.parse().map(UnixMs::from_ms).map_err(|_| invalid(name, "milliseconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    #[test]
    fn a_query_says_which_jobs_are_wanted() {
        let read = wanted("status=queued%2Crunning&limit=5&order=asc&created_from_ms=7&created_before_ms=9&after=x");
        let expected = JobQuery {
            statuses: vec![JobStatus::Queued, JobStatus::Running],
            from: Some(UnixMs::from_ms(7)),
            before: Some(UnixMs::from_ms(9)),
            oldest_first: true,
            after: None,
            limit: 5,
        };
        assert_eq!(read, Ok((expected, Some("x".into()))));
        assert_eq!(wanted(""), Ok((JobQuery { limit: 20, ..JobQuery::default() }, None)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let bad =
            ["status=done", "limit=0", "limit=101", "order=up", "created_from_ms=noon", "limit=1&limit=2", "page=2"];
        for query_string in bad {
            let refused = wanted(query_string).expect_err(query_string);
            let name = query_string.split('=').next();
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, name), "{query_string}");
        }
    }
}
