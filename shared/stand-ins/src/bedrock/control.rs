//! Control routes below `/_sim/`, with which tests and operators observe the simulator and inject
//! faults.

use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{call::json_response, faults::Fault, response_body::ResponseBody, state::State};

const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_ms: u64,
}

/// Handles a request to `/_sim/{route}`.
pub(super) async fn respond(state: &State, method: &Method, route: &str, body: Incoming) -> Response<ResponseBody> {
    let result = match (method.as_str(), route) {
        ("GET", "health") => Ok(json!({ "status": "ok" }).to_string()),
        ("GET", "stats") => to_json(&state.lock().stats.report()),
        ("DELETE", "stats") => {
            state.lock().stats.reset();
            Ok(String::from("{}"))
        }
        ("GET", "calls") => to_json(&json!({ "calls": state.lock().log.entries() })),
        ("GET", "faults") => to_json(&json!({ "faults": state.lock().faults.added() })),
        ("POST", "faults") => match parse::<Fault>(body).await {
            Ok(fault) => state.lock().faults.add(fault).map(|()| String::from("{}")),
            Err(message) => Err(message),
        },
        ("DELETE", "faults") => {
            state.lock().faults.clear();
            Ok(String::from("{}"))
        }
        ("POST", "clock") => parse::<Advance>(body).await.and_then(|advance| {
            state.clock.advance(advance.advance_ms);
            to_json(&json!({ "now_ms": state.clock.now_ms() }))
        }),
        _ => return error_response(StatusCode::NOT_FOUND, "The simulator has no such control route."),
    };
    result.map_or_else(
        |message| error_response(StatusCode::BAD_REQUEST, &message),
        |body| json_response(ResponseBody::complete(body)),
    )
}

fn error_response(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let mut response = json_response(ResponseBody::complete(json!({ "message": message }).to_string()));
    *response.status_mut() = status;
    response
}

fn to_json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

async fn parse<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}
