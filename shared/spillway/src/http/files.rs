//! OpenAI's files: the input and the output of batches.

pub mod form;
pub mod uploads;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{Body, Call, query::Query, reply};
use crate::{
    allowance,
    app::App,
    batch::{File, ResourceKind},
    blobs::Blobs,
    problem::{Kind, Problem},
    store::batches::DocumentQuery,
    units::Millis,
};

/// Maximum `limit`, as in OpenAI's API, and the limit without that parameter.
const MAX_LIMIT: usize = 10_000;

/// Maximum of files in a page. A list with a larger `limit` gets a page of this size, which says
/// that more files follow.
const MAX_PAGE_FILES: usize = 1_000;

/// Number of objects of a file that are handled concurrently.
const AT_ONCE: usize = 16;

/// `POST /v1/files`. The content is stored first and the file second, so that every file has its
/// content.
///
/// # Errors
/// Returns an error if the form is malformed, if no bucket is configured, or if a service is
/// unavailable.
pub async fn upload(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let blobs = blobs(app)?;
    let form = form::read(content_type(call), body).await?;
    let now = app.clock.now();
    let file = File {
        id: ResourceKind::File.id(uuid::Uuid::new_v4()),
        tenant: call.tenant.name.clone(),
        purpose: form.purpose,
        name: form.name,
        bytes: u64::try_from(form.content.len()).unwrap_or(u64::MAX),
        created_at: now,
        expires_at: now + Millis::from_s(form.retention_s),
        objects: Vec::new(),
    };
    allowance::admit_object(app, &call.tenant, file.bytes).await?;
    blobs.put(&file.key(), form.content).await?;
    app.files.create(&file).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(&file)))
}

/// `GET /v1/files`: a page of the caller's files, the newest first unless `order=asc`.
///
/// # Errors
/// Returns an error if the query is invalid, if it names a file that does not exist, or if the
/// store is unavailable.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let query = Query::read(call.head.parts.uri.query(), &["after", "limit", "order", "purpose"])?;
    let limit = query.limit(MAX_LIMIT, MAX_LIMIT)?.min(MAX_PAGE_FILES);
    let oldest_first = query.is_oldest_first()?;
    let after = match query.get("after") {
        Some(id) => Some(find(app, call, id).await?),
        None => None,
    };
    let after = after.as_ref().map(|file| (file.id.as_str(), file.created_at));
    let page = DocumentQuery { oldest_first, after, limit: limit + 1 };
    let mut files = app.files.list(&call.tenant.name, &page, query.get("purpose"), app.clock.now()).await?;
    let has_more = files.len() > limit;
    files.truncate(limit);
    let ids = [files.first(), files.last()].map(|file| file.map(|file| file.id.clone()));
    let data: Vec<Value> = files.iter().map(object).collect();
    let body = json!({ "object": "list", "data": data, "first_id": ids[0], "last_id": ids[1], "has_more": has_more });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/files/{id}`.
///
/// # Errors
/// Returns an error if the caller has no such file, or if the store is unavailable.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &object(&file)))
}

/// `GET /v1/files/{id}/content`.
///
/// # Errors
/// Returns an error if the caller has no such file, or as [`read`].
pub async fn content(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    let content = read(app, &file).await?;
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok(reply::whole(&call.head, StatusCode::OK, headers, content))
}

/// `DELETE /v1/files/{id}`. A batch with this input continues, because it has a copy.
///
/// # Errors
/// Returns an error if the caller has no such file, or if a service is unavailable.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    app.files.delete(&file).await?;
    for key in file.keys() {
        blobs(app)?.delete(&key).await?;
    }
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": file.id, "object": "file", "deleted": true })))
}

/// Returns the caller's file with this id. Files of other tenants count as missing.
///
/// # Errors
/// Returns an error if the caller has no such file (404), or if the store is unavailable.
pub async fn find(app: &App, call: &Call, id: &str) -> Result<File, Problem> {
    let file = app.files.get(id, app.clock.now()).await?;
    let missing = || Problem { param: Some("id".to_owned()), ..Problem::new(Kind::NotFound, "There is no such file.") };
    file.filter(|file| file.tenant == call.tenant.name).ok_or_else(missing)
}

/// Returns the content of a file.
async fn read(app: &App, file: &File) -> Result<Bytes, Problem> {
    let content = blobs(app)?.get_joined(&file.keys(), file.bytes).await?;
    content.ok_or_else(content_missing)
}

/// Passes the content of a file to `on_chunk`, of which only a chunk at a time is in memory.
///
/// # Errors
/// Returns an error if the content is no longer kept (404), or if the bucket is unavailable.
pub async fn scan(blobs: &Blobs, file: &File, mut on_chunk: impl FnMut(&[u8])) -> Result<(), Problem> {
    for key in file.keys() {
        if !blobs.read(&key, &mut on_chunk).await? {
            return Err(content_missing());
        }
    }
    Ok(())
}

/// Copies the objects of a file to `keys`, within the bucket.
///
/// # Errors
/// Returns an error if the content is no longer kept (404), or if the bucket is unavailable.
pub async fn copy(blobs: &Blobs, file: &File, keys: &[String]) -> Result<(), Problem> {
    let objects = file.keys();
    let copies: Vec<(&String, &String)> = objects.iter().zip(keys).collect();
    for copies in copies.chunks(AT_ONCE) {
        let exist = try_join_all(copies.iter().map(|(from, to)| blobs.copy(from, to))).await?;
        if exist.contains(&false) {
            return Err(content_missing());
        }
    }
    Ok(())
}

fn content_missing() -> Problem {
    Problem::new(Kind::NotFound, "The content of this file is no longer kept.")
}

/// Returns the bucket with the content of files.
///
/// # Errors
/// Returns an error if no bucket is configured (404).
pub fn blobs(app: &App) -> Result<&Blobs, Problem> {
    app.blobs
        .as_ref()
        .ok_or_else(|| Problem::new(Kind::NotFound, "No bucket is configured, so files and batches are not available."))
}

/// Returns the content type of the request.
fn content_type(call: &Call) -> &str {
    let content_type = call.head.parts.headers.get(CONTENT_TYPE);
    content_type.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The file as an object of OpenAI's API.
fn object(file: &File) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at.as_s(),
        "expires_at": file.expires_at.as_s(),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": null,
    })
}
