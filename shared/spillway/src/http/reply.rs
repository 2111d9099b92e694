//! Responses: status, headers and body put together in one place.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use serde_json::Value;

use super::{Body, Head, route};
use crate::{
    broker::{Delta, Deltas},
    dialect::Encoder,
    job::StoredResult,
    problem::{Kind, Problem, RefusedBy},
    units::UnixMs,
};

/// After how much silence a stream sends a sign of life, in milliseconds: proxies drop connections that are silent for a minute.
pub const KEEP_ALIVE_MS: u64 = 15_000;
const KEEP_ALIVE: Duration = Duration::from_millis(KEEP_ALIVE_MS);

/// Whether a stream ended with a problem: an extension of its response, decided when it ends.
#[derive(Debug, Clone, Default)]
pub struct Cut(Arc<AtomicBool>);

impl Cut {
    /// Whether it did, so far.
    pub fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The bytes that end a stream badly.
    pub fn with(&self, end: Bytes) -> Bytes {
        self.0.store(true, Ordering::Relaxed);
        end
    }
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A complete body.
pub fn whole(head: &Head, status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    with_request_id(head, response)
}

/// A JSON body.
pub fn json(head: &Head, status: StatusCode, body: &Value) -> Response<Body> {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    whole(head, status, headers, Bytes::from(body.to_string()))
}

/// A failure, in the caller's dialect.
pub fn problem(head: &Head, problem: &Problem, now_ms: u64) -> Response<Body> {
    let rendered = head.dialect.problem(&head.request_id, problem);
    let mut headers = rendered.headers;
    let limit_states = match &problem.refused_by {
        Some(RefusedBy::Limits(exceeded)) => &exceeded.limit_states[..],
        Some(RefusedBy::Pools) | None => &[],
    };
    headers.extend(head.dialect.limit_headers(limit_states, UnixMs::from_ms(now_ms)));
    if problem.kind == Kind::MethodNotAllowed {
        headers.extend(header("allow", &route::methods(head.parts.uri.path())));
    }
    whole(head, rendered.status, headers, rendered.body)
}

/// A body that follows the model: each event as soon as it is here, a sign of life when it is silent, and a
/// well-formed end, whatever happens.
pub fn stream(
    head: &Head,
    headers: Vec<(HeaderName, HeaderValue)>,
    encoder: Encoder,
    deltas: Deltas,
) -> Response<Body> {
    let cut = Cut::default();
    let chunks = stream::unfold(Some((encoder, deltas, cut.clone())), |open| async {
        let (mut encoder, mut deltas, cut) = open?;
        loop {
            let (bytes, is_open) = match tokio::time::timeout(KEEP_ALIVE, deltas.recv()).await {
                Err(_) => (encoder.keep_alive(), true),
                Ok(Some(Delta::Event(event))) => (encoder.event(&event), true),
                Ok(Some(Delta::End(Ok(())))) => (encoder.finish(), false),
                Ok(Some(Delta::End(Err(problem)))) => (cut.with(encoder.problem(&problem)), false),
                Ok(None) => (cut.with(encoder.problem(&too_slow())), false),
            };
            if !is_open {
                return Some((Ok(Frame::data(bytes)), None));
            }
            if !bytes.is_empty() {
                return Some((Ok(Frame::data(bytes)), Some((encoder, deltas, cut))));
            }
        }
    });
    let mut response = streamed(head, headers, chunks);
    response.extensions_mut().insert(cut);
    response
}

/// A body that comes in chunks.
pub fn streamed(
    head: &Head,
    headers: Vec<(HeaderName, HeaderValue)>,
    chunks: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().extend(headers);
    with_request_id(head, response)
}

/// The answer to a job.
pub fn stored(head: &Head, stored: StoredResult, more: Vec<(HeaderName, HeaderValue)>) -> Response<Body> {
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers: Vec<_> = stored.headers.parse().collect();
    headers.extend(more);
    whole(head, status, headers, stored.body)
}

fn too_slow() -> Problem {
    Problem::new(Kind::Timeout, "The answer was not read in the time that the model may take.")
}

/// A header, unless its value cannot be one.
pub fn header(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(value).ok().map(|value| (HeaderName::from_static(name), value))
}

fn with_request_id(head: &Head, mut response: Response<Body>) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&head.request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
    use bytes::BytesMut;
    use http::Request;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        chat::StreamEvent,
        dialect::{AnswerContext, Api, Echo},
    };

    const WHOLE: [&str; 4] = ["messageStart", "contentBlockDelta", "messageStop", "metadata"];

    /// What a caller reads of a stream of these events, each after a silence.
    async fn read_slowly(
        api: Api,
        names: &[&'static str],
        end: Option<Result<(), Problem>>,
        silence: Duration,
    ) -> Bytes {
        let (parts, ()) = Request::new(()).into_parts();
        let head = Head { parts, dialect: api.dialect(), request_id: "r".into(), deadline_ms: None };
        let context = AnswerContext {
            request_id: "r".into(),
            model: "m".into(),
            created_at: UnixMs::default(),
            echo: Echo::default(),
        };
        let (sender, deltas) = mpsc::channel(8);
        let names = names.to_vec();
        tokio::spawn(async move {
            for name in names {
                tokio::time::sleep(silence).await;
                let event = StreamEvent::Converse { name: name.into(), payload: serde_json::json!({}) };
                sender.send(Delta::Event(event)).await.expect("a reader");
            }
            if let Some(end) = end {
                sender.send(Delta::End(end)).await.expect("a reader");
            }
        });
        let body = stream(&head, Vec::new(), api.stream(context), deltas).into_body().collect().await;
        body.expect("no errors").to_bytes()
    }

    async fn read(api: Api, names: &[&'static str], end: Option<Result<(), Problem>>) -> String {
        String::from_utf8_lossy(&read_slowly(api, names, end, Duration::ZERO).await).into_owned()
    }

    #[tokio::test]
    async fn a_stream_that_lost_its_end_is_never_passed_off_as_complete() {
        for api in [Api::ChatCompletions, Api::Responses, Api::Messages] {
            let cut = read(api, &["messageStart", "contentBlockDelta"], None).await;
            assert!(cut.contains(r#""error":{"#), "{cut}");
            let whole = read(api, &WHOLE, Some(Ok(()))).await;
            assert!(!whole.contains(r#""error":{"#), "{whole}");
        }
    }

    /// The types of the events in an event stream.
    fn types(bytes: &[u8]) -> Vec<String> {
        let (mut bytes, mut decoder, mut types) = (BytesMut::from(bytes), MessageFrameDecoder::new(), Vec::new());
        while let Ok(DecodedFrame::Complete(message)) = decoder.decode_frame(&mut bytes) {
            let header = message.headers().iter().find(|header| header.name().as_str() == ":event-type");
            types.push(header.expect("a type").value().as_string().expect("text").as_str().to_owned());
        }
        assert!(bytes.is_empty(), "a broken frame");
        types
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_gives_a_sign_of_life_every_fifteen_seconds() {
        let silence = KEEP_ALIVE * 2 + Duration::from_secs(1);
        for (api, sign) in [(Api::ChatCompletions, ": keep-alive\n\n"), (Api::Messages, "event: ping\n")] {
            let read = read_slowly(api, &WHOLE, Some(Ok(())), silence).await;
            let text = String::from_utf8_lossy(&read);
            assert_eq!(text.matches(sign).count(), 2 * WHOLE.len(), "{text}");
        }
        let read = read_slowly(Api::Converse, &WHOLE, Some(Ok(())), silence).await;
        let expected: Vec<&str> = WHOLE.iter().flat_map(|name| ["keepAlive", "keepAlive", name]).collect();
        assert_eq!(types(&read), expected);
        let lively = read_slowly(Api::Converse, &WHOLE, Some(Ok(())), Duration::from_secs(14)).await;
        assert_eq!(types(&lively), WHOLE);
    }
}
