//! The counters and the faults over HTTP, the same at every service that has them.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{Fault, Faults};

/// What the paths of the controls begin with.
pub(crate) const PATHS: &str = "/_sim/";

impl Faults {
    /// Answers a request to a path below [`PATHS`].
    pub(crate) fn control(&self, method: &Method, path: &str, body: &[u8]) -> Response<Bytes> {
        match (method.as_str(), path) {
            ("GET", "/_sim/stats") => match serde_json::to_string(&self.stats()) {
                Ok(stats) => respond(StatusCode::OK, "application/json", stats),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            },
            ("DELETE", "/_sim/stats") => {
                self.reset_stats();
                text(StatusCode::NO_CONTENT, "")
            }
            ("POST", "/_sim/faults") => match serde_json::from_slice::<Fault>(body) {
                Ok(fault) => {
                    self.inject(fault);
                    text(StatusCode::NO_CONTENT, "")
                }
                Err(error) => text(StatusCode::BAD_REQUEST, &error.to_string()),
            },
            ("DELETE", "/_sim/faults") => {
                self.clear();
                text(StatusCode::NO_CONTENT, "")
            }
            _ => text(StatusCode::NOT_FOUND, "no such control"),
        }
    }
}

pub(crate) fn text(status: StatusCode, body: &str) -> Response<Bytes> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
