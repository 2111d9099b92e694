//! AWS JSON 1.0 over HTTP: reads the operation, the queue and the body of a request, and writes
//! responses and errors.

use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue},
};
use serde_json::Value;

use super::{
    error::{Error, ErrorCode},
    operations::{self, Call},
    service::Service,
};
use crate::{faults::Effect, request_counts};

const CONTENT_TYPE_JSON: &str = "application/x-amz-json-1.0";
/// Path of the faults. `GET` returns the counters of the delivery faults.
const FAULTS_PATH: &str = "/_sim/faults";
/// Maximum size of a request. JSON escapes can make a batch of 1 MiB several times as long.
const MAX_REQUEST_BYTES: usize = 8 * 1_048_576;

/// Handles an HTTP request. An error closes the connection without a response.
pub async fn respond(service: Arc<Service>, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    if head.uri.path() == FAULTS_PATH && head.method != Method::GET {
        let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
            return Ok(rendered(Err(malformed("The request body is incomplete or too long."))));
        };
        return Ok(service.faults.control(&head.method, FAULTS_PATH, &body.to_bytes()).map(Full::from));
    }
    let effect = operation(&head).and_then(|operation| service.faults.record(operation));
    match effect {
        Some(Effect::Throttle) => {
            let error = Error::new(ErrorCode::RequestThrottled, "The request was denied due to request throttling.");
            return Ok(rendered(Err(error)));
        }
        Some(Effect::Error500) => {
            return Ok(rendered(Err(Error::new(ErrorCode::Internal, "The request processing has failed."))));
        }
        Some(Effect::DelayMs(delay_ms)) => service.delay(delay_ms).await,
        _ => {}
    }
    let response = rendered(run(&service, head, body).await);
    match effect {
        Some(Effect::TimeoutAfter) => {
            service.shutdown.cancelled().await;
            bail!("withholding the response on purpose")
        }
        Some(Effect::CutAfter) => bail!("closing the connection on purpose"),
        _ => Ok(response),
    }
}

fn rendered(result: Result<Value, Error>) -> Response<Full<Bytes>> {
    match result {
        Ok(body) => response(StatusCode::OK, &body, None),
        Err(error) => {
            let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::json!({ "__type": error.code.type_name(), "message": error.message });
            response(status, &body, Some(error.code))
        }
    }
}

/// Returns the operation of a request, if it is one of SQS.
fn operation(head: &Parts) -> Option<&str> {
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok())?;
    target.strip_prefix("AmazonSQS.").filter(|operation| head.method == Method::POST && !operation.is_empty())
}

async fn run(service: &Service, head: Parts, body: Incoming) -> Result<Value, Error> {
    if head.uri.path() == request_counts::PATH {
        return Ok(service.counts.respond(&head.method));
    }
    if head.uri.path() == FAULTS_PATH {
        return service.transact(|state, _| Ok(serde_json::json!({ "struck": state.struck })));
    }
    let Some(operation) = operation(&head) else {
        let message =
            "This stand-in supports only the AWS JSON protocol: POST with an x-amz-target that starts with AmazonSQS.";
        return Err(Error::new(ErrorCode::UnknownOperation, message));
    };
    service.counts.count(operation);
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(head.uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost");
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await;
    let body = body.map_err(|_| malformed("The request body is incomplete or too long."))?.to_bytes();
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
    Error::new(ErrorCode::MalformedInput, message)
}

fn response(status: StatusCode, body: &Value, error_code: Option<ErrorCode>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_JSON));
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
    }
    if let Some(error_code) = error_code {
        let party = if error_code.is_sender_fault() { "Sender" } else { "Receiver" };
        if let Ok(code) = HeaderValue::from_str(&format!("{};{party}", error_code.query_code())) {
            headers.insert(HeaderName::from_static("x-amzn-query-error"), code);
        }
    }
    response
}
