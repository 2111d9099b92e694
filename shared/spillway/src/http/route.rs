//! The table of contents of the API.

mod batches;

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use super::record;
use crate::{
    dialect::{Api, Dialect, ModelPath, without_vendor},
    problem::{Kind, Problem},
};

pub use batches::{BatchRoute, FileRoute, MessageBatchRoute};

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`, for load balancers.
    Root,
    /// `/healthz`.
    Health,
    /// A route that needs a tenant.
    Call(CallRoute),
}

/// Where the request of a tenant goes.
#[derive(Debug, PartialEq, Eq)]
pub enum CallRoute {
    /// A request to a model; Bedrock routes carry the model and whether to stream.
    Ask {
        api: Api,
        model: Option<String>,
        stream: bool,
    },
    /// A request whose input tokens are to be counted; Bedrock routes carry the model.
    Count {
        api: Api,
        model: Option<String>,
    },
    /// A guardrail by itself.
    Guardrail {
        id: String,
        version: String,
    },
    /// A background response.
    Response(String),
    CancelResponse(String),
    DeleteResponse(String),
    Models,
    Model(String),
    Profiles,
    Profile(String),
    Quota,
    Jobs,
    Job(String),
    JobResult(String),
    CancelJob(String),
    Files(FileRoute),
    Batches(BatchRoute),
    MessageBatches(MessageBatchRoute),
}

impl CallRoute {
    /// The route's name in events; `None` for a route that records none.
    pub fn event_name(&self) -> Option<&'static str> {
        match self {
            Self::Ask { api, stream, .. } => Some(record::route_name(*api, *stream)),
            Self::Count { api, .. } => Some(record::count_route_name(*api)),
            Self::Guardrail { .. } => Some(record::GUARDRAIL_ROUTE),
            _ => None,
        }
    }
}

/// Finds the route of a raw, still percent-encoded path.
///
/// # Errors
/// There is no such path (404), the path has other methods (405), or an id in it is not valid percent-encoded UTF-8.
pub fn route(method: &Method, path: &str) -> Result<Route, Problem> {
    match path.trim_matches('/') {
        "" => only(method, [(Method::HEAD, Route::Root), (Method::GET, Route::Root)]),
        "healthz" => only(method, [(Method::GET, Route::Health), (Method::HEAD, Route::Health)]),
        _ => call_route(method, path).map(Route::Call),
    }
}

fn call_route(method: &Method, path: &str) -> Result<CallRoute, Problem> {
    if let Some(ModelPath { api, model, stream }) = Api::at(path) {
        let model = model.map(decode).transpose()?;
        return only(method, [(Method::POST, CallRoute::Ask { api, model, stream })]);
    }
    if let Some(model) = path.strip_prefix("/model/") {
        let model = model.strip_suffix("/count-tokens").ok_or_else(|| no_route(path))?;
        return only(method, [(Method::POST, CallRoute::Count { api: Api::Converse, model: Some(decode(model)?) })]);
    }
    let segments: Vec<&str> = without_vendor(path).trim_matches('/').split('/').collect();
    match segments[..] {
        // A route of OpenAI's that is not here, and no response of that name.
        ["v1", "responses", "compact"] => Err(no_route(path)),
        ["v1", "responses", id] => {
            let id = decode(id)?;
            only(
                method,
                [(Method::GET, CallRoute::Response(id.clone())), (Method::DELETE, CallRoute::DeleteResponse(id))],
            )
        }
        ["v1", "responses", id, "cancel"] => only(method, [(Method::POST, CallRoute::CancelResponse(decode(id)?))]),
        ["v1", "messages", "count_tokens"] => {
            only(method, [(Method::POST, CallRoute::Count { api: Api::Messages, model: None })])
        }
        ["guardrail", id, "version", version, "apply"] => {
            only(method, [(Method::POST, CallRoute::Guardrail { id: decode(id)?, version: decode(version)? })])
        }
        ["inference-profiles"] => only(method, [(Method::GET, CallRoute::Profiles)]),
        ["inference-profiles", id] => only(method, [(Method::GET, CallRoute::Profile(decode(id)?))]),
        ["v1", "models"] => only(method, [(Method::GET, CallRoute::Models)]),
        ["v1", "models", id] => only(method, [(Method::GET, CallRoute::Model(decode(id)?))]),
        ["v1", "quota"] => only(method, [(Method::GET, CallRoute::Quota)]),
        ["v1", "jobs"] => only(method, [(Method::GET, CallRoute::Jobs)]),
        ["v1", "jobs", id] => {
            let id = decode(id)?;
            only(method, [(Method::GET, CallRoute::Job(id.clone())), (Method::DELETE, CallRoute::CancelJob(id))])
        }
        ["v1", "jobs", id, "result"] => only(method, [(Method::GET, CallRoute::JobResult(decode(id)?))]),
        _ => batches::route(method, &segments).unwrap_or_else(|| Err(no_route(path))),
    }
}

/// The methods that a path has, as in `Allow`.
pub fn methods(path: &str) -> String {
    let all = [Method::GET, Method::HEAD, Method::POST, Method::DELETE];
    let had: Vec<&str> = all.iter().filter(|method| route(method, path).is_ok()).map(Method::as_str).collect();
    had.join(", ")
}

/// The request target below `prefix`. Liveness is also answered without it, because load balancers ask the process itself.
///
/// # Errors
/// The target is outside of the API (404).
pub fn inside(prefix: &str, uri: &Uri) -> Result<Uri, Problem> {
    if prefix.is_empty() || matches!(uri.path(), "/" | "/healthz") {
        return Ok(uri.clone());
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let inner = target.strip_prefix(prefix).and_then(|rest| match rest.chars().next() {
        None | Some('?') => format!("/{rest}").parse().ok(),
        Some('/') => rest.parse().ok(),
        Some(_) => None,
    });
    let outside = || Problem::new(Kind::NotFound, format!("The paths of this API begin with {prefix}/."));
    inner.ok_or_else(outside)
}

/// The dialect that a caller of this path expects, errors included. The path decides; where vendors share one, the
/// prefix or the header that Anthropic's clients always send does.
pub fn dialect(path: &str, headers: &HeaderMap) -> Dialect {
    let route = without_vendor(path);
    let is_openai = || {
        ["/v1/chat/", "/v1/responses", "/v1/embeddings", "/v1/files", "/v1/batches"]
            .iter()
            .any(|of| route.starts_with(of))
    };
    let is_anthropic = || path.starts_with("/anthropic/") || headers.contains_key("anthropic-version");
    if ["/model/", "/guardrail/", "/inference-profiles"].iter().any(|prefix| path.starts_with(prefix)) {
        Dialect::Bedrock
    } else if route.starts_with("/v1/messages") || (!is_openai() && is_anthropic()) {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi
    }
}

/// The route for `method` among those that a path has.
fn only<R, const N: usize>(method: &Method, routes: [(Method, R); N]) -> Result<R, Problem> {
    let allowed = routes.iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>().join(" or ");
    routes.into_iter().find(|(of, _)| of == method).map(|(_, route)| route).ok_or_else(|| {
        Problem::new(Kind::MethodNotAllowed, format!("The method {method} is not allowed here; use {allowed}."))
    })
}

fn decode(segment: &str) -> Result<String, Problem> {
    let is_broken = segment.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes();
        digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    let decoded = percent_decode_str(segment).decode_utf8();
    match decoded {
        Ok(decoded) if !is_broken && !decoded.is_empty() => Ok(decoded.into_owned()),
        _ => Err(Problem::new(Kind::Invalid, "The id in the path is empty or not valid percent-encoded UTF-8.")),
    }
}

fn no_route(path: &str) -> Problem {
    let shown: String = path.chars().take(100).collect();
    let told = format!(
        "There is no {shown} here. The paths are /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages, \
         /v1/messages/count_tokens, /v1/messages/batches, /v1/files, /v1/batches, /model/{{id}}/converse, /converse-stream, \
         /invoke, /invoke-with-response-stream and /count-tokens, /guardrail/{{id}}/version/{{version}}/apply, /inference-profiles, /v1/models, /v1/quota, \
         /v1/jobs, /v1/jobs/{{id}} and /healthz."
    );
    Problem::new(Kind::NotFound, told)
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn model_of(path: &str) -> Option<String> {
        match route(&Method::POST, path) {
            Ok(Route::Call(CallRoute::Ask { model, .. })) => model,
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn any_path_is_a_route_or_a_refusal(path in "(/|%|[a-z0-9%:./-]|\\PC){0,60}", post: bool) {
            let method = if post { Method::POST } else { Method::GET };
            for path in [path.clone(), format!("/model/{path}/converse"), format!("/v1/jobs/{path}")] {
                let _ = route(&method, &path);
                let _ = dialect(&path, &HeaderMap::new());
            }
        }

        #[test]
        fn a_model_id_is_the_same_however_its_client_encodes_it(id in "[a-zA-Z0-9.:/_-]{1,80}") {
            let encoded = utf8_percent_encode(&id, NON_ALPHANUMERIC).to_string();
            let colons_bare = encoded.replace("%3A", ":");
            let lower_case = encoded.to_lowercase();
            prop_assert_eq!(model_of(&format!("/model/{id}/converse")), Some(id.clone()));
            prop_assert_eq!(model_of(&format!("/model/{encoded}/invoke")), Some(id.clone()));
            prop_assert_eq!(model_of(&format!("/model/{colons_bare}/converse-stream")), Some(id.clone()));
            prop_assert_eq!(model_of(&format!("/model/{lower_case}/invoke")), Some(id.to_lowercase()));
        }
    }

    fn target(prefix: &str, target: &'static str) -> Option<String> {
        inside(prefix, &Uri::from_static(target)).ok().map(|uri| uri.to_string())
    }

    #[test]
    fn a_prefix_is_taken_off_and_only_liveness_does_without_it() {
        for (asked, inner) in [
            ("/llm/v1/models?limit=1", Some("/v1/models?limit=1")),
            ("/llm/model/a%2Fb/converse", Some("/model/a%2Fb/converse")),
            ("/llm", Some("/")),
            ("/llm?a", Some("/?a")),
            ("/llm//v1", Some("//v1")),
            ("/healthz", Some("/healthz")),
            ("/", Some("/")),
            ("/llmv1/models", None),
            ("/v1/models", None),
            ("/healthz/", None),
        ] {
            assert_eq!(target("/llm", asked).as_deref(), inner, "{asked}");
        }
        assert_eq!(target("", "/v1/models?limit=1").as_deref(), Some("/v1/models?limit=1"));
    }

    #[test]
    fn a_path_tells_its_methods() {
        for (path, methods) in [
            ("/v1/jobs/1", "GET, DELETE"),
            ("/v1/responses/resp_1/cancel", "POST"),
            ("/", "GET, HEAD"),
            ("/model/m/converse", "POST"),
            ("/nowhere", ""),
        ] {
            assert_eq!(super::methods(path), methods, "{path}");
        }
    }
}
