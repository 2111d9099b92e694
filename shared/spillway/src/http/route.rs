//! The routes of the API, in one table.

mod path;

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use self::path::Ids;
use super::{
    Body, Call, Head,
    batches::{anthropic, openai},
    count_tokens,
    files::{self, uploads},
    guardrail, jobs,
    model_call::{self, ModelRoute},
    models, profiles, quota, reply, responses,
};
use crate::{
    app::App,
    dialect::Api,
    problem::{Kind, Problem},
};

pub use self::path::{dialect, without_prefix};

/// Maximum of characters of an unknown path that an error repeats.
const MAX_SHOWN_CHARS: usize = 100;

/// A method of a path, and its handler.
pub struct Route {
    /// Method and path pattern, such as `GET /v1/jobs/{id}`. The name of the route in events.
    pub name: &'static str,
    pub handler: Handler,
}

/// The handler of a route.
pub enum Handler {
    /// Serves every caller, such as a load balancer.
    Public(fn(&Head) -> Response<Body>),
    /// Serves authenticated callers, and records an event only if the broker fails. The body of the
    /// request is not read.
    WithoutBody(Serve),
    /// Serves authenticated callers, and records an event only if the broker fails.
    WithBody(ServeBody),
    /// Serves authenticated callers, and records an event for each request, even if the
    /// authentication fails.
    Recorded(ServeBody),
}

/// Serves a request.
type Serve = for<'a> fn(&'a App, &'a Arc<Call>, Ids) -> Serving<'a>;

/// Serves a request with this body.
type ServeBody = for<'a> fn(&'a App, &'a Arc<Call>, Ids, Bytes) -> Serving<'a>;

/// On the heap: the futures of all routes together would fill a small stack.
type Serving<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, Problem>> + Send + 'a>>;

impl Route {
    const fn public(name: &'static str, respond: fn(&Head) -> Response<Body>) -> Self {
        Self { name, handler: Handler::Public(respond) }
    }

    const fn without_body(name: &'static str, serve: Serve) -> Self {
        Self { name, handler: Handler::WithoutBody(serve) }
    }

    const fn with_body(name: &'static str, serve: ServeBody) -> Self {
        Self { name, handler: Handler::WithBody(serve) }
    }

    const fn recorded(name: &'static str, serve: ServeBody) -> Self {
        Self { name, handler: Handler::Recorded(serve) }
    }

    /// Method and path pattern.
    fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once(' ').unwrap_or_default()
    }
}

/// All routes. A request for a model comes first, because most requests are.
static ROUTES: &[Route] = &[
    Route::recorded("POST /v1/chat/completions", |app, call, _, body| {
        Box::pin(model_call::answer(app, call, ModelRoute::new(Api::ChatCompletions), body))
    }),
    Route::recorded("POST /v1/responses", |app, call, _, body| {
        Box::pin(model_call::answer(app, call, ModelRoute::new(Api::Responses), body))
    }),
    Route::recorded("POST /v1/embeddings", |app, call, _, body| {
        Box::pin(model_call::answer(app, call, ModelRoute::new(Api::Embeddings), body))
    }),
    Route::recorded("POST /v1/messages", |app, call, _, body| {
        Box::pin(model_call::answer(app, call, ModelRoute::new(Api::Messages), body))
    }),
    Route::recorded("POST /model/{id}/converse", |app, call, [id, _], body| {
        Box::pin(model_call::answer(app, call, ModelRoute::bedrock(Api::Converse, id, false), body))
    }),
    Route::recorded("POST /model/{id}/converse-stream", |app, call, [id, _], body| {
        Box::pin(model_call::answer(app, call, ModelRoute::bedrock(Api::Converse, id, true), body))
    }),
    Route::recorded("POST /model/{id}/invoke", |app, call, [id, _], body| {
        Box::pin(model_call::answer(app, call, ModelRoute::bedrock(Api::Invoke, id, false), body))
    }),
    Route::recorded("POST /model/{id}/invoke-with-response-stream", |app, call, [id, _], body| {
        Box::pin(model_call::answer(app, call, ModelRoute::bedrock(Api::Invoke, id, true), body))
    }),
    Route::recorded("POST /v1/messages/count_tokens", |app, call, _, body| {
        Box::pin(count_tokens::count(app, call, Api::Messages, None, body))
    }),
    Route::recorded("POST /model/{id}/count-tokens", |app, call, [id, _], body| {
        Box::pin(count_tokens::count(app, call, Api::Converse, Some(id), body))
    }),
    Route::recorded("POST /guardrail/{id}/version/{version}/apply", |app, call, [id, version], body| {
        Box::pin(async move { guardrail::apply(app, call, &id, &version, body).await })
    }),
    Route::without_body("GET /v1/responses/{id}", |app, call, [id, _]| {
        Box::pin(async move { responses::get(app, call, &id).await })
    }),
    Route::without_body("DELETE /v1/responses/{id}", |app, call, [id, _]| {
        Box::pin(async move { responses::delete(app, call, &id).await })
    }),
    Route::without_body("POST /v1/responses/{id}/cancel", |app, call, [id, _]| {
        Box::pin(async move { responses::cancel(app, call, &id).await })
    }),
    Route::without_body("GET /v1/models", |app, call, _| Box::pin(models::list(app, call))),
    Route::without_body("GET /v1/models/{id}", |app, call, [id, _]| {
        Box::pin(async move { models::get(app, call, &id).await })
    }),
    Route::without_body("GET /inference-profiles", |app, call, _| Box::pin(profiles::list(app, call))),
    Route::without_body("GET /inference-profiles/{id}", |app, call, [id, _]| {
        Box::pin(async move { profiles::get(app, call, &id).await })
    }),
    Route::without_body("GET /v1/quota", |app, call, _| Box::pin(quota::quota(app, call))),
    Route::without_body("GET /v1/jobs", |app, call, _| Box::pin(jobs::list(app, call))),
    Route::without_body("GET /v1/jobs/{id}", |app, call, [id, _]| {
        Box::pin(async move { jobs::get(app, call, &id).await })
    }),
    Route::without_body("DELETE /v1/jobs/{id}", |app, call, [id, _]| {
        Box::pin(async move { jobs::cancel(app, call, &id).await })
    }),
    Route::without_body("GET /v1/jobs/{id}/result", |app, call, [id, _]| {
        Box::pin(async move { jobs::result(app, call, &id).await })
    }),
    Route::without_body("GET /v1/files", |app, call, _| Box::pin(files::list(app, call))),
    Route::with_body("POST /v1/files", |app, call, _, body| Box::pin(files::upload(app, call, body))),
    Route::without_body("GET /v1/files/{id}", |app, call, [id, _]| {
        Box::pin(async move { files::get(app, call, &id).await })
    }),
    Route::without_body("DELETE /v1/files/{id}", |app, call, [id, _]| {
        Box::pin(async move { files::delete(app, call, &id).await })
    }),
    Route::without_body("GET /v1/files/{id}/content", |app, call, [id, _]| {
        Box::pin(async move { files::content(app, call, &id).await })
    }),
    Route::with_body("POST /v1/uploads", |app, call, _, body| Box::pin(uploads::create(app, call, body))),
    Route::with_body("POST /v1/uploads/{id}/parts", |app, call, [id, _], body| {
        Box::pin(async move { uploads::add_part(app, call, &id, body).await })
    }),
    Route::with_body("POST /v1/uploads/{id}/complete", |app, call, [id, _], body| {
        Box::pin(async move { uploads::complete(app, call, &id, body).await })
    }),
    Route::without_body("POST /v1/uploads/{id}/cancel", |app, call, [id, _]| {
        Box::pin(async move { uploads::cancel(app, call, &id).await })
    }),
    Route::without_body("GET /v1/batches", |app, call, _| Box::pin(openai::list(app, call))),
    Route::with_body("POST /v1/batches", |app, call, _, body| Box::pin(openai::create(app, call, body))),
    Route::without_body("GET /v1/batches/{id}", |app, call, [id, _]| {
        Box::pin(async move { openai::get(app, call, &id).await })
    }),
    Route::without_body("POST /v1/batches/{id}/cancel", |app, call, [id, _]| {
        Box::pin(async move { openai::cancel(app, call, &id).await })
    }),
    Route::without_body("GET /v1/messages/batches", |app, call, _| Box::pin(anthropic::list(app, call))),
    Route::with_body("POST /v1/messages/batches", |app, call, _, body| Box::pin(anthropic::create(app, call, body))),
    Route::without_body("GET /v1/messages/batches/{id}", |app, call, [id, _]| {
        Box::pin(async move { anthropic::get(app, call, &id).await })
    }),
    Route::without_body("DELETE /v1/messages/batches/{id}", |app, call, [id, _]| {
        Box::pin(async move { anthropic::delete(app, call, &id).await })
    }),
    Route::without_body("POST /v1/messages/batches/{id}/cancel", |app, call, [id, _]| {
        Box::pin(async move { anthropic::cancel(app, call, &id).await })
    }),
    Route::without_body("GET /v1/messages/batches/{id}/results", |app, call, [id, _]| {
        Box::pin(async move { anthropic::results(app, call, &id).await })
    }),
    Route::public("GET /healthz", health),
    Route::public("HEAD /healthz", health),
    Route::public("GET /", |_| reply::empty(StatusCode::OK)),
    Route::public("HEAD /", |_| reply::empty(StatusCode::OK)),
];

fn health(head: &Head) -> Response<Body> {
    reply::json(head, StatusCode::OK, &json!({ "status": "ok" }))
}

/// Finds the route of a raw, still percent-encoded path, and the ids in the path.
///
/// # Errors
/// Returns [`Kind::NotFound`] if the API has no such path, [`Kind::MethodNotAllowed`] if the path
/// has only other methods, and [`Kind::Invalid`] if an id is empty or not percent-encoded UTF-8.
pub fn find(method: &Method, path: &str) -> Result<(&'static Route, Ids), Problem> {
    let mut allowed = Vec::new();
    for (route, ids) in at(path) {
        let (name, pattern) = route.parts();
        if name == method.as_str() {
            return Ok((route, path::decode(pattern, ids)?));
        }
        allowed.push(name);
    }
    match allowed.is_empty() {
        true => Err(no_route(path)),
        false => {
            let message = format!("The method {method} is not allowed here. Use {}.", allowed.join(" or "));
            Err(Problem::new(Kind::MethodNotAllowed, message))
        }
    }
}

/// The methods of a path, as in `Allow`.
pub fn methods(path: &str) -> String {
    at(path).map(|(route, _)| route.parts().0).collect::<Vec<_>>().join(", ")
}

/// The routes of a path, with the ids in it.
fn at(path: &str) -> impl Iterator<Item = (&'static Route, path::RawIds<'_>)> {
    // OpenAI has a route of this path, and no response of this id.
    let routes = if path.ends_with("/v1/responses/compact") { &[] } else { ROUTES };
    routes.iter().filter_map(move |route| Some((route, path::ids_in(route.parts().1, path)?)))
}

fn no_route(path: &str) -> Problem {
    let shown: String = path.chars().take(MAX_SHOWN_CHARS).collect();
    let mut starts: Vec<&str> = Vec::new();
    for (_, pattern) in ROUTES.iter().map(Route::parts).filter(|(_, pattern)| *pattern != "/") {
        if !starts.iter().any(|start| pattern.starts_with(start)) {
            starts.push(pattern);
        }
    }
    Problem::new(Kind::NotFound, format!("The API has no path {shown}. Its paths start with {}.", starts.join(", ")))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    /// The name of the route that a request finds, and the ids in its path.
    fn found(method: Method, path: &str) -> Result<(&'static str, Ids), Kind> {
        find(&method, path).map(|(route, ids)| (route.name, ids)).map_err(|problem| problem.kind)
    }

    fn model_in(path: &str) -> Option<String> {
        found(Method::POST, path).ok().map(|(_, [id, _])| id)
    }

    proptest! {
        #[test]
        fn each_path_is_found_or_refused(path in "(/|%|[a-z0-9%:./-]|\\PC){0,60}", post: bool) {
            let method = if post { Method::POST } else { Method::GET };
            for path in [path.clone(), format!("/model/{path}/converse"), format!("/v1/jobs/{path}")] {
                let _ = find(&method, &path);
                let _ = dialect(&path, &HeaderMap::new());
            }
        }

        #[test]
        fn a_model_id_is_the_same_in_each_encoding(id in "[a-zA-Z0-9.:/_-]{1,80}") {
            let encoded = utf8_percent_encode(&id, NON_ALPHANUMERIC).to_string();
            let with_colons = encoded.replace("%3A", ":");
            let lower_case = encoded.to_lowercase();
            prop_assert_eq!(model_in(&format!("/model/{id}/converse")), Some(id.clone()));
            prop_assert_eq!(model_in(&format!("/model/{encoded}/invoke")), Some(id.clone()));
            prop_assert_eq!(model_in(&format!("/model/{with_colons}/converse-stream")), Some(id.clone()));
            prop_assert_eq!(model_in(&format!("/model/{lower_case}/invoke")), Some(id.to_lowercase()));
        }
    }

    #[test]
    fn each_route_is_found_by_its_own_name() {
        for route in ROUTES {
            let (method, pattern) = route.parts();
            let path = pattern.replace("{id}", "x").replace("{version}", "1");
            let method = method.parse().expect("a method");
            assert_eq!(found(method, &path).map(|(name, _)| name), Ok(route.name));
        }
    }

    #[test]
    fn the_documentation_lists_each_path() {
        let documentation = include_str!("../../../../docs/api.md");
        for route in ROUTES {
            let (method, pattern) = route.parts();
            let is_listed = |line: &str| line.contains(&format!("{pattern}`")) && line.contains(method);
            assert!(documentation.lines().any(is_listed), "docs/api.md lacks {}", route.name);
        }
    }

    #[test]
    fn a_path_has_ids_and_other_methods_are_refused() {
        let ids = |first: &str, second: &str| [first.to_owned(), second.to_owned()];
        for (method, path, expected) in [
            (Method::GET, "/v1/files/x/content", Ok(("GET /v1/files/{id}/content", ids("x", "")))),
            (Method::POST, "/openai/v1/batches", Ok(("POST /v1/batches", ids("", "")))),
            (
                Method::GET,
                "/anthropic/v1/messages/batches/x/results",
                Ok(("GET /v1/messages/batches/{id}/results", ids("x", ""))),
            ),
            (
                Method::POST,
                "/guardrail/g/version/2/apply",
                Ok(("POST /guardrail/{id}/version/{version}/apply", ids("g", "2"))),
            ),
            (Method::PUT, "/v1/files", Err(Kind::MethodNotAllowed)),
            (Method::GET, "/model/m/converse", Err(Kind::MethodNotAllowed)),
            (Method::GET, "/v1/files/x/y", Err(Kind::NotFound)),
            (Method::POST, "/v1/responses/compact", Err(Kind::NotFound)),
            (Method::GET, "/v1/jobs//result", Err(Kind::Invalid)),
            (Method::POST, "/model//converse", Err(Kind::Invalid)),
            (Method::GET, "/nowhere", Err(Kind::NotFound)),
        ] {
            assert_eq!(found(method, path), expected, "{path}");
        }
    }

    #[test]
    fn an_unknown_path_is_answered_with_the_paths_of_the_api() {
        let message = find(&Method::GET, "/v1/chat").err().expect("no such path").message;
        assert!(message.starts_with("The API has no path /v1/chat. Its paths start with /v1/chat/completions, "));
        for start in ["/model/{id}/invoke,", "/guardrail/{id}/version/{version}/apply,", "/v1/jobs,", "/healthz."] {
            assert!(message.contains(start), "{start} in {message}");
        }
    }

    #[test]
    fn a_path_has_a_list_of_its_methods() {
        for (path, expected) in [
            ("/v1/jobs/1", "GET, DELETE"),
            ("/v1/messages/batches/x", "GET, DELETE"),
            ("/v1/responses/resp_1/cancel", "POST"),
            ("/", "GET, HEAD"),
            ("/model/m/converse", "POST"),
            ("/nowhere", ""),
        ] {
            assert_eq!(methods(path), expected, "{path}");
        }
    }
}
