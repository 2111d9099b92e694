//! The paths of files and batches.

use http::Method;

use super::{CallRoute, decode, only};
use crate::problem::Problem;

/// What is asked about OpenAI's files.
#[derive(Debug, PartialEq, Eq)]
pub enum FileRoute {
    Upload,
    List,
    Get(String),
    Content(String),
    Delete(String),
}

/// What is asked about OpenAI's batches.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchRoute {
    Create,
    List,
    Get(String),
    Cancel(String),
}

/// What is asked about Anthropic's batches.
#[derive(Debug, PartialEq, Eq)]
pub enum MessageBatchRoute {
    Create,
    List,
    Get(String),
    Cancel(String),
    Results(String),
    Delete(String),
}

/// Finds the route of a path, if it is about files or batches.
pub(super) fn route(method: &Method, segments: &[&str]) -> Option<Result<CallRoute, Problem>> {
    match segments {
        ["v1", "files", path @ ..] => file(method, path),
        ["v1", "batches", path @ ..] => batch(method, path),
        ["v1", "messages", "batches", path @ ..] => message_batch(method, path),
        _ => None,
    }
}

fn file(method: &Method, path: &[&str]) -> Option<Result<CallRoute, Problem>> {
    use FileRoute::{Content, Delete, Get, List, Upload};
    let with_id = |id: &str| {
        let id = decode(id)?;
        only(method, [(Method::GET, CallRoute::Files(Get(id.clone()))), (Method::DELETE, CallRoute::Files(Delete(id)))])
    };
    match path {
        [] => Some(only(method, [(Method::GET, CallRoute::Files(List)), (Method::POST, CallRoute::Files(Upload))])),
        [id] => Some(with_id(id)),
        [id, "content"] => Some(decode(id).and_then(|id| only(method, [(Method::GET, CallRoute::Files(Content(id)))]))),
        _ => None,
    }
}

fn batch(method: &Method, path: &[&str]) -> Option<Result<CallRoute, Problem>> {
    use BatchRoute::{Cancel, Create, Get, List};
    let with_id = |id: &str, of: Method, made: fn(String) -> BatchRoute| {
        decode(id).and_then(|id| only(method, [(of, CallRoute::Batches(made(id)))]))
    };
    match path {
        [] => Some(only(method, [(Method::GET, CallRoute::Batches(List)), (Method::POST, CallRoute::Batches(Create))])),
        [id] => Some(with_id(id, Method::GET, Get)),
        [id, "cancel"] => Some(with_id(id, Method::POST, Cancel)),
        _ => None,
    }
}

fn message_batch(method: &Method, path: &[&str]) -> Option<Result<CallRoute, Problem>> {
    use MessageBatchRoute::{Cancel, Create, Delete, Get, List, Results};
    let of = CallRoute::MessageBatches;
    let with_id = |id: &str, by: Method, made: fn(String) -> MessageBatchRoute| {
        decode(id).and_then(|id| only(method, [(by, of(made(id)))]))
    };
    match path {
        [] => Some(only(method, [(Method::GET, of(List)), (Method::POST, of(Create))])),
        [id] => Some(
            decode(id)
                .and_then(|id| only(method, [(Method::GET, of(Get(id.clone()))), (Method::DELETE, of(Delete(id)))])),
        ),
        [id, "cancel"] => Some(with_id(id, Method::POST, Cancel)),
        [id, "results"] => Some(with_id(id, Method::GET, Results)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::http::route::Route;
    use crate::{
        dialect::Dialect,
        http::route::{dialect, methods, route},
        problem::Kind,
    };

    #[test]
    fn files_and_batches_have_the_paths_of_their_vendors() {
        let found = |method: Method, path| route(&method, path).map_err(|problem| problem.kind);
        let id = || "x".to_owned();
        assert_eq!(
            found(Method::GET, "/v1/files/x/content"),
            Ok(Route::Call(CallRoute::Files(FileRoute::Content(id()))))
        );
        assert_eq!(found(Method::POST, "/openai/v1/batches"), Ok(Route::Call(CallRoute::Batches(BatchRoute::Create))));
        assert_eq!(
            found(Method::POST, "/v1/batches/x/cancel"),
            Ok(Route::Call(CallRoute::Batches(BatchRoute::Cancel(id()))))
        );
        let results = CallRoute::MessageBatches(MessageBatchRoute::Results(id()));
        assert_eq!(found(Method::GET, "/anthropic/v1/messages/batches/x/results"), Ok(Route::Call(results)));
        assert_eq!(found(Method::PUT, "/v1/files"), Err(Kind::MethodNotAllowed));
        assert_eq!(found(Method::GET, "/v1/files/x/y"), Err(Kind::NotFound));
        assert_eq!(methods("/v1/messages/batches/x"), "GET, DELETE");
    }

    #[test]
    fn each_vendor_is_answered_as_it_speaks() {
        let mut headers = HeaderMap::new();
        assert_eq!(dialect("/v1/messages/batches", &headers), Dialect::Anthropic);
        headers.insert("anthropic-version", http::HeaderValue::from_static("2023-06-01"));
        assert_eq!(dialect("/v1/files", &headers), Dialect::OpenAi);
        assert_eq!(dialect("/v1/batches/x", &headers), Dialect::OpenAi);
    }
}
