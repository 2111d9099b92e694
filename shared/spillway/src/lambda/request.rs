//! Reads the HTTP request of an event.
//!
//! `lambda_http` builds a URL from host, path and query. It panics if the URL is invalid, or if a
//! body that is marked as base64 is not. These parts of an event therefore bypass `lambda_http`.

use base64::{Engine, prelude::BASE64_STANDARD};
use form_urlencoded::Serializer;
use http::{HeaderValue, Uri, header::HOST};
use lambda_http::{
    Body, Request, RequestExt,
    aws_lambda_events::query_map::QueryMap,
    request::{LambdaRequest, RequestContext},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{
    http::{Caller, MaxSilence, Mount},
    units::Millis,
};

/// Characters that are invalid in the path and the query of a URI (RFC 3986, 3.3 and 3.4).
const NOT_IN_URIS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}').add(b'\\');

/// Maximum time for which a regional REST API keeps a response open without data, which is five
/// minutes (Amazon API Gateway Developer Guide, "Stream the integration response for your proxy
/// integrations"), less the time to settle a call and to answer.
const MAX_REST_SILENCE: Millis = Millis::from_s(290);

/// A path without a route. It replaces targets that are too long for a URI.
const NOWHERE: &str = "/-";

/// Returns the request with the target as the client sent it: without the stage, and still
/// percent-encoded. The stage is in the extension [`Mount`]. A request of a REST API has the
/// extension [`MaxSilence`].
pub fn read(mut event: LambdaRequest) -> Request {
    let max_silence = matches!(event, LambdaRequest::ApiGatewayV1(_)).then_some(MaxSilence(MAX_REST_SILENCE));
    let target = match &mut event {
        LambdaRequest::ApiGatewayV1(event) => {
            event.request_context.domain_name = None;
            event.query_string_parameters = QueryMap::default();
            let query = std::mem::take(&mut event.multi_value_query_string_parameters);
            let path = event.path.take().unwrap_or_default();
            let context = &event.request_context;
            Target {
                query: encoded(&query),
                mount: mount(context.path.as_deref(), &path, context.stage.as_deref()),
                host: event.headers.remove(HOST),
                body: body(event.body.take(), event.is_base64_encoded),
                path,
            }
        }
        LambdaRequest::ApiGatewayV2(event) => {
            event.request_context.domain_name = None;
            Target {
                path: event.raw_path.take().unwrap_or_default(),
                query: event.raw_query_string.take().unwrap_or_default(),
                mount: String::new(),
                host: event.headers.remove(HOST),
                body: body(event.body.take(), event.is_base64_encoded),
            }
        }
        _ => return event.into(),
    };
    let mut request = Request::from(event);
    *request.uri_mut() = uri(&target.path, &target.query);
    *request.body_mut() = target.body;
    request.extensions_mut().insert(Mount(target.mount));
    if let Some(max_silence) = max_silence {
        request.extensions_mut().insert(max_silence);
    }
    if let Some(host) = target.host {
        request.headers_mut().insert(HOST, host);
    }
    request
}

/// The parts of an event that bypass `lambda_http`.
struct Target {
    path: String,
    /// The query, percent-encoded and without `?`.
    query: String,
    mount: String,
    host: Option<HeaderValue>,
    body: Body,
}

/// Encodes a query that API Gateway has decoded.
fn encoded(query: &QueryMap) -> String {
    Serializer::new(String::new()).extend_pairs(query.iter()).finish()
}

/// Returns the start of the caller's path that API Gateway removes: the stage at the API's own URL,
/// nothing at a custom domain. `whole` is the path in the request context (Amazon API Gateway
/// Developer Guide, "Input format of a Lambda function for proxy integration").
fn mount(whole: Option<&str>, path: &str, stage: Option<&str>) -> String {
    let whole = whole.unwrap_or_default();
    let stage = stage.map(|stage| format!("/{stage}")).unwrap_or_default();
    let starts_with_stage = whole.strip_prefix(&stage).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match whole.strip_suffix(path) {
        Some(mount) => mount.to_owned(),
        None if starts_with_stage => stage,
        None => String::new(),
    }
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

fn uri(path: &str, query: &str) -> Uri {
    let build = |path: &str, query: &str| {
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        Uri::builder().path_and_query(target).build()
    };
    let valid = |text: &str| utf8_percent_encode(text, NOT_IN_URIS).to_string();
    let uri = build(path, query).or_else(|_| build(&valid(path), &valid(query)));
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
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

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
                ("", "/"),
                (&long, NOWHERE),
            ] {
                for event in [rest(path, host), http(path, host)] {
                    let event = serde_json::from_value(event).expect("an event");
                    assert_eq!(read(event).uri().path(), read_as, "{path:.99} at {host}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_query_arrives_as_the_client_sent_it(pairs in vec(("[a-z_]{1,8}", "\\PC{0,12}"), 0..4)) {
            let mut decoded = BTreeMap::<&str, Vec<&str>>::new();
            for (name, value) in &pairs {
                decoded.entry(name).or_default().push(value);
            }
            let mut v1 = rest("/v1/jobs", "host");
            v1["multiValueQueryStringParameters"] = serde_json::json!(decoded);
            let mut v2 = http("/v1/jobs", "host");
            v2["rawQueryString"] = Serializer::new(String::new()).extend_pairs(&pairs).finish().into();
            for event in [v1, v2] {
                let request = read(serde_json::from_value(event).expect("an event"));
                let query = request.uri().query().unwrap_or_default().as_bytes();
                let mut read = form_urlencoded::parse(query).into_owned().collect::<Vec<_>>();
                let mut expected = pairs.clone();
                read.sort();
                expected.sort();
                prop_assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn the_mount_is_the_part_of_the_path_that_api_gateway_removes() {
        for (whole, path, expected) in [
            (Some("/v/v1/jobs"), "/v1/jobs", "/v"),
            (Some("/v/"), "/", "/v"),
            (Some("/v"), "/", "/v"),
            (Some("/v/model/a:0/converse"), "/model/a%3A0/converse", "/v"),
            // At a custom domain, both paths start with the base path.
            (Some("/llm/v1/jobs"), "/llm/v1/jobs", ""),
            (Some("/very/else"), "/v1/jobs", ""),
            (None, "/v1/jobs", ""),
        ] {
            assert_eq!(mount(whole, path, Some("v")), expected, "{whole:?} {path}");
        }
    }

    #[test]
    fn the_request_keeps_its_host() {
        for event in [rest("/", "a.example"), http("/", "a.example")] {
            let request = read(serde_json::from_value(event).expect("an event"));
            assert_eq!(request.headers()[HOST], "a.example");
        }
    }

    #[test]
    fn a_body_that_is_not_base64_is_taken_as_is() {
        let event = serde_json::from_value(http("/", "host")).expect("an event");
        assert_eq!(read(event).body().as_ref(), b"{not base64");
    }
}
