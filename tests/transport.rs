//! Transport: TLS, signed requests without a key, path prefixes, and every form of request that
//! HTTP allows.

use std::net::SocketAddr;

use aws_sdk_bedrockruntime::{
    Client,
    config::{Builder, Config, Credentials, Region, Token, retry::RetryConfig},
    error::ProvideErrorMetadata,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use spillway::{
    dialect::{AnswerContext, Api, Echo},
    http::{Caller, Mount, handle},
    units::UnixMs,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Deployment,
    answer::{Answer, aws_message, deployment, pool, three_chats, used, within},
    chat, key,
    tls::{connect, trusting},
};

/// Returns settings with the model `m` and the tenants `t` and `u`, each with a key and an access
/// key id.
fn settings() -> String {
    let fields = "limits = { requests_per_minute = 100, tokens_per_minute = 100000, in_flight = 10 }";
    let pool = pool("only", "on_demand", "sim.model", "");
    let access_keys = "[access_keys]\nt = \"access-t\"\nu = \"access-u\"\n";
    let second = format!("[[tenants]]\nname = \"u\"\n{fields}\n");
    let keys = format!("[keys]\nu = \"{}\"", key("u"));
    deployment(fields, &(pool + &second)).replace("[keys]", &keys) + access_keys
}

async fn start() -> Deployment {
    Deployment::start(&settings()).await
}

fn signing(url: &str, access_key_id: &str, session_token: Option<String>) -> Builder {
    config(url).credentials_provider(Credentials::new(access_key_id, "any secret", session_token, None, "test"))
}

fn config(url: &str) -> Builder {
    let config = Config::builder().behavior_version_latest().region(Region::new("us-east-1"));
    config.retry_config(RetryConfig::disabled()).endpoint_url(url)
}

/// Calls the model, whole and streamed. Returns the error code if the first call fails.
async fn converse(config: Builder) -> Result<(), String> {
    let client = Client::from_conf(config.build());
    let call = client.converse().model_id("m").messages(aws_message("[[output_tokens=4]]")).send();
    within(call).await.map_err(|error| error.code().unwrap_or("no code").to_owned())?;
    let call = client.converse_stream().model_id("m").messages(aws_message("[[output_tokens=4]]")).send();
    let mut stream = within(call).await.expect("a stream").stream;
    let mut last = None;
    while let Some(event) = within(stream.recv()).await.expect("an event") {
        last = Some(event);
    }
    assert!(last.is_some_and(|event| event.is_metadata()), "the stream ends with its metadata");
    Ok(())
}

async fn requests_of(deployment: &Deployment, tenant: &str) -> u64 {
    used(&deployment.quota(tenant).await, "requests_per_minute")
}

#[tokio::test]
async fn https_serves_http_1_and_http_2_under_every_local_name() {
    let deployment = Deployment::start_with_tls(&settings()).await;
    let tls = deployment.world.tls.as_ref().expect("HTTPS");
    let port = tls.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for name in ["localhost", "127.0.0.1", "::1"] {
        for version in ["h2", "http/1.1"] {
            let mut client = connect(address, name, version, &tls.ca_file).await.expect("a trusted connection");
            let request = Request::get(format!("https://localhost:{port}/healthz")).body(String::new());
            let response = within(client.send(request.expect("a request"))).await;
            assert_eq!(response.status(), 200, "{name} {version}");
        }
    }
    connect(address, "example.com", "h2", &tls.ca_file).await.err().expect("an error for a name without a certificate");
}

#[tokio::test]
async fn an_aws_sdk_with_a_bearer_token_calls_over_tls() {
    let deployment = Deployment::start_with_tls(&settings()).await;
    let tls = deployment.world.tls.as_ref().expect("HTTPS");
    let with_token = |token: String| {
        let config = config(&tls.url).http_client(trusting(&tls.ca_file)).bearer_token(Token::new(token, None));
        config.auth_scheme_preference(["httpBearerAuth".into()])
    };
    converse(with_token(key("t"))).await.expect("answers");
    assert_eq!(requests_of(&deployment, "t").await, 2);
    let code = converse(with_token(key("absent"))).await.expect_err("refused");
    assert_eq!(code, "UnrecognizedClientException");
    let signed = signing(&tls.url, "access-u", None).http_client(trusting(&tls.ca_file));
    converse(signed).await.expect("answers");
    assert_eq!(requests_of(&deployment, "u").await, 2);
}

#[tokio::test]
async fn locally_the_access_key_id_of_a_signed_request_identifies_the_tenant() {
    let deployment = start().await;
    let url = &deployment.world.url;
    converse(signing(url, "access-t", None)).await.expect("answers");
    assert_eq!(requests_of(&deployment, "t").await, 2);
    // Temporary credentials have an AWS session token.
    converse(signing(url, "access-t", Some("FwoGZXIvYXdzEXAMPLE".into()))).await.expect("answers");
    assert_eq!(requests_of(&deployment, "t").await, 4);
    let code = converse(signing(url, "access-unknown", None)).await.expect_err("refused");
    assert_eq!(code, "UnrecognizedClientException");
    assert_eq!(requests_of(&deployment, "t").await, 4);
}

#[tokio::test]
async fn a_key_takes_precedence_over_the_access_key_id_even_if_it_is_invalid() {
    let deployment = start().await;
    let url = &deployment.world.url;
    converse(signing(url, "access-t", Some(key("u")))).await.expect("answers");
    assert_eq!((requests_of(&deployment, "t").await, requests_of(&deployment, "u").await), (0, 2));
    converse(signing(url, "access-t", Some(key("absent")))).await.expect_err("refused");
    let signature = "AWS4-HMAC-SHA256 Credential=access-t/20261123/us-east-1/bedrock/aws4_request, Signature=0";
    for (path, body) in three_chats(4, None) {
        let request = || deployment.http.post(format!("{url}{path}")).header("authorization", signature).json(&body);
        assert_eq!(Answer::to(request()).await.status, 200, "{path}");
        let status = Answer::to(request().header("x-api-key", key("absent"))).await.status;
        assert_eq!(status, if path.starts_with("/model/") { 403 } else { 401 }, "{path}");
    }
    assert_eq!((requests_of(&deployment, "t").await, requests_of(&deployment, "u").await), (3, 2));
}

#[tokio::test]
async fn the_library_trusts_no_signature_unless_its_front_end_names_the_caller() {
    let deployment = start().await;
    let app = deployment.another_app().await;
    let signature = "AWS4-HMAC-SHA256 Credential=access-t/20261123/us-east-1/bedrock/aws4_request, Signature=0";
    let request = |caller: Option<&str>| {
        let mut request = Request::get("/v1/quota").header("authorization", signature);
        if let Some(caller) = caller {
            request = request.extension(Caller(caller.into()));
        }
        request.body(String::new()).expect("a request")
    };
    assert_eq!(handle(&app, request(None)).await.status(), 401);
    assert_eq!(handle(&app, request(Some("access-t"))).await.status(), 200);
    for caller in ["access-unknown", "", "two words", "arn:aws:sts::123456789012:assumed-role/"] {
        assert_eq!(handle(&app, request(Some(caller))).await.status(), 401, "{caller}");
    }
}

#[tokio::test]
async fn the_api_is_served_below_the_path_prefix_and_only_liveness_outside_it() {
    let deployment = start().await;
    let mut app = deployment.another_app().await;
    app.path_prefix = "/llm".into();
    let ask = async |method: Method, path: &str, body: String| {
        let request = Request::builder().method(method).uri(path).header("x-api-key", key("t"));
        let response = handle(&app, request.body(body).expect("a request")).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    for (path, body) in three_chats(4, None) {
        let (status, text) = ask(Method::POST, &format!("/llm{path}"), body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        let (status, text) = ask(Method::POST, path, body.to_string()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(text.contains("The paths of this API begin with /llm/."), "{text}");
    }
    for path in ["/healthz", "/llm/healthz", "/", "/llm", "/llm/v1/models"] {
        assert_eq!(ask(Method::GET, path, String::new()).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(ask(Method::GET, "/llmv1/models", String::new()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn addresses_start_with_the_stage_and_the_path_prefix_of_the_caller() {
    for (stage, prefix) in [("", "/llm"), ("/v", ""), ("/v", "/llm")] {
        let deployment = Deployment::start(&crate::support::one_tenant("{ requests_per_minute = 1 }")).await;
        let mut app = deployment.world.app.clone();
        app.path_prefix = prefix.into();
        let send = async |method: Method, path: &str, body: String| {
            let request = Request::builder().method(method).uri(path).header("x-api-key", key("t"));
            let request = request.header("prefer", "respond-async").extension(Mount(stage.into()));
            handle(&app, request.body(body).expect("a request")).await
        };
        let chat_path = format!("{prefix}/v1/chat/completions");
        assert_eq!(send(Method::POST, &chat_path, chat(4, 8).to_string()).await.status(), 200);
        let accepted = send(Method::POST, &chat_path, chat(4, 8).to_string()).await;
        assert_eq!(accepted.status(), 202);
        let location = accepted.headers()["location"].to_str().expect("a path").to_owned();
        assert!(location.starts_with(&format!("{stage}{prefix}/v1/jobs/")), "{location}");
        let job = send(Method::GET, &location[stage.len()..], String::new()).await;
        assert_eq!(job.status(), 200, "{location}");
        let id = location.rsplit('/').next().expect("an id");
        let stored = deployment.stored(id).await;
        assert_eq!(stored.call.base_path, format!("{stage}{prefix}"), "webhooks name the result below it");
    }
}

#[tokio::test]
async fn an_unsupported_method_is_answered_with_the_allowed_methods() {
    let deployment = start().await;
    for (method, path, allow) in [
        (Method::GET, "/v1/chat/completions", "POST"),
        (Method::PUT, "/v1/messages", "POST"),
        (Method::GET, "/model/m/converse-stream", "POST"),
        (Method::POST, "/v1/models", "GET"),
        (Method::POST, "/v1/jobs/1", "GET, DELETE"),
        (Method::DELETE, "/healthz", "GET, HEAD"),
    ] {
        let url = format!("{}{path}", deployment.world.url);
        let answer = Answer::to(deployment.http.request(method.clone(), url)).await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
    }
}

/// Sends the bytes of `request`. Returns the response as soon as `is_complete` holds for it.
async fn send_raw(deployment: &Deployment, request: &str, is_complete: impl Fn(&str) -> bool) -> String {
    let address = deployment.world.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    while !is_complete(&String::from_utf8_lossy(&read))
        && within(stream.read_buf(&mut read)).await.expect("an answer") > 0
    {}
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn unusual_but_valid_request_heads_are_answered() {
    let deployment = start().await;
    let has_head = |text: &str| text.contains("\r\n\r\n");
    for host in ["Host: localhost\r\n", "Host: LOCALHOST:99999\r\n", "Host: [::1]\r\n", ""] {
        let answer = send_raw(&deployment, &format!("GET /healthz HTTP/1.1\r\n{host}\r\n"), has_head).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    let answer = send_raw(&deployment, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", has_head).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");

    let body = chat(4, 8).to_string();
    let head = format!("authorization: Bearer {}\r\ncontent-length: {}\r\n", key("t"), body.len());
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n{head}\r\n");
    let answer = send_raw(&deployment, &request, has_head).await;
    assert!(answer.starts_with("HTTP/1.1 100 "), "{answer}");
}

#[tokio::test]
async fn locally_a_request_for_another_host_is_refused() {
    let deployment = start().await;
    let evil = format!("Host: evil.example:8787\r\nx-api-key: {}\r\n", key("t"));
    for host in [evil.as_str(), "Host: a b[\r\n", "Host: \r\n", "Host: localhost\r\nHost: evil.example\r\n"] {
        let request = format!("GET /v1/quota HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        let answer = send_raw(&deployment, &request, |_| false).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        assert!(answer.contains("--allow-host NAME"), "{host}: {answer}");
    }
    let request = Request::get("http://evil.example/v1/quota").body(String::new()).expect("a request");
    let mut client = http2(&deployment).await;
    assert_eq!(within(client.send_request(request)).await.expect("an answer").status(), 421);
}

/// Opens a connection with HTTP/2.
async fn http2(deployment: &Deployment) -> hyper::client::conn::http2::SendRequest<String> {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = TcpStream::connect(deployment.world.url.trim_start_matches("http://")).await.expect("a connection");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (client, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn any_content_type_and_none_are_accepted() {
    let deployment = start().await;
    for (path, body) in three_chats(4, Some(8)) {
        for content_type in [None, Some("text/plain"), Some("application/octet-stream")] {
            let url = format!("{}{path}", deployment.world.url);
            let mut request = deployment.http.post(url).bearer_auth(key("t")).body(body.to_string());
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            assert_eq!(Answer::to(request).await.status, 200, "{path} {content_type:?}");
        }
    }
}

#[tokio::test]
async fn an_aws_sdk_skips_keep_alives() {
    let context = AnswerContext {
        request_id: "r".into(),
        model: "m".into(),
        created_at: UnixMs::default(),
        echo: Echo::default(),
    };
    let mut stream = Api::Converse.stream(context);
    let mut bytes = Vec::new();
    for (name, payload) in [
        ("messageStart", json!({ "role": "assistant" })),
        ("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": { "text": "Hello" } })),
        ("messageStop", json!({ "stopReason": "end_turn" })),
    ] {
        bytes.extend(stream.keep_alive());
        bytes.extend(stream.event(&spillway::chat::StreamEvent::Converse { name: name.into(), payload }));
    }
    let url = serve_stream(Bytes::from(bytes)).await;
    let client = Client::from_conf(signing(&url, "a", None).build());
    let call = client.converse_stream().model_id("m").messages(aws_message("Hello")).send();
    let mut stream = within(call).await.expect("a stream").stream;
    let mut known = Vec::new();
    while let Some(event) = within(stream.recv()).await.expect("no error") {
        if !event.is_unknown() {
            known.push(event);
        }
    }
    let call = client.invoke_model_with_response_stream().model_id("m").body(b"{}".as_slice().into()).send();
    let mut stream = within(call).await.expect("a stream").body;
    while let Some(event) = within(stream.recv()).await.expect("no error") {
        assert!(event.is_unknown(), "nothing in this stream is a chunk");
    }
    let [start, delta, stop] = &known[..] else { panic!("{known:?}") };
    assert!(start.is_message_start() && stop.is_message_stop());
    let delta = delta.as_content_block_delta().expect("a delta").delta().expect("text");
    assert_eq!(delta.as_text().expect("text"), "Hello");
}

/// Starts a server that answers every request with the event stream `body`. Returns its URL.
async fn serve_stream(body: Bytes) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let answer = |_| {
            let response = http::Response::builder().header("content-type", "application/vnd.amazon.eventstream");
            let response = response.body(Full::new(body.clone()));
            async move { response }
        };
        let service = hyper::service::service_fn(answer);
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service).await
    });
    url
}
