//! A small server that plays the broker and the simulator. The output tokens that a request asks
//! for select its behaviour.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const INPUT_TOKENS: u64 = 100;

/// Behaviours of the server, as the output tokens that a request asks for.
pub mod behaviour {
    pub const ANSWER: u64 = 1;
    pub const JOB: u64 = 2;
    pub const JOB_FAILS: u64 = 3;
    pub const JOB_NEVER_ENDS: u64 = 4;
    pub const REFUSED: u64 = 5;
    pub const REFUSED_WITHOUT_TIME: u64 = 6;
    pub const OUT_OF_BUDGET: u64 = 7;
    pub const SERVER_ERROR: u64 = 8;
    pub const DROPPED: u64 = 9;
    pub const SWALLOWED: u64 = 10;
    pub const CUT_SHORT: u64 = 11;
    pub const JOB_WITHOUT_RESULT: u64 = 12;
}

type Body = BoxBody<Bytes, Infallible>;

#[derive(Debug, Default)]
pub struct Server {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    settled: HashMap<String, (u64, u64)>,
    served: (u64, u64),
    requests_with_prefer: u64,
}

#[derive(Debug)]
struct Job {
    behaviour: u64,
    polls: u32,
}

impl Server {
    pub async fn start() -> (Arc<Self>, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = Arc::new(Self::default());
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let server = Arc::clone(&accepting);
                let service = service_fn(move |request| Arc::clone(&server).handle(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
            }
        });
        (server, url)
    }

    /// Makes the simulator count tokens that the broker does not settle.
    pub fn serve_without_broker(&self, tokens: u64) {
        self.state.lock().unwrap().served.0 += tokens;
    }

    /// Number of requests with a `Prefer` header.
    pub fn requests_with_prefer(&self) -> u64 {
        self.state.lock().unwrap().requests_with_prefer
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let headers = request.headers().clone();
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        match path.strip_prefix("/v1/jobs/") {
            Some(job) => Ok(self.job(job)),
            None if path == "/v1/quota" => Ok(self.quota(&headers)),
            None if path == "/_sim/stats" => Ok(self.stats()),
            None => self.call(&path, &headers, serde_json::from_slice(&body)?).await,
        }
    }

    async fn call(&self, path: &str, headers: &HeaderMap, body: Value) -> io::Result<Response<Body>> {
        self.state.lock().unwrap().requests_with_prefer += u64::from(headers.contains_key("prefer"));
        let streams = body["stream"] == true || path.ends_with("/converse-stream");
        match requested_tokens(&body) {
            behaviour::ANSWER => Ok(self.answer(path, streams, tenant(headers))),
            behaviour::REFUSED => Ok(refusal(429).header("retry-after", "7").body(text("{}")).unwrap()),
            behaviour::REFUSED_WITHOUT_TIME => Ok(refusal(429).body(text("{}")).unwrap()),
            behaviour::OUT_OF_BUDGET => Ok(refusal(402).header("retry-after", "86400").body(text("{}")).unwrap()),
            behaviour::SERVER_ERROR => Ok(Response::builder()
                .status(500)
                .body(text(r#"{"error":{"type":"api_error","message":"secret"}}"#))
                .unwrap()),
            behaviour::DROPPED => Err(io::Error::other("dropped on purpose")),
            behaviour::SWALLOWED => std::future::pending().await,
            behaviour::CUT_SHORT => Ok(cut_short(path, streams)),
            behaviour => Ok(self.accept(behaviour)),
        }
    }

    fn answer(&self, path: &str, streams: bool, tenant: String) -> Response<Body> {
        self.serve(tenant, behaviour::ANSWER);
        let pieces = if streams { stream_of(path, behaviour::ANSWER) } else { vec![whole(path, behaviour::ANSWER)] };
        Response::builder()
            .header("content-type", content_type(path, streams))
            .header("x-spillway-pool", "provisioned")
            .body(in_pieces(pieces))
            .unwrap()
    }

    fn accept(&self, behaviour: u64) -> Response<Body> {
        let mut state = self.state.lock().unwrap();
        state.jobs.push(Job { behaviour, polls: 0 });
        let location = format!("/v1/jobs/{}", state.jobs.len() - 1);
        Response::builder().status(202).header("location", location).body(text("{}")).unwrap()
    }

    fn job(&self, path: &str) -> Response<Body> {
        let (id, wants_result) = path.strip_suffix("/result").map_or((path, false), |id| (id, true));
        let mut state = self.state.lock().unwrap();
        let job = &mut state.jobs[id.parse::<usize>().unwrap()];
        job.polls += 1;
        let behaviour = job.behaviour;
        let status = match behaviour {
            behaviour::JOB_NEVER_ENDS => "queued",
            _ if job.polls == 1 => "running",
            behaviour::JOB_FAILS => "failed",
            _ => "succeeded",
        };
        drop(state);
        match (wants_result, behaviour) {
            (false, _) => Response::new(text(&json!({ "status": status }).to_string())),
            (true, behaviour::JOB) => {
                self.serve("ordinary".to_owned(), behaviour);
                let answer = Response::builder().header("x-spillway-pool", "on-demand");
                answer.body(in_pieces(vec![whole("/v1/messages", behaviour)])).unwrap()
            }
            (true, _) => Response::builder().status(404).body(text("{}")).unwrap(),
        }
    }

    fn serve(&self, tenant: String, output_tokens: u64) {
        let mut state = self.state.lock().unwrap();
        let settled = state.settled.entry(tenant).or_default();
        settled.0 += INPUT_TOKENS;
        settled.1 += output_tokens;
        state.served.0 += INPUT_TOKENS;
        state.served.1 += output_tokens;
    }

    fn quota(&self, headers: &HeaderMap) -> Response<Body> {
        let tenant = tenant(headers);
        let (input, output) = self.state.lock().unwrap().settled.get(&tenant).copied().unwrap_or_default();
        let settled = json!({ "requests": 0, "input_tokens": input, "output_tokens": output, "cost_microusd": 0 });
        Response::new(text(&json!({ "tenant": tenant, "limits": [], "settled": settled }).to_string()))
    }

    fn stats(&self) -> Response<Body> {
        let (input, output) = self.state.lock().unwrap().served;
        Response::new(text(&json!({ "total": { "input_tokens": input, "output_tokens": output } }).to_string()))
    }
}

fn requested_tokens(body: &Value) -> u64 {
    let content = &body["messages"][0]["content"];
    let prompt = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap();
    let (_, rest) = prompt.split_once('=').unwrap();
    rest.split(']').next().unwrap().parse().unwrap()
}

/// Tenant of a demo key, which is also the ID of the key.
fn tenant(headers: &HeaderMap) -> String {
    headers["authorization"].to_str().unwrap().split('-').nth(2).unwrap().to_owned()
}

fn refusal(status: u16) -> http::response::Builder {
    Response::builder().status(status).header("x-spillway-limit", "tokens_per_minute, in_flight")
}

fn content_type(path: &str, streams: bool) -> &'static str {
    match (streams, path.starts_with("/model/")) {
        (false, _) => "application/json",
        (true, false) => "text/event-stream",
        (true, true) => "application/vnd.amazon.eventstream",
    }
}

fn whole(path: &str, output_tokens: u64) -> Bytes {
    let (input, output) = match path {
        "/v1/chat/completions" => ("prompt_tokens", "completion_tokens"),
        "/v1/messages" => ("input_tokens", "output_tokens"),
        _ => ("inputTokens", "outputTokens"),
    };
    json!({ "usage": { input: INPUT_TOKENS, output: output_tokens } }).to_string().into()
}

fn stream_of(path: &str, output_tokens: u64) -> Vec<Bytes> {
    let data = |value: Value| Bytes::from(format!("data: {value}\n\n"));
    match path {
        "/v1/chat/completions" => vec![
            data(json!({ "choices": [{ "delta": { "content": "a" } }] })),
            data(
                json!({ "choices": [], "usage": { "prompt_tokens": INPUT_TOKENS, "completion_tokens": output_tokens } }),
            ),
            Bytes::from_static(b"data: [DONE]\n\n"),
        ],
        "/v1/messages" => vec![
            data(json!({ "type": "message_start", "message": { "usage": { "input_tokens": INPUT_TOKENS } } })),
            data(json!({ "type": "content_block_delta", "delta": { "text": "a" } })),
            data(json!({ "type": "message_delta", "usage": { "output_tokens": output_tokens } })),
            data(json!({ "type": "message_stop" })),
        ],
        _ => vec![
            frame("contentBlockDelta", &json!({ "delta": { "text": "a" } })),
            frame("messageStop", &json!({ "stopReason": "end_turn" })),
            frame("metadata", &json!({ "usage": { "inputTokens": INPUT_TOKENS, "outputTokens": output_tokens } })),
        ],
    }
}

fn frame(event: &str, payload: &Value) -> Bytes {
    let value = |text: &str| HeaderValue::String(text.to_owned().into());
    let message = Message::new(payload.to_string())
        .add_header(Header::new(":message-type", value("event")))
        .add_header(Header::new(":event-type", value(event)));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).unwrap();
    bytes.into()
}

fn cut_short(path: &str, streams: bool) -> Response<Body> {
    let first = if streams { stream_of(path, 1).swap_remove(0) } else { Bytes::from_static(b"{\"usage\":") };
    Response::builder().header("content-type", content_type(path, streams)).body(in_pieces(vec![first])).unwrap()
}

fn in_pieces(pieces: Vec<Bytes>) -> Body {
    StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))))).boxed()
}

fn text(body: &str) -> Body {
    Full::new(Bytes::copy_from_slice(body.as_bytes())).boxed()
}
