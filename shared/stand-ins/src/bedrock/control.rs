//! The routes below `/_sim/`, by which tests and operators watch and disturb the simulator.

use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{body::Body, call::json_response, faults::Fault, state::State};

const BODY_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_ms: u64,
}

/// Answers a request whose path is `/_sim/` and `route`.
pub(super) async fn answer(state: &State, method: &Method, route: &str, body: Incoming) -> Response<Body> {
    let answered = match (method.as_str(), route) {
        ("GET", "health") => Ok(json!({ "status": "ok" }).to_string()),
        ("GET", "stats") => written(&state.memory().stats.report()),
        ("DELETE", "stats") => {
            state.memory().stats.reset();
            Ok(String::from("{}"))
        }
        ("GET", "calls") => written(&json!({ "calls": state.memory().log.entries() })),
        ("GET", "faults") => written(&json!({ "faults": state.memory().faults.added() })),
        ("POST", "faults") => match read::<Fault>(body).await {
            Ok(fault) => state.memory().faults.add(fault).map(|()| String::from("{}")),
            Err(message) => Err(message),
        },
        ("DELETE", "faults") => {
            state.memory().faults.clear();
            Ok(String::from("{}"))
        }
        ("POST", "clock") => read::<Advance>(body).await.and_then(|advance| {
            state.clock.advance(advance.advance_ms);
            written(&json!({ "now_ms": state.clock.now_ms() }))
        }),
        _ => return failed(StatusCode::NOT_FOUND, "the simulator has no such route"),
    };
    answered.map_or_else(|message| failed(StatusCode::BAD_REQUEST, &message), |body| json_response(Body::whole(body)))
}

fn failed(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = json_response(Body::whole(json!({ "message": message }).to_string()));
    *response.status_mut() = status;
    response
}

fn written(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, String> {
    let body = Limited::new(body, BODY_BYTES).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}
