//! One call, however often it is sent: attempts at it share one answer, and one bill.
//!
//! A request that names its call is run in a task of its own, and its answer recorded: whoever asks the same again reads
//! it from the start, while it comes or afterwards. A call that takes long is also claimed in the store, for attempts
//! that reach another process.

mod earlier;
mod lease;

use std::{convert::Infallible, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};

use self::{earlier::Earlier, lease::Lease};
use super::{Body, Call, record, reply};
use crate::{
    app::App,
    idempotency::{Head, Identity, Name, Opened, Reader, Recorder, is_named},
    job::StoredResult,
    problem::{Kind, Problem},
    telemetry::{RequestEvent, RequestOutcome},
    tenant::Retries,
    units::{Millis, UnixMs},
};

/// The header of an answer that another attempt has paid for.
const REPLAYED: &str = "x-spillway-replayed";

/// A request that names its call.
struct Attempt {
    app: App,
    call: Arc<Call>,
    identity: Identity,
    started_ms: u64,
}

/// Answers with what `answer` gives, or with what it gave or will give to another attempt at the same call. A request
/// that names no call is just answered.
///
/// # Errors
/// What to tell the caller.
pub async fn answer<F>(
    app: &App,
    call: &Arc<Call>,
    body: Bytes,
    answer: impl FnOnce(App, Arc<Call>, Bytes) -> F,
) -> Result<Response<Body>, Problem>
where
    F: Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
{
    let parts = &call.head.parts;
    if !is_named(&parts.headers) || call.tenant.retries != Retries::Join {
        return answer(app.clone(), Arc::clone(call), body).await;
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let key = call.preferences.idempotency_key.as_ref();
    let Some(identity) = Identity::for_request(&call.tenant.name, key, &parts.method, target, &parts.headers, &body)
    else {
        return answer(app.clone(), Arc::clone(call), body).await;
    };
    let event = record::event(call);
    let started_ms = app.clock.now_ms();
    match app.recordings.open(&identity) {
        Opened::Full if identity.name == Name::Explicit => Err(refused(app, event, crowded())),
        Opened::Full => answer(app.clone(), Arc::clone(call), body).await,
        Opened::New(recorder, reader) => {
            let answer = answer(app.clone(), Arc::clone(call), body);
            let attempt = Attempt { app: app.clone(), call: Arc::clone(call), identity, started_ms };
            // A caller that goes away finds its answer when it sends the request again.
            tokio::spawn(Box::pin(attempt.record(recorder, answer)));
            respond(reader, None).await
        }
        Opened::Joined(reader) => respond(reader, Some(Replay { app: app.clone(), event, started_ms })).await,
        Opened::OtherPayload => Err(refused(app, event, other_payload())),
    }
}

fn refused(app: &App, event: RequestEvent, problem: Problem) -> Problem {
    app.telemetry.record(event);
    problem
}

fn other_payload() -> Problem {
    let told = "This Idempotency-Key was used for another request. Send each request with a key of its own.";
    Problem { param: Some("Idempotency-Key".to_owned()), ..Problem::new(Kind::Invalid, told) }
}

/// One who asked for a single call cannot be served without a record of it.
fn crowded() -> Problem {
    let told = "Too many calls are under way to remember another Idempotency-Key. Try again.";
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Unavailable, told) }
}

impl Attempt {
    /// Runs the call, unless another process has, and records its answer.
    async fn record(self, recorder: Recorder, answer: impl Future<Output = Result<Response<Body>, Problem>> + Send) {
        let lease = Lease::new(&self.app, &self.identity, self.started_ms);
        match earlier::earlier(&self, &lease).await {
            Ok(Earlier::Answered(stored)) => self.replay(recorder, stored),
            Ok(Earlier::None { is_claimed }) => self.run(recorder, answer, lease, is_claimed).await,
            Err(problem) => {
                refused(&self.app, record::event(&self.call), problem.clone());
                let response = reply::problem(&self.call.head, &problem, self.app.clock.now());
                recorder.forget();
                record_all(&recorder, response).await;
                recorder.end();
            }
        }
    }

    async fn run(
        &self,
        recorder: Recorder,
        answer: impl Future<Output = Result<Response<Body>, Problem>> + Send,
        lease: Lease,
        is_claimed: bool,
    ) {
        let kept = lease.keep(is_claimed);
        let now = || self.app.clock.now();
        let response = answer.await.unwrap_or_else(|problem| reply::problem(&self.call.head, &problem, now()));
        if !response.status().is_success() {
            // Before anybody reads it: the next attempt must run.
            recorder.forget();
            kept.release().await;
            record_all(&recorder, response).await;
            return recorder.end();
        }
        let cut = response.extensions().get::<reply::StreamFailure>().cloned();
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(rest) = copy(&recorder, response).await {
            // Nobody should wait for what will not be stored.
            kept.answer(|| None).await;
            pass_on(&recorder, rest).await;
        } else if cut.is_some_and(|cut| cut.is_failed()) {
            recorder.forget();
            kept.release().await;
        } else {
            // Before the end is sent: Lambda stops the process after it.
            kept.answer(|| Some(stored(status, &headers, recorder.body()?))).await;
        }
        recorder.end();
    }

    /// Records what another process was answered.
    fn replay(&self, recorder: Recorder, stored: StoredResult) {
        let headers = HeaderMap::from(&stored.headers);
        let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut event = record::event(&self.call);
        event.outcome = RequestOutcome::Replayed;
        event.answer_of = request_id(&headers);
        event.duration_ms = self.app.clock.now() - UnixMs::from_ms(self.started_ms);
        self.app.telemetry.record(event);
        recorder.begin(Head { status, headers: replayed(headers), is_stream: false });
        recorder.push(stored.body);
        recorder.end();
    }
}

/// Records a response, up to the end or until it is too large to be kept; then gives the rest of its body.
async fn copy(recorder: &Recorder, response: Response<Body>) -> Option<Body> {
    let (parts, mut body) = response.into_parts();
    let is_stream = body.size_hint().exact().is_none();
    recorder.begin(Head { status: parts.status, headers: parts.headers, is_stream });
    while let Some(chunk) = next(&mut body).await {
        if !recorder.push(chunk) {
            return Some(body);
        }
    }
    None
}

/// Records a response that is not kept.
async fn record_all(recorder: &Recorder, response: Response<Body>) {
    if let Some(rest) = copy(recorder, response).await {
        pass_on(recorder, rest).await;
    }
}

/// Passes the rest of a body on to those who read already, no faster than they do.
async fn pass_on(recorder: &Recorder, mut body: Body) {
    recorder.is_read().await;
    while let Some(chunk) = next(&mut body).await {
        recorder.push(chunk);
        recorder.is_read().await;
    }
}

async fn next(body: &mut Body) -> Option<Bytes> {
    let Ok(frame) = body.frame().await?;
    Some(frame.into_data().unwrap_or_default())
}

fn stored(status: StatusCode, headers: &HeaderMap, body: Bytes) -> StoredResult {
    StoredResult { status: status.as_u16(), headers: headers.into(), body }
}

/// The headers of an answer for somebody else than its first reader: the limits have moved on since.
fn replayed(mut headers: HeaderMap) -> HeaderMap {
    let outdated: Vec<_> = headers.keys().filter(|name| name.as_str().contains("ratelimit")).cloned().collect();
    outdated.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(REPLAYED, http::HeaderValue::from_static("true"));
    headers
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    headers.get("x-request-id")?.to_str().ok().map(str::to_owned)
}

/// An attempt that got another's answer: recorded when it has read all of it, or has gone.
struct Replay {
    app: App,
    event: RequestEvent,
    started_ms: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        let mut event = std::mem::take(&mut self.event);
        event.duration_ms = self.app.clock.now() - UnixMs::from_ms(self.started_ms);
        self.app.telemetry.record(event);
    }
}

/// A response that follows a recording.
async fn respond(mut reader: Reader, mut replay: Option<Replay>) -> Result<Response<Body>, Problem> {
    let head = reader.head().await.ok_or_else(|| Problem::new(Kind::Internal, "The broker failed on this request."))?;
    let headers = match &mut replay {
        Some(replay) => {
            replay.event.answer_of = request_id(&head.headers);
            replay.event.stream = head.is_stream;
            if head.status.is_success() {
                replay.event.outcome = RequestOutcome::Replayed;
            }
            replayed(head.headers)
        }
        None => head.headers,
    };
    let body = if head.is_stream {
        let chunks = stream::unfold((reader, replay), |(mut reader, replay)| async {
            let chunk = reader.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(chunk)), (reader, replay)))
        });
        StreamBody::new(chunks).boxed_unsync()
    } else {
        let mut body = BytesMut::new();
        while let Some(chunk) = reader.next().await {
            body.extend_from_slice(&chunk);
        }
        Full::new(body.freeze()).boxed_unsync()
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (head.status, headers);
    Ok(response)
}
