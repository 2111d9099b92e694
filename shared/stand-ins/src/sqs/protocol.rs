//! AWS JSON 1.0 over HTTP: finds the operation, the queue and the body of a request, and renders answers and errors.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use serde_json::Value;

use super::{
    error::{Error, Fault},
    operations::{self, Call},
    service::Service,
};
use crate::counts;

const CONTENT: &str = "application/x-amz-json-1.0";
/// Tells how often faults struck.
const FAULTS: &str = "/_sim/faults";
/// A full batch of 1 MiB may be several times as long once JSON has escaped it.
const MAX_REQUEST_BYTES: usize = 8 * 1_048_576;

/// Answers one HTTP request.
pub async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let result = run(&service, request).await;
    Ok(match result {
        Ok(body) => response(StatusCode::OK, &body, None),
        Err(error) => {
            let status = StatusCode::from_u16(error.fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::json!({ "__type": error.fault.type_name(), "message": error.message });
            response(status, &body, Some(error.fault))
        }
    })
}

async fn run(service: &Service, request: Request<Incoming>) -> Result<Value, Error> {
    let (head, body) = request.into_parts();
    if head.uri.path() == counts::PATH {
        return Ok(service.counts.answer(&head.method));
    }
    if head.uri.path() == FAULTS {
        return service.transact(|state, _| Ok(serde_json::json!({ "struck": state.struck })));
    }
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("AmazonSQS.")).unwrap_or_default();
    if head.method != Method::POST || operation.is_empty() {
        let message = "This stand-in speaks the AWS JSON protocol: POST with an x-amz-target of AmazonSQS.";
        return Err(Error::new(Fault::UnknownOperation, message));
    }
    service.counts.count(operation);
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(head.uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost");
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    let body = body.map_err(|_| malformed("The request body could not be read or is too long."))?.to_bytes();
    let input = if body.is_empty() { Value::Object(serde_json::Map::new()) } else { parse(&body)? };
    let call = Call { base_url: format!("http://{host}"), path: head.uri.path().to_owned(), input };
    operations::run(service, operation, call).await
}

fn parse(body: &[u8]) -> Result<Value, Error> {
    match serde_json::from_slice(body) {
        Ok(input @ Value::Object(_)) => Ok(input),
        Ok(_) => Err(malformed("The request body must be a JSON object.")),
        Err(error) => Err(malformed(&format!("The request body is not JSON: {:?} error.", error.classify()))),
    }
}

fn malformed(message: &str) -> Error {
    Error::new(Fault::MalformedInput, message)
}

fn response(status: StatusCode, body: &Value, fault: Option<Fault>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
    }
    if let Some(fault) = fault {
        let party = if fault.is_senders() { "Sender" } else { "Receiver" };
        if let Ok(code) = HeaderValue::from_str(&format!("{};{party}", fault.query_code())) {
            headers.insert(HeaderName::from_static("x-amzn-query-error"), code);
        }
    }
    response
}
