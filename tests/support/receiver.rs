//! A tenant's server that receives webhooks.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use spillway::{
    clock::Clock,
    tenant::{Endpoint, EventType},
    units::UnixMs,
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Deployment, time::eventually};

/// A request that the server received.
#[derive(Debug, Clone)]
pub struct Received {
    pub received_at: UnixMs,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a visible value"))
    }

    /// Whether `secret` made one of its signatures.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let timestamp_s = self.header("webhook-timestamp").parse().expect("a timestamp");
        let webhook = standardwebhooks::Webhook::new(secret).expect("a secret");
        let expected = webhook.sign(self.header("webhook-id"), timestamp_s, self.body.as_bytes()).expect("signed");
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

/// A scripted response: its status and headers.
type ScriptedResponse = (u16, Vec<(&'static str, String)>);

/// A server that answers a challenge with the challenge, and every other request with 200 unless a
/// response is scripted.
pub struct Receiver {
    pub url: String,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    clock: Clock,
    received: Mutex<Vec<Received>>,
    answers: Mutex<VecDeque<ScriptedResponse>>,
}

impl Receiver {
    /// Listens on loopback. Its clock is the clock of `deployment`.
    pub async fn start(deployment: &Deployment) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let clock = deployment.world.app.clock.clone();
        let state = Arc::new(State { clock, received: Mutex::default(), answers: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(listener, Arc::clone(&state))));
        Self { url, state, _stop: stop.drop_guard() }
    }

    /// Scripts the responses to the next requests, in this order.
    pub fn will_answer(&self, answers: impl IntoIterator<Item = ScriptedResponse>) {
        self.state.answers.lock().expect("no panic").extend(answers);
    }

    /// Returns all requests received so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("no panic").clone()
    }

    /// Waits until `count` requests have arrived. Returns all requests received so far.
    pub async fn first_requests(&self, count: usize) -> Vec<Received> {
        eventually("the events arrive", async || self.received().len() >= count).await;
        self.received()
    }
}

/// Returns a scripted response with this status and no headers.
pub fn status(status: u16) -> ScriptedResponse {
    (status, Vec::new())
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    let challenge = serde_json::from_str::<Value>(&body).ok().and_then(|json| json["data"].get("challenge").cloned());
    let challenge = challenge.and_then(|challenge| challenge.as_str().map(str::to_owned));
    let received =
        Received { received_at: state.clock.now(), path: parts.uri.path().to_owned(), headers: parts.headers, body };
    state.received.lock().expect("no panic").push(received);
    let scripted = state.answers.lock().expect("no panic").pop_front();
    let (status, headers) = scripted.unwrap_or((200, Vec::new()));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(challenge.unwrap_or_default().into()).expect("a response"))
}

impl Deployment {
    /// Registers a verified endpoint of `tenant` at `url`.
    pub async fn endpoint(&self, tenant: &str, url: &str, events: &[EventType]) -> Endpoint {
        let endpoint = Endpoint::new(tenant, url, events.to_vec()).expect("random bytes");
        let endpoint = Endpoint { verified_at: Some(UnixMs::from_ms(1)), ..endpoint };
        self.world.app.registry.put_endpoint(&endpoint).await.expect("written");
        endpoint
    }
}
