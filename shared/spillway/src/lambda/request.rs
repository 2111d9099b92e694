//! Reads the HTTP request of an event.
//!
//! `lambda_http` builds a URL from host, path and query. It panics if the URL is invalid, or if a
//! body that is marked as base64 is not. The broker needs only the path, so these parts of an event
//! bypass `lambda_http`.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Uri, header::HOST};
use lambda_http::{
    Body, Request, RequestExt,
    aws_lambda_events::query_map::QueryMap,
    request::{LambdaRequest, RequestContext},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::http::Caller;

/// Characters that are invalid in the path of a URI (RFC 3986, 3.3).
const NOT_IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}').add(b'\\');

/// A path without a route. It replaces paths that are too long for a URI.
const NOWHERE: &str = "/-";

/// Returns the request with the path as the client sent it: without the stage and the query, and
/// still percent-encoded.
pub fn read(mut event: LambdaRequest) -> Request {
    let (path, body) = match &mut event {
        LambdaRequest::ApiGatewayV1(event) => {
            event.headers.remove(HOST);
            event.request_context.domain_name = None;
            event.query_string_parameters = QueryMap::default();
            event.multi_value_query_string_parameters = QueryMap::default();
            (event.path.take(), body(event.body.take(), event.is_base64_encoded))
        }
        LambdaRequest::ApiGatewayV2(event) => {
            event.headers.remove(HOST);
            event.request_context.domain_name = None;
            event.raw_query_string = None;
            (event.raw_path.take(), body(event.body.take(), event.is_base64_encoded))
        }
        _ => return event.into(),
    };
    let mut request = Request::from(event);
    *request.uri_mut() = uri(&path.unwrap_or_default());
    *request.body_mut() = body;
    request
}

/// Returns the caller that API Gateway or the Function URL has verified with IAM, if any.
pub fn caller(request: &Request) -> Option<Caller> {
    let arn = match request.request_context_ref()? {
        RequestContext::ApiGatewayV1(context) => context.identity.user_arn.as_ref(),
        RequestContext::ApiGatewayV2(context) => context.authorizer.as_ref()?.iam.as_ref()?.user_arn.as_ref(),
        _ => None,
    };
    arn.filter(|arn| !arn.is_empty()).cloned().map(Caller)
}

fn uri(path: &str) -> Uri {
    let built = |path: &str| Uri::builder().path_and_query(path).build();
    let uri = built(path).or_else(|_| built(&utf8_percent_encode(path, NOT_IN_PATHS).to_string()));
    uri.unwrap_or_else(|_| Uri::from_static(NOWHERE))
}

/// Returns the body. If it is marked as base64 but is not, it is taken as is; then it is not JSON
/// either.
fn body(body: Option<String>, is_base64: bool) -> Body {
    match body {
        None => Body::Empty,
        Some(text) if is_base64 => Body::from(BASE64_STANDARD.decode(&text).unwrap_or_else(|_| text.into_bytes())),
        Some(text) => Body::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(path: &str, host: &str) -> serde_json::Value {
        serde_json::json!({
            "resource": "/{proxy+}", "path": path, "httpMethod": "GET", "isBase64Encoded": false,
            "headers": { "Host": host, "X-Forwarded-Proto": "1:" },
            "multiValueHeaders": { "Host": [host], "X-Forwarded-Proto": ["1:"] },
            "queryStringParameters": { "a": "<b>" }, "multiValueQueryStringParameters": { "a": ["<b>"] },
            "requestContext": { "stage": "v", "identity": {}, "domainName": "two words", "httpMethod": "GET" },
        })
    }

    fn http(path: &str, host: &str) -> serde_json::Value {
        serde_json::json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "a=<b> c",
            "headers": { "host": host, "x-forwarded-proto": "1:" },
            "body": "{not base64", "isBase64Encoded": true,
            "requestContext": {
                "stage": "$default", "domainName": "two words",
                "http": { "method": "GET", "path": path, "protocol": "HTTP/1.1" },
            },
        })
    }

    #[test]
    fn no_host_path_or_query_causes_a_panic() {
        let long = format!("/{}", "a".repeat(70_000));
        for host in ["", "a b", "[", ":99999", "@", "a:b:c", "\\"] {
            for (path, read_as) in [
                ("/v1/models", "/v1/models"),
                ("/model/a:0/converse", "/model/a:0/converse"),
                ("/model/a%3A0/converse", "/model/a%3A0/converse"),
                ("/a<b> {c}|ä?d#e", "/a%3Cb%3E%20%7Bc%7D|%C3%A4%3Fd%23e"),
                (":99999", NOWHERE),
                ("", ""),
                (&long, NOWHERE),
            ] {
                for event in [rest(path, host), http(path, host)] {
                    let event = serde_json::from_value(event).expect("an event");
                    assert_eq!(read(event).uri().path(), read_as, "{path:.99} at {host}");
                }
            }
        }
    }

    #[test]
    fn a_body_that_is_not_base64_is_taken_as_is() {
        let event = serde_json::from_value(http("/", "host")).expect("an event");
        assert_eq!(read(event).body().as_ref(), b"{not base64");
    }
}
