//! `GET /v1/jobs`: the caller's jobs, by status and time.

use std::collections::HashSet;

use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Body, Call, auth, find, reply, status};
use crate::{app::App, broker, chat::Problem, http::query::invalid, job::Status, store::jobs::Wanted};

/// How many jobs a page has when nobody says.
const DEFAULT_LIMIT: usize = 20;

/// The most that it can have.
const MAX_LIMIT: usize = 100;

/// A page of the caller's jobs, the newest first.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = auth::tenant(app, &call.parts).await?;
    let Query { mut wanted, after } = query(call.parts.uri.query().unwrap_or_default())?;
    if let Some(id) = after {
        wanted.after = Some(find(app, call, &id).await?);
    }
    let page = app.jobs.list(&tenant.name, &wanted).await;
    let page = page.map_err(|error| broker::unreachable("job store", &error))?;
    let now_ms = app.clock.now_ms();
    let jobs: Vec<Value> = page.jobs.iter().map(|job| status(app, job, now_ms)).collect();
    let body = json!({ "object": "list", "data": jobs, "has_more": page.next.is_some(), "next_after": page.next });
    Ok(reply::json(call, StatusCode::OK, &body))
}

#[derive(Debug, PartialEq, Eq)]
struct Query {
    wanted: Wanted,
    /// The job to go on after.
    after: Option<String>,
}

fn query(query: &str) -> Result<Query, Problem> {
    let mut wanted = Wanted { limit: DEFAULT_LIMIT, ..Wanted::default() };
    let mut after = None;
    let mut seen = HashSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|_| invalid(name, "valid UTF-8"))?;
        if !seen.insert(name) {
            return Err(invalid(name, "given once"));
        }
        match name {
            "status" => wanted.statuses = statuses(&value)?,
            "limit" => wanted.limit = limit(&value)?,
            "order" => wanted.oldest_first = is_ascending(&value)?,
            "created_from_ms" => wanted.from_ms = Some(time_ms(name, &value)?),
            "created_before_ms" => wanted.before_ms = Some(time_ms(name, &value)?),
            "after" => after = Some(value.into_owned()),
            _ => {
                return Err(invalid(name, "one of status, limit, order, created_from_ms, created_before_ms, after"));
            }
        }
    }
    Ok(Query { wanted, after })
}

fn statuses(value: &str) -> Result<Vec<Status>, Problem> {
    let unknown = || invalid("status", "some of queued,running,succeeded,failed,cancelled,expired");
    value.split(',').map(|name| Status::of_name(name).ok_or_else(unknown)).collect()
}

fn limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| invalid("limit", "1 to 100"))
}

fn is_ascending(value: &str) -> Result<bool, Problem> {
    match value {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err(invalid("order", "asc or desc")),
    }
}

fn time_ms(name: &str, value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| invalid(name, "milliseconds since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Kind;

    #[test]
    fn a_query_says_which_jobs_are_wanted() {
        let read = query("status=queued%2Crunning&limit=5&order=asc&created_from_ms=7&created_before_ms=9&after=x");
        let wanted = Wanted {
            statuses: vec![Status::Queued, Status::Running],
            from_ms: Some(7),
            before_ms: Some(9),
            oldest_first: true,
            after: None,
            limit: 5,
        };
        assert_eq!(read, Ok(Query { wanted, after: Some("x".into()) }));
        assert_eq!(query("").map(|query| query.wanted.limit), Ok(20));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let bad =
            ["status=done", "limit=0", "limit=101", "order=up", "created_from_ms=noon", "limit=1&limit=2", "page=2"];
        for query_string in bad {
            let refused = query(query_string).expect_err(query_string);
            let name = query_string.split('=').next();
            assert_eq!((refused.kind, refused.param.as_deref()), (Kind::Invalid, name), "{query_string}");
        }
    }
}
