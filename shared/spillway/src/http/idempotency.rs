//! Idempotency of model calls: attempts at one call share one answer and one charge.
//!
//! A request takes these steps:
//!
//! 1. [`answer`] determines the identity of the call. A request without one runs directly, and so
//!    does every request of a tenant with `retries = "run"`.
//! 2. The request joins the calls of this process. A follower reads the leader's answer from the
//!    start, and is done.
//! 3. The leader runs in a separate task, so a caller that disconnects does not cancel the call.
//!    The leader's own caller reads the answer like a follower.
//! 4. If the request may be a retry, the leader looks in the store for an attempt of another
//!    process, and waits while it runs ([`earlier_attempt`]). A stored answer is replayed. With an
//!    `Idempotency-Key`, the leader claims the call before it runs.
//! 5. The leader runs the call, and claims it after a delay ([`lease`]), unless a stream has begun.
//! 6. If a retry may need it, a successful answer is stored before its end is sent. A failure is
//!    forgotten, so that the next attempt runs.
//!
//! A replay counts as a request that calls no model, and so does a follower.

mod earlier_attempt;
mod lease;

use std::{convert::Infallible, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};

use self::lease::Lease;
use super::{Body, Call, record, reply, streaming::StreamFailure};
use crate::{
    allowance,
    app::App,
    connections::spawn_for_caller,
    idempotency::{
        CallIdentity, JoinOutcome, KeySource, ResponseHead, ResponseReader, ResponseWriter, has_retry_headers,
    },
    job::StoredResult,
    problem::{Kind, Problem},
    telemetry::{RequestEvent, RequestOutcome},
    tenant::Retries,
    units::{Millis, UnixMs},
};

/// Header of an answer that another attempt was charged for.
const REPLAYED: &str = "x-spillway-replayed";

/// The attempt that runs the call in this process.
struct Leader {
    app: App,
    call: Arc<Call>,
    identity: CallIdentity,
    started: UnixMs,
}

/// Answers a request by `run`, or with the answer of another attempt at the same call.
///
/// # Errors
/// Returns the problem to report to the caller.
pub async fn answer<F>(
    app: &App,
    call: &Arc<Call>,
    body: Bytes,
    run: impl FnOnce(App, Arc<Call>, Bytes) -> F,
) -> Result<Response<Body>, Problem>
where
    F: Future<Output = Result<Response<Body>, Problem>> + Send + 'static,
{
    let parts = &call.head.parts;
    if !has_retry_headers(&parts.headers) || call.tenant.retries != Retries::Join {
        return run(app.clone(), Arc::clone(call), body).await;
    }
    let key = call.preferences.idempotency_key.as_ref();
    let Some(identity) = CallIdentity::for_request(&call.tenant.name, key, parts, &body) else {
        return run(app.clone(), Arc::clone(call), body).await;
    };
    let event = record::event(call);
    let started = app.clock.now();
    match app.shared_calls.join(&call.tenant.name, &identity) {
        JoinOutcome::Full if identity.source == KeySource::Explicit => Err(failed(app, call, event, too_many_calls())),
        JoinOutcome::Full => run(app.clone(), Arc::clone(call), body).await,
        JoinOutcome::Leader(writer, reader) => {
            let running = run(app.clone(), Arc::clone(call), body);
            let leader = Leader { app: app.clone(), call: Arc::clone(call), identity, started };
            spawn_for_caller(Box::pin(leader.write_answer(writer, running)));
            respond(reader, None).await
        }
        JoinOutcome::Follower(reader) => match allowance::admit_request(app, &call.tenant).await {
            Ok(()) => respond(reader, Some(FollowerEvent { app: app.clone(), event, started })).await,
            Err(problem) => Err(failed(app, call, event, problem)),
        },
        JoinOutcome::KeyReused => Err(failed(app, call, event, key_reused())),
    }
}

/// Records the event of a request that ends with `problem`.
fn failed(app: &App, call: &Call, mut event: RequestEvent, problem: Problem) -> Problem {
    record::fail(&mut event, &call.head, &problem);
    app.telemetry.record(event);
    problem
}

fn key_reused() -> Problem {
    let message = "This Idempotency-Key was used for a different request. Send each request with a new key.";
    Problem { param: Some("Idempotency-Key".to_owned()), ..Problem::new(Kind::Invalid, message) }
}

/// Without a place among the shared calls, nothing ensures that the call runs only once.
fn too_many_calls() -> Problem {
    let message = "Too many calls are running to track another Idempotency-Key. Try again in a second.";
    Problem { retry_after: Some(Millis::from_s(1)), ..Problem::new(Kind::Unavailable, message) }
}

impl Leader {
    /// Writes the answer: the stored answer of another process, or else the result of `running`.
    async fn write_answer(
        self,
        writer: ResponseWriter,
        running: impl Future<Output = Result<Response<Body>, Problem>> + Send,
    ) {
        let mut lease = Lease::new(&self.app, &self.identity, self.started);
        match self.find_answer(&mut lease).await {
            Ok(Some(stored)) => self.replay(writer, stored),
            Ok(None) => self.run(writer, running, lease).await,
            Err(problem) => {
                let problem = failed(&self.app, &self.call, record::event(&self.call), problem);
                writer.forget();
                write(&writer, self.problem_response(&problem)).await;
                writer.end();
            }
        }
    }

    /// Returns the stored answer of an earlier attempt, if any, and admits the replay of it.
    async fn find_answer(&self, lease: &mut Lease) -> Result<Option<StoredResult>, Problem> {
        let found = earlier_attempt::find_answer(self, lease).await?;
        if found.is_some() {
            allowance::admit_request(&self.app, &self.call.tenant).await?;
        }
        Ok(found)
    }

    async fn run(
        &self,
        writer: ResponseWriter,
        running: impl Future<Output = Result<Response<Body>, Problem>> + Send,
        lease: Lease,
    ) {
        let lease = lease.renew();
        let response = running.await.unwrap_or_else(|problem| self.problem_response(&problem));
        if !response.status().is_success() {
            // Forgotten before a caller reads it, so that a retry of that caller runs.
            writer.forget();
            lease.release().await;
            write(&writer, response).await;
            return writer.end();
        }
        let failure = response.extensions().get::<StreamFailure>().cloned();
        let (status, headers) = (response.status(), response.headers().clone());
        let begin_stream = || lease.begin_stream(self.app.clock.now());
        if let Some(rest) = write_replayable(&writer, response, begin_stream).await {
            // Stored as too large before the rest is sent, so that no retry waits for it.
            lease.end(|| None).await;
            pass_through(&writer, rest).await;
        } else if failure.is_some_and(|failure| failure.is_failed()) {
            writer.forget();
            lease.release().await;
        } else {
            // Stored before the end is sent, because Lambda stops the process after the end.
            lease.end(|| Some(stored_result(status, &without_limits(headers), writer.body()?))).await;
        }
        writer.end();
    }

    /// Writes the answer of another process.
    fn replay(&self, writer: ResponseWriter, stored: StoredResult) {
        let headers = HeaderMap::from(&stored.headers);
        let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut event = record::event(&self.call);
        event.outcome = RequestOutcome::Replayed;
        event.status = Some(status.as_u16());
        event.answer_of = request_id(&headers);
        record::end(&self.app, event, self.started);
        writer.begin(ResponseHead { status, headers: replayed_headers(headers), is_stream: false });
        writer.push(stored.body);
        writer.end();
    }

    fn problem_response(&self, problem: &Problem) -> Response<Body> {
        reply::problem(&self.call.head, problem, self.app.clock.now())
    }
}

/// Writes a response to its end.
async fn write(writer: &ResponseWriter, response: Response<Body>) {
    if let Some(rest) = write_replayable(writer, response, || {}).await {
        pass_through(writer, rest).await;
    }
}

/// Writes a response as long as it can be replayed. Returns the rest of its body if it exceeds a
/// bound before its end. Calls `begin_stream` after the first chunk of a stream.
async fn write_replayable(
    writer: &ResponseWriter,
    response: Response<Body>,
    begin_stream: impl FnOnce(),
) -> Option<Body> {
    let (parts, mut body) = response.into_parts();
    let is_stream = body.size_hint().exact().is_none();
    writer.begin(ResponseHead { status: parts.status, headers: parts.headers, is_stream });
    let mut begin_stream = Some(begin_stream).filter(|_| is_stream);
    while let Some(chunk) = next(&mut body).await {
        let is_replayable = writer.push(chunk);
        begin_stream.take().into_iter().for_each(|begin| begin());
        if !is_replayable {
            return Some(body);
        }
    }
    None
}

/// Passes the rest of a body on to the present readers, at the pace of the slowest of them.
async fn pass_through(writer: &ResponseWriter, mut body: Body) {
    writer.wait_for_readers().await;
    while let Some(chunk) = next(&mut body).await {
        writer.push(chunk);
        writer.wait_for_readers().await;
    }
}

async fn next(body: &mut Body) -> Option<Bytes> {
    let Ok(frame) = body.frame().await?;
    Some(frame.into_data().unwrap_or_default())
}

fn stored_result(status: StatusCode, headers: &HeaderMap, body: Bytes) -> StoredResult {
    StoredResult { status: status.as_u16(), headers: headers.into(), body }
}

/// Removes the limits, which change until the answer is replayed.
fn without_limits(mut headers: HeaderMap) -> HeaderMap {
    let limits: Vec<_> = headers.keys().filter(|name| name.as_str().contains("ratelimit")).cloned().collect();
    limits.iter().for_each(|name| drop(headers.remove(name)));
    headers
}

/// Returns the headers of a replayed answer.
fn replayed_headers(headers: HeaderMap) -> HeaderMap {
    let mut headers = without_limits(headers);
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    headers
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    headers.get("x-request-id")?.to_str().ok().map(str::to_owned)
}

/// Event of a follower. Dropping it records it: the follower has read the whole answer or has
/// disconnected.
struct FollowerEvent {
    app: App,
    event: RequestEvent,
    started: UnixMs,
}

impl Drop for FollowerEvent {
    fn drop(&mut self) {
        record::end(&self.app, std::mem::take(&mut self.event), self.started);
    }
}

/// Returns a response that follows the answer that `reader` reads. `follower` is the event of a
/// follower.
async fn respond(mut reader: ResponseReader, mut follower: Option<FollowerEvent>) -> Result<Response<Body>, Problem> {
    let head = reader.head().await.ok_or_else(|| Problem::new(Kind::Internal, "The broker failed on this request."))?;
    let headers = match &mut follower {
        Some(follower) => {
            follower.event.answer_of = request_id(&head.headers);
            follower.event.stream = head.is_stream;
            follower.event.status = Some(head.status.as_u16());
            if head.status.is_success() {
                follower.event.outcome = RequestOutcome::Replayed;
            }
            replayed_headers(head.headers)
        }
        None => head.headers,
    };
    let body = if head.is_stream {
        let chunks = stream::unfold((reader, follower), |(mut reader, follower)| async {
            let chunk = reader.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(chunk)), (reader, follower)))
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
