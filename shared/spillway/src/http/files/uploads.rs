//! OpenAI's uploads: files that are larger than a request, sent in parts or straight to the bucket.
//!
//! A part is an object of the bucket, and a file consists of its parts' objects. So no content is
//! copied when an upload is completed, and no row is written for a part. Parts that no file needs
//! expire with the bucket's objects.

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::{Response, StatusCode};
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{AT_ONCE, blobs, content_type, form, object};
use crate::{
    allowance,
    app::App,
    batch::{MAX_PARTS, MAX_UPLOAD_TIME, ResourceKind, Upload, UploadStatus, check_bytes, is_part_id, part_id},
    blobs::Blobs,
    dialect::json,
    http::{Body, Call, batches::unknown_parameter, reply},
    problem::{Kind, Problem},
    retention,
    store::WriteOutcome,
    units::UnixMs,
};

/// Maximum of tries of a change while other requests change the upload.
const MAX_CHANGE_TRIES: usize = 4;

/// `POST /v1/uploads`. Besides OpenAI's members, the answer has `put_url`: until the upload
/// expires, the caller can send the whole file there instead of in parts.
///
/// # Errors
/// Returns an error if a parameter is invalid, if no bucket is configured, or if a service is
/// unavailable.
pub async fn create(app: &App, call: &Call, body: Bytes) -> Result<Response<Body>, Problem> {
    let blobs = blobs(app)?;
    let parameters = UploadParameters::parse(&body)?;
    let now = app.clock.now();
    let upload = Upload {
        id: ResourceKind::Upload.id(Uuid::new_v4()),
        tenant: call.tenant.name.clone(),
        purpose: "batch".to_owned(),
        name: parameters.name,
        bytes: parameters.bytes,
        retention_s: parameters.retention_s,
        created_at: now,
        expires_at: now + MAX_UPLOAD_TIME,
        status: UploadStatus::Pending,
        completed_at: None,
        parts: Vec::new(),
        etag: String::new(),
    };
    allowance::admit_object(app, &call.tenant, upload.bytes).await?;
    let put_url = blobs.put_url(&upload.whole_key(), upload.bytes, MAX_UPLOAD_TIME).await?;
    let upload = app.uploads.create(upload).await?;
    let mut body = upload_object(&upload, now);
    body["put_url"] = put_url.into();
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `POST /v1/uploads/{id}/parts`. Parts can be added concurrently.
///
/// # Errors
/// Returns an error if the caller has no such upload, if it accepts no parts, if the form is
/// malformed, or if a service is unavailable.
pub async fn add_part(app: &App, call: &Call, id: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let upload = find(app, call, id).await?;
    let now = app.clock.now();
    upload.check_open(now)?;
    let content = form::read_part(content_type(call), body).await?;
    let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    allowance::admit_object(app, &call.tenant, bytes).await?;
    let part_id = part_id(Uuid::new_v4());
    blobs(app)?.put(&upload.part_key(&part_id), content).await?;
    let part = json!({ "id": part_id, "object": "upload.part", "created_at": now.as_s(), "upload_id": upload.id });
    Ok(reply::json(&call.head, StatusCode::OK, &part))
}

/// `POST /v1/uploads/{id}/complete`. Without parts, the file is what was sent to `put_url`. A
/// repeated request gets the same answer.
///
/// # Errors
/// Returns an error if the caller has no such upload, if it is cancelled, expired or completed with
/// other parts, if a part is missing, if the content does not have the announced size or digest, or
/// if a service is unavailable.
pub async fn complete(app: &App, call: &Call, id: &str, body: Bytes) -> Result<Response<Body>, Problem> {
    let Completion { parts, md5 } = Completion::parse(&body)?;
    let now = app.clock.now();
    let upload = find(app, call, id).await?;
    let completed = upload.completed(&parts, now)?;
    let file = completed.file().ok_or_else(missing)?;
    check_size(blobs(app)?, &file.keys(), &parts, upload.bytes).await?;
    if let Some(md5) = md5 {
        check_md5(blobs(app)?, &file.keys(), &md5).await?;
    }
    let upload = change(app, upload, |upload| upload.completed(&parts, now)).await?;
    let file = upload.file().ok_or_else(missing)?;
    app.files.create(&file).await?;
    let mut body = upload_object(&upload, now);
    body["file"] = object(&file);
    Ok(reply::json(&call.head, StatusCode::OK, &body))
}

/// `POST /v1/uploads/{id}/cancel`.
///
/// # Errors
/// Returns an error if the caller has no such upload, if it is completed or expired, or if the
/// store is unavailable.
pub async fn cancel(app: &App, call: &Call, id: &str) -> Result<Response<Body>, Problem> {
    let now = app.clock.now();
    let upload = find(app, call, id).await?;
    let upload = change(app, upload, |upload| upload.cancelled(now)).await?;
    Ok(reply::json(&call.head, StatusCode::OK, &upload_object(&upload, now)))
}

/// Returns the caller's upload with this id. Uploads of other tenants count as missing.
async fn find(app: &App, call: &Call, id: &str) -> Result<Upload, Problem> {
    let upload = app.uploads.get(id).await?;
    upload.filter(|upload| upload.tenant == call.tenant.name).ok_or_else(missing)
}

/// Writes what `changed` makes of the upload, also if other requests change it meanwhile.
async fn change(
    app: &App,
    mut upload: Upload,
    changed: impl Fn(&Upload) -> Result<Upload, Problem>,
) -> Result<Upload, Problem> {
    for _ in 0..MAX_CHANGE_TRIES {
        let next = changed(&upload)?;
        if next == upload {
            return Ok(upload);
        }
        match app.uploads.replace(&upload, next).await? {
            WriteOutcome::Written(upload) => return Ok(upload),
            WriteOutcome::Conflict(Some(current)) => upload = current,
            WriteOutcome::Conflict(None) => return Err(missing()),
        }
    }
    Err(Problem::unavailable("upload"))
}

/// Checks that all parts exist and together have the announced size.
async fn check_size(blobs: &Blobs, keys: &[String], parts: &[String], expected: u64) -> Result<(), Problem> {
    let mut sizes = Vec::with_capacity(keys.len());
    for keys in keys.chunks(AT_ONCE) {
        sizes.extend(try_join_all(keys.iter().map(|key| blobs.size(key))).await?);
    }
    if let Some(at) = sizes.iter().position(Option::is_none) {
        return Err(match parts.get(at) {
            Some(part) => Problem::invalid(format!("part_ids[{at}]"), format!("The upload has no part {part}.")),
            None => Problem::invalid("part_ids", "The part_ids are empty, and nothing was sent to the put_url."),
        });
    }
    let actual: u64 = sizes.into_iter().flatten().sum();
    if actual == expected {
        return Ok(());
    }
    let message = format!("The content has {actual} bytes, but the upload was created with {expected} bytes.");
    Err(Problem::invalid("part_ids", message))
}

/// Checks the digest of the content, of which only a chunk at a time is in memory.
async fn check_md5(blobs: &Blobs, keys: &[String], expected: &str) -> Result<(), Problem> {
    let mut digest = Md5::new();
    for key in keys {
        blobs.read(key, |chunk| digest.update(chunk)).await?;
    }
    let actual: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if actual.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Problem::invalid("md5", format!("The content has the MD5 digest {actual}.")))
}

/// The body of `POST /v1/uploads`.
#[derive(Debug, PartialEq, Eq)]
struct UploadParameters {
    name: String,
    bytes: u64,
    retention_s: u64,
}

impl UploadParameters {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let (mut name, mut bytes, mut purpose, mut retention_s) = (None, None, None, retention::FILE_S);
        for (parameter, value) in members(body)? {
            match parameter.as_str() {
                "filename" => name = value.as_str().filter(|name| !name.is_empty()).map(form::shortened),
                "bytes" => bytes = value.as_u64(),
                "purpose" => purpose = value.as_str().map(str::to_owned),
                // OpenAI requires it. The content of a batch has one type.
                "mime_type" if value.is_string() => {}
                "mime_type" => return Err(Problem::invalid("mime_type", "The mime_type must be a string.")),
                "expires_after" => retention_s = parse_retention_s(&value)?,
                _ => return Err(unknown_parameter(&parameter, "An upload has no such parameter.")),
            }
        }
        form::check_purpose(purpose)?;
        let name = name.ok_or_else(|| Problem::invalid("filename", "The filename must be the name of the file."))?;
        Ok(Self { name, bytes: check_bytes(bytes)?, retention_s })
    }
}

fn parse_retention_s(value: &Value) -> Result<u64, Problem> {
    form::check_anchor(value["anchor"].as_str().unwrap_or_default())?;
    form::check_retention_s("expires_after.seconds", value["seconds"].as_u64())
}

/// The body of `POST /v1/uploads/{id}/complete`.
#[derive(Debug, PartialEq, Eq)]
struct Completion {
    parts: Vec<String>,
    md5: Option<String>,
}

impl Completion {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let (mut parts, mut md5) = (None, None);
        for (parameter, value) in members(body)? {
            match (parameter.as_str(), value) {
                ("part_ids", Value::Array(ids)) => parts = Some(parse_part_ids(&ids)?),
                ("md5", Value::String(digest)) => md5 = Some(digest),
                ("md5", _) => return Err(Problem::invalid("md5", "The md5 must be a string of hexadecimal digits.")),
                ("part_ids", _) => {}
                _ => return Err(unknown_parameter(&parameter, "Completing an upload has no such parameter.")),
            }
        }
        let parts =
            parts.ok_or_else(|| Problem::invalid("part_ids", "The part_ids must be a list of ids of parts."))?;
        Ok(Self { parts, md5 })
    }
}

fn parse_part_ids(ids: &[Value]) -> Result<Vec<String>, Problem> {
    if ids.len() > MAX_PARTS {
        let message = format!("A file can have {MAX_PARTS} parts. Send larger parts, or send the file to the put_url.");
        return Err(Problem::invalid("part_ids", message));
    }
    let parse = |(at, id): (usize, &Value)| {
        let id = id.as_str().filter(|id| is_part_id(id)).map(str::to_owned);
        id.ok_or_else(|| Problem::invalid(format!("part_ids[{at}]"), "This is not the id of a part of the upload."))
    };
    ids.iter().enumerate().map(parse).collect()
}

/// Returns the members of a JSON object that are not null.
fn members(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    Ok(json::body(body)?.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// The upload as an object of OpenAI's API.
fn upload_object(upload: &Upload, now: UnixMs) -> Value {
    json!({
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at.as_s(),
        "expires_at": upload.expires_at.as_s(),
        "filename": upload.name,
        "purpose": upload.purpose,
        "status": upload.status_at(now),
        "file": null,
    })
}

fn missing() -> Problem {
    let message = "There is no such upload.";
    Problem { param: Some("upload_id".to_owned()), ..Problem::new(Kind::NotFound, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_parameter_of_an_upload_is_refused_by_name() {
        let valid = json!({ "filename": "a.jsonl", "bytes": 5, "purpose": "batch", "mime_type": "application/jsonl" });
        let parse = |body: &Value| UploadParameters::parse(body.to_string().as_bytes());
        let parsed = UploadParameters { name: "a.jsonl".to_owned(), bytes: 5, retention_s: retention::FILE_S };
        assert_eq!(parse(&valid), Ok(parsed));
        for (name, value) in [
            ("filename", json!("")),
            ("bytes", json!(0)),
            ("bytes", json!("5")),
            ("purpose", json!("vision")),
            ("mime_type", json!(1)),
            ("extra", json!(true)),
        ] {
            let mut invalid = valid.clone();
            invalid[name] = value;
            assert_eq!(parse(&invalid).expect_err(name).param.as_deref(), Some(name));
        }
        let mut kept = valid.clone();
        kept["expires_after"] = json!({ "anchor": "created_at", "seconds": 3_600 });
        assert_eq!(parse(&kept).map(|parameters| parameters.retention_s), Ok(3_600));
        kept["expires_after"]["seconds"] = json!(1);
        assert_eq!(parse(&kept).expect_err("too short").param.as_deref(), Some("expires_after.seconds"));
    }

    #[test]
    fn an_invalid_list_of_parts_is_refused_by_name() {
        let parse = |body: Value| Completion::parse(body.to_string().as_bytes());
        let id = part_id(Uuid::from_u128(1));
        assert_eq!(
            parse(json!({ "part_ids": [id], "md5": null })),
            Ok(Completion { parts: vec![id.clone()], md5: None })
        );
        for (body, param) in [
            (json!({}), "part_ids"),
            (json!({ "part_ids": "x" }), "part_ids"),
            (json!({ "part_ids": [id, "whole"] }), "part_ids[1]"),
            (json!({ "part_ids": vec![id.clone(); MAX_PARTS + 1] }), "part_ids"),
            (json!({ "part_ids": [], "md5": 7 }), "md5"),
            (json!({ "part_ids": [], "extra": 7 }), "extra"),
        ] {
            assert_eq!(parse(body).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
