//! Bad input on every route and in every dialect gets a clear error that repeats nothing, and costs
//! nothing.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, charged, deployment, pool},
    key,
};

/// Text that is in every prompt and must not be in any error.
const SECRET: &str = "xyzzy";

const FIELDS: &str = "limits = { requests_per_minute = 1000, tokens_per_minute = 5000, in_flight = 10 }";

/// A dialect, with its own chat paths and its own format of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
    Bedrock,
}

const CHATS: [(Dialect, &str); 4] = [
    (Dialect::OpenAi, "/v1/chat/completions"),
    (Dialect::Anthropic, "/v1/messages"),
    (Dialect::Bedrock, "/model/m/converse"),
    (Dialect::Bedrock, "/model/m/converse-stream"),
];

/// A bad request and its expected status.
struct Case {
    name: String,
    dialect: Dialect,
    request: RequestBuilder,
    status: u16,
}

async fn start() -> Deployment {
    let pool = pool("only", "on_demand", "sim.model", "");
    Deployment::start(&deployment(FIELDS, &pool).replace("timeout_ms", "max_output_tokens = 8000\ntimeout_ms")).await
}

/// Sends all cases. Fails unless each is refused with its status and none is charged.
async fn check(deployment: &Deployment, cases: Vec<Case>) {
    assert!(!cases.is_empty());
    let quota = charged(&deployment.quota("t").await);
    let writes = deployment.dynamodb_operations().await["UpdateItem"].clone();
    for Case { name, dialect, request, status } in cases {
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        let message = message_in(dialect, &answer, &name);
        assert!((10..700).contains(&message.len()), "{name}: {message}");
        let text = answer.text().to_ascii_lowercase();
        for word in [SECRET, "0123456789abcdef", "panick"] {
            assert!(!text.contains(word), "{name} repeats {word}: {text}");
        }
    }
    assert_eq!(deployment.dynamodb_operations().await["UpdateItem"], writes, "a refusal wrote to the ledger");
    assert_eq!(charged(&deployment.quota("t").await), quota);
    assert_eq!(deployment.simulator().await["total"]["requests"], 0, "a model was called");
}

/// Returns the message of an error. Fails unless the error has the format of its dialect.
fn message_in(dialect: Dialect, answer: &Answer, name: &str) -> String {
    assert_eq!(answer.header("content-type"), "application/json", "{name}");
    let body = answer.json();
    let (message, kind) = match dialect {
        Dialect::OpenAi => (&body["error"]["message"], &body["error"]["code"]),
        Dialect::Anthropic => {
            assert_eq!(body["type"], "error", "{name}: {body}");
            assert_eq!(body["request_id"], answer.header("request-id"), "{name}");
            (&body["error"]["message"], &body["error"]["type"])
        }
        Dialect::Bedrock => {
            assert!(answer.header("x-amzn-errortype").ends_with("Exception"), "{name}: {:?}", answer.headers);
            (&body["message"], &json!("in the header"))
        }
    };
    assert!(kind.is_string() && message.is_string(), "{name}: {body}");
    message.as_str().unwrap_or_default().to_owned()
}

/// Returns a valid body of a dialect.
fn valid(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Bedrock => json!({ "messages": [{ "role": "user", "content": [{ "text": SECRET }] }] }),
        _ => json!({ "model": "m", "messages": [{ "role": "user", "content": SECRET }] }),
    }
}

/// Returns the [`valid`] body with `value` at `path` (a JSON pointer), whose last member need not
/// exist.
fn replaced(dialect: Dialect, path: &str, value: Value) -> Value {
    let mut body = valid(dialect);
    let (parent, name) = path.rsplit_once('/').expect("a pointer");
    let parent = body.pointer_mut(parent).expect("a parent");
    parent[name] = value;
    body
}

fn with_output_limit(dialect: Dialect, limit: Value) -> Value {
    match dialect {
        Dialect::Bedrock => replaced(dialect, "/inferenceConfig", json!({ "maxTokens": limit })),
        _ => replaced(dialect, "/max_tokens", limit),
    }
}

impl Deployment {
    /// Builds a request with the key of `t` and a body that need not be JSON.
    fn raw(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.world.url)).bearer_auth(key("t")).body(body)
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let deployment = start().await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let deep_in_valid = |dialect| {
        let nested = deep("[", "]");
        valid(dialect).to_string().replacen('{', &format!("{{\"metadata\":{nested},"), 1)
    };
    let mut cases = Vec::new();
    for (dialect, path) in CHATS {
        let whole = valid(dialect).to_string();
        let bodies: Vec<(&str, Vec<u8>)> = vec![
            ("nothing", Vec::new()),
            ("blanks", b" \r\n\t".to_vec()),
            ("half a body", whole[..whole.len() - 3].into()),
            ("two bodies", format!("{whole}{whole}").into()),
            ("no JSON", format!("{SECRET}=1&b=2").into()),
            ("an array", format!("[\"{SECRET}\"]").into()),
            ("a string", format!("\"{SECRET}\"").into()),
            ("null", b"null".to_vec()),
            ("a number without end", format!("{{\"model\":{}", "9".repeat(100_000)).into()),
            ("not UTF-8", [b"{\"model\":\"", &[0xff, 0xfe, 0xc3, 0x28][..], b"xyzzy\"}"].concat()),
            ("half a surrogate", br#"{"model":"\ud800","messages":"xyzzy"}"#.to_vec()),
            ("10,000 arrays", deep("[", "]").into()),
            ("10,000 objects", deep("{\"a\":", "}").into()),
            ("10,000 arrays in a valid body", deep_in_valid(dialect).into()),
        ];
        for (name, body) in bodies {
            let request = deployment.raw(Method::POST, path, body);
            cases.push(Case { name: format!("{name} to {path}"), dialect, request, status: 400 });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn wrong_types_are_refused() {
    let deployment = start().await;
    let every_dialect: [(&str, Value); 9] = [
        ("/messages", json!(SECRET)),
        ("/messages", json!({ "role": "user", "content": SECRET })),
        ("/messages", json!([])),
        ("/messages", Value::Null),
        ("/messages", json!([SECRET])),
        ("/messages/0/role", json!("robot")),
        ("/messages/0/role", json!(7)),
        ("/messages/0/content", json!(7)),
        ("/messages/0/content", json!([[SECRET]])),
    ];
    let openai_and_anthropic: [(&str, Value); 7] = [
        ("/model", json!(7)),
        ("/model", json!("")),
        ("/model", Value::Null),
        ("/stream", json!(SECRET)),
        ("/temperature", json!("hot")),
        ("/temperature", json!(-1)),
        ("/tools", json!(SECRET)),
    ];
    let converse: [(&str, Value); 7] = [
        ("/inferenceConfig", json!(SECRET)),
        ("/inferenceConfig", json!({ "temperature": "hot" })),
        ("/inferenceConfig", json!({ "topP": 2 })),
        ("/toolConfig", json!(SECRET)),
        ("/system", json!(SECRET)),
        ("/requestMetadata", json!({ "a": 7 })),
        ("/additionalModelRequestFields", json!({ "max_tokens": 1_000_000 })),
    ];
    let mut cases = Vec::new();
    for (dialect, path) in CHATS {
        let dialect_fields = if dialect == Dialect::Bedrock { &converse } else { &openai_and_anthropic };
        for (pointer, value) in every_dialect.iter().chain(dialect_fields) {
            let name = format!("{value} as {pointer} to {path}");
            let request = deployment.post(path, "t", &replaced(dialect, pointer, value.clone()));
            cases.push(Case { name, dialect, request, status: 400 });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn invalid_output_limits_are_refused() {
    let deployment = start().await;
    let mut cases = Vec::new();
    for (dialect, path) in CHATS {
        let limits = [
            json!(0),
            json!(-1),
            json!(1.5),
            json!(1e12),
            json!(1_000_000_000_000_u64),
            json!(u64::MAX),
            json!(1e300),
            json!("100"),
            json!([100]),
            // The model allows 8,000 tokens, the tenant 5,000 a minute.
            json!(8_001),
            json!(8_000),
            json!(5_000),
        ];
        for limit in limits {
            let name = format!("max_tokens {limit} to {path}");
            let request = deployment.post(path, "t", &with_output_limit(dialect, limit));
            cases.push(Case { name, dialect, request, status: 400 });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn the_error_for_a_request_that_can_never_fit_names_the_limit() {
    let deployment = start().await;
    let answer = deployment.ask("/v1/chat/completions", "t", &with_output_limit(Dialect::OpenAi, json!(5_000))).await;
    let error = &answer.json()["error"];
    assert_eq!((&error["param"], answer.header("x-spillway-limit")), (&json!("max_tokens"), "tokens_per_minute"));
    assert!(error["message"].as_str().is_some_and(|message| message.contains("5000")), "{error}");
    assert_eq!(answer.header("retry-after"), "", "it will never fit");
}

#[tokio::test]
async fn unknown_models_are_refused() {
    let deployment = start().await;
    let mut cases = Vec::new();
    for model in ["other", "M", "m ", "../m", "\u{0}", &"m".repeat(100_000)] {
        for (dialect, path) in [(Dialect::OpenAi, "/v1/chat/completions"), (Dialect::Anthropic, "/v1/messages")] {
            let name = format!("model {} to {path}", &model[..model.len().min(9)]);
            let request = deployment.post(path, "t", &replaced(dialect, "/model", json!(model)));
            cases.push(Case { name, dialect, request, status: 404 });
        }
    }
    for id in ["other", "M", "m%20", "m%2F", "arn:aws:bedrock:us-east-1:0:provisioned-model/other", "a/b/c", "%00"] {
        let path = format!("/model/{id}/converse");
        let request = deployment.post(&path, "t", &valid(Dialect::Bedrock));
        cases.push(Case { name: path, dialect: Dialect::Bedrock, request, status: 404 });
    }
    for id in ["other", "m%20", "%00"] {
        let path = format!("/v1/models/{id}");
        let request = deployment.get(&path, "t");
        cases.push(Case { name: path, dialect: Dialect::OpenAi, request, status: 404 });
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn broken_percent_encoding_is_refused() {
    let deployment = start().await;
    let mut cases = Vec::new();
    for id in ["%", "%4", "%zz", "m%", "%ff", "%c3%28", "%-1"] {
        for operation in ["converse", "converse-stream"] {
            let path = format!("/model/{id}/{operation}");
            let request = deployment.post(&path, "t", &valid(Dialect::Bedrock));
            cases.push(Case { name: path, dialect: Dialect::Bedrock, request, status: 400 });
        }
        for path in [format!("/v1/models/{id}"), format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/result")] {
            let request = deployment.get(&path, "t");
            cases.push(Case { name: path, dialect: Dialect::OpenAi, request, status: 400 });
        }
    }
    let request = deployment.post("/model//converse", "t", &valid(Dialect::Bedrock));
    cases.push(Case { name: "no model id".into(), dialect: Dialect::Bedrock, request, status: 400 });
    check(&deployment, cases).await;
}

#[tokio::test]
async fn requests_without_a_valid_key_are_refused() {
    let deployment = start().await;
    let bearer = |key: String| Some(("authorization", format!("Bearer {key}")));
    let keys: [Option<(&str, String)>; 9] = [
        None,
        bearer(String::new()),
        bearer("sk-spill".into()),
        bearer(key("absent")),
        bearer(key("t").replace("0123", "3210")),
        bearer(key("t") + "0"),
        bearer("\u{e9}".repeat(5_000)),
        Some(("x-api-key", key("absent"))),
        Some(("x-amz-security-token", "x".repeat(20_000))),
    ];
    let paths = CHATS.map(|(dialect, path)| (dialect, Method::POST, path)).into_iter().chain([
        (Dialect::OpenAi, Method::GET, "/v1/models"),
        (Dialect::OpenAi, Method::GET, "/v1/models/m"),
        (Dialect::Anthropic, Method::GET, "/anthropic/v1/models"),
        (Dialect::OpenAi, Method::GET, "/v1/quota"),
        (Dialect::OpenAi, Method::GET, "/v1/jobs/00000000-0000-4000-8000-000000000000"),
        (Dialect::OpenAi, Method::GET, "/v1/jobs/00000000-0000-4000-8000-000000000000/result"),
        (Dialect::OpenAi, Method::DELETE, "/v1/jobs/00000000-0000-4000-8000-000000000000"),
    ]);
    let mut cases = Vec::new();
    for (dialect, method, path) in paths {
        for (index, header) in keys.iter().enumerate() {
            let request = deployment.http.request(method.clone(), format!("{}{path}", deployment.world.url));
            let request = header.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let request = request.body(valid(dialect).to_string());
            let status = if dialect == Dialect::Bedrock { 403 } else { 401 };
            cases.push(Case { name: format!("key {index} to {path}"), dialect, request, status });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn wrong_methods_and_paths_are_refused() {
    let deployment = start().await;
    let wrong_methods = [
        (Dialect::OpenAi, Method::GET, "/v1/chat/completions"),
        (Dialect::OpenAi, Method::PUT, "/v1/chat/completions"),
        (Dialect::OpenAi, Method::DELETE, "/openai/v1/chat/completions"),
        (Dialect::Anthropic, Method::GET, "/v1/messages"),
        (Dialect::Anthropic, Method::PATCH, "/anthropic/v1/messages"),
        (Dialect::Bedrock, Method::GET, "/model/m/converse"),
        (Dialect::Bedrock, Method::DELETE, "/model/m/converse-stream"),
        (Dialect::OpenAi, Method::POST, "/v1/models"),
        (Dialect::OpenAi, Method::PUT, "/v1/quota"),
        (Dialect::OpenAi, Method::PUT, "/v1/jobs/00000000-0000-4000-8000-000000000000"),
        (Dialect::OpenAi, Method::DELETE, "/v1/jobs/00000000-0000-4000-8000-000000000000/result"),
        (Dialect::OpenAi, Method::POST, "/healthz"),
        (Dialect::OpenAi, Method::OPTIONS, "/v1/chat/completions"),
    ];
    let wrong_paths = [
        (Dialect::OpenAi, Method::POST, "/v1/chat"),
        (Dialect::OpenAi, Method::POST, "/v1/chat/completions/more"),
        (Dialect::OpenAi, Method::POST, "/V1/chat/completions"),
        (Dialect::OpenAi, Method::POST, "/v2/chat/completions"),
        (Dialect::OpenAi, Method::POST, "/openaiv1/chat/completions"),
        (Dialect::OpenAi, Method::POST, "/v1/images/generations"),
        (Dialect::OpenAi, Method::GET, "/admin"),
        (Dialect::OpenAi, Method::GET, "/%2e%2e/etc/passwd"),
        (Dialect::Anthropic, Method::POST, "/v1/messages/nothing"),
        (Dialect::Anthropic, Method::POST, "/anthropic/v1/nothing"),
        (Dialect::Bedrock, Method::POST, "/model/m/dance"),
        (Dialect::Bedrock, Method::POST, "/model/m"),
        (Dialect::OpenAi, Method::GET, "/v1/jobs/a/b"),
    ];
    let mut cases = Vec::new();
    for (status, requests) in [(405, wrong_methods), (404, wrong_paths)] {
        for (dialect, method, path) in requests {
            let name = format!("{method} {path}");
            let request = deployment.raw(method, path, valid(dialect).to_string());
            cases.push(Case { name, dialect, request, status });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn unknown_jobs_are_not_found() {
    let deployment = start().await;
    let mut cases = Vec::new();
    for id in ["00000000-0000-4000-8000-000000000000", "a", "a%23request", "%F0%9F%A6%A6", &"a".repeat(5_000)] {
        let requests = [
            (Method::GET, format!("/v1/jobs/{id}")),
            (Method::GET, format!("/v1/jobs/{id}/result")),
            (Method::DELETE, format!("/v1/jobs/{id}")),
        ];
        for (method, path) in requests {
            let name = format!("{method} {}", &path[..path.len().min(60)]);
            let request = deployment.raw(method, &path, "");
            cases.push(Case { name, dialect: Dialect::OpenAi, request, status: 404 });
        }
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn bodies_over_six_mebibytes_are_refused() {
    const MAX_BODY_BYTES: usize = 6 * 1024 * 1024;
    let deployment = start().await;
    let mut cases = Vec::new();
    for (dialect, path) in CHATS {
        for size in [MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES] {
            let request = deployment.raw(Method::POST, path, vec![b' '; size]);
            cases.push(Case { name: format!("{size} bytes to {path}"), dialect, request, status: 413 });
        }
        // The largest body allowed is read, but it is not JSON.
        let request = deployment.raw(Method::POST, path, vec![b' '; MAX_BODY_BYTES]);
        cases.push(Case { name: format!("{MAX_BODY_BYTES} bytes to {path}"), dialect, request, status: 400 });
    }
    check(&deployment, cases).await;
}

#[tokio::test]
async fn a_request_that_only_the_model_rejects_gets_its_error_and_costs_nothing() {
    let deployment = start().await;
    let before = charged(&deployment.quota("t").await);
    let schema = (0..122).fold(json!({}), |inner, _| json!({ "a": inner }));
    let bodies = [
        (Dialect::Bedrock, "/model/m/converse", replaced(Dialect::Bedrock, "/messages/0/role", json!("assistant"))),
        (Dialect::Bedrock, "/model/m/converse-stream", replaced(Dialect::Bedrock, "/messages/0/content", json!([]))),
        (Dialect::Bedrock, "/model/m/converse", replaced(Dialect::Bedrock, "/toolConfig", json!({ "tools": [] }))),
        (
            // Nested as deep as we allow, and one level too deep for the model once converted for
            // Converse.
            Dialect::OpenAi,
            "/v1/chat/completions",
            replaced(
                Dialect::OpenAi,
                "/tools",
                json!([{ "type": "function", "function": {
                "name": "f", "parameters": schema,
            } }]),
            ),
        ),
    ];
    for (dialect, path, body) in bodies {
        let answer = deployment.ask(path, "t", &body).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        let message = message_in(dialect, &answer, path);
        assert!(!message.contains(SECRET), "{message}");
        assert_eq!(charged(&deployment.quota("t").await), before, "{path}");
    }
}
