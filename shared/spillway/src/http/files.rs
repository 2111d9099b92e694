//! OpenAI's files, as far as batches need them: what goes into one, and what comes out.

pub mod form;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{
    Body, Call,
    query::{Query, invalid},
    reply,
};
use crate::{
    app::App,
    batch::{File, ResourceKind},
    blobs::{BlobError, Blobs},
    problem::{Kind, Problem},
    store::batches::DocumentQuery,
    units::Millis,
};

/// How many files a page has at most. OpenAI allows more; who asks for more gets a page that says that there is another.
const MOST: usize = 1_000;

/// The largest `limit` that is understood, and what it is when nobody says.
const MAX_LIMIT: usize = 10_000;

/// `POST /v1/files`: stores the content first and the file second, so that no file lacks its content.
pub async fn upload(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let bucket = blobs(app)?;
    let content_type = call.head.parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let form = form::read(content_type.unwrap_or_default(), body).await?;
    let now = app.clock.now();
    let file = File {
        id: ResourceKind::File.id(uuid::Uuid::new_v4()),
        tenant: tenant.name.clone(),
        purpose: form.purpose,
        name: form.name,
        bytes: u64::try_from(form.content.len()).unwrap_or(u64::MAX),
        created_at: now,
        expires_at: now + Millis::from_s(form.kept_s),
    };
    bucket.put(&file.key(), form.content).await.map_err(|error| no_bucket(&error))?;
    app.files.create(&file).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(&file)))
}

/// `GET /v1/files`, the newest first.
pub async fn list(app: &App, call: &Call) -> Result<Response<Body>, Problem> {
    let tenant = &call.tenant;
    let query = Query::read(call.head.parts.uri.query(), &["after", "limit", "order", "purpose"])?;
    let limit = query.limit(MAX_LIMIT, MAX_LIMIT)?.min(MOST);
    let oldest_first = match query.get("order") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(invalid("order", "asc or desc")),
    };
    let after = match query.get("after") {
        Some(id) => Some(of_tenant(app, &tenant.name, id).await?),
        None => None,
    };
    let after = after.as_ref().map(|file| (file.id.as_str(), file.created_at));
    let wanted = DocumentQuery { oldest_first, after, limit: limit + 1 };
    let found = app.files.list(&tenant.name, &wanted, query.get("purpose"), app.clock.now()).await;
    let mut files = found?;
    let has_more = files.len() > limit;
    files.truncate(limit);
    let ids = [files.first(), files.last()].map(|file| file.map(|file| file.id.clone()));
    let data: Vec<Value> = files.iter().map(shown).collect();
    let body = json!({ "object": "list", "data": data, "first_id": ids[0], "last_id": ids[1], "has_more": has_more });
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `GET /v1/files/{id}`.
pub async fn get(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &shown(&file)))
}

/// `GET /v1/files/{id}/content`.
pub async fn content(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    let content = read(app, &file).await?;
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    Ok(reply::whole(&call.head, StatusCode::OK, headers, content))
}

/// `DELETE /v1/files/{id}`. A batch that was made of it goes on.
pub async fn delete(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let file = find(app, call, id).await?;
    app.files.delete(&file).await?;
    blobs(app)?.delete(&file.key()).await.map_err(|error| no_bucket(&error))?;
    Ok(reply::json(&call.head, StatusCode::OK, &json!({ "id": file.id, "object": "file", "deleted": true })))
}

async fn find(app: &App, call: &Call, id: &str) -> Result<File, Problem> {
    let tenant = &call.tenant;
    of_tenant(app, &tenant.name, id).await
}

/// A tenant's own file; another's looks as if it did not exist.
///
/// # Errors
/// There is none (404), or the store cannot be reached.
pub async fn of_tenant(app: &App, tenant: &str, id: &str) -> Result<File, Problem> {
    let file = app.files.get(id, app.clock.now()).await?;
    let missing = || Problem { param: Some("id".to_owned()), ..Problem::new(Kind::NotFound, "There is no such file.") };
    file.filter(|file| file.tenant == tenant).ok_or_else(missing)
}

/// The content of a file.
///
/// # Errors
/// It is gone (404), or the bucket cannot be reached.
pub async fn read(app: &App, file: &File) -> Result<Bytes, Problem> {
    let content = blobs(app)?.get(&file.key()).await.map_err(|error| no_bucket(&error))?;
    content.ok_or_else(|| Problem::new(Kind::NotFound, "The content of this file is gone."))
}

/// The bucket.
///
/// # Errors
/// There is none, so there are no files here.
pub fn blobs(app: &App) -> Result<&Blobs, Problem> {
    app.blobs.as_ref().ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            "There are no files and batches here, because no bucket is configured to keep them.",
        )
    })
}

/// The bucket cannot be reached.
pub fn no_bucket(error: &BlobError) -> Problem {
    tracing::warn!(%error, "the bucket cannot be reached");
    let told = "The bucket of files cannot be reached. Try again.";
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Unavailable, told) }
}

fn shown(file: &File) -> Value {
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
