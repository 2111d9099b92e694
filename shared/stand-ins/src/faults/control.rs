//! HTTP controls of the counters and faults. All services with faults share them.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{Fault, Faults};

/// Prefix of the control paths.
pub(crate) const PATH_PREFIX: &str = "/_sim/";

impl Faults {
    /// Handles a request to a path below [`PATH_PREFIX`].
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
            _ => text(StatusCode::NOT_FOUND, "There is no such control. See /_sim/stats and /_sim/faults."),
        }
    }
}

/// Builds a plain-text response.
pub(crate) fn text(status: StatusCode, body: &str) -> Response<Bytes> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

/// Builds a response with a status, a content type and a body.
pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
