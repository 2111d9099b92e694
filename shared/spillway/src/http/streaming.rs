//! Responses that stream: each event as it arrives, and keep-alives during silence.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{Body, Head, reply};
use crate::{
    broker::{Delta, Deltas},
    dialect::Encoder,
    problem::{Kind, Problem},
    units::Millis,
};

/// Silence after which a stream sends a keep-alive. Proxies close connections that are silent for a
/// minute.
pub const KEEP_ALIVE: Millis = Millis::from_s(15);

/// Whether a stream has ended with a problem. An extension of its response, because the status is
/// sent before the end is known.
#[derive(Debug, Clone, Default)]
pub struct StreamFailure(Arc<AtomicBool>);

impl StreamFailure {
    /// Whether the stream has failed so far.
    pub fn is_failed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Marks the stream as failed, and returns its last bytes.
    pub fn end(&self, encoder: &mut Encoder, problem: &Problem) -> Bytes {
        self.0.store(true, Ordering::Relaxed);
        encoder.problem(problem)
    }
}

/// Builds a response that streams the model's answer: each event as it arrives, a keep-alive during
/// silence, and a well-formed end in any case.
pub fn from_model(
    head: &Head,
    headers: Vec<(HeaderName, HeaderValue)>,
    encoder: Encoder,
    deltas: Deltas,
) -> Response<Body> {
    let failed = StreamFailure::default();
    let next = |(mut encoder, mut deltas, failed): (Encoder, Deltas, StreamFailure)| async {
        loop {
            let (bytes, is_open) = match tokio::time::timeout(KEEP_ALIVE.into(), deltas.recv()).await {
                Err(_) => (encoder.keep_alive(), true),
                Ok(Some(Delta::Event(event))) => (encoder.event(&event), true),
                Ok(Some(Delta::End(Ok(())))) => (encoder.finish(), false),
                Ok(Some(Delta::End(Err(problem)))) => (failed.end(&mut encoder, &problem), false),
                Ok(None) => (failed.end(&mut encoder, &too_slow()), false),
            };
            if !is_open {
                return (bytes, None);
            }
            if !bytes.is_empty() {
                return (bytes, Some((encoder, deltas, failed)));
            }
        }
    };
    let mut response = from_source(head, headers, (encoder, deltas, failed.clone()), next);
    response.extensions_mut().insert(failed);
    response
}

/// Builds a response whose body arrives in chunks. `next` waits for the next chunk of `source`, and
/// returns the source until the chunk is the last.
pub fn from_source<S, F>(
    head: &Head,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: S,
    next: impl Fn(S) -> F + Send + 'static,
) -> Response<Body>
where
    S: Send + 'static,
    F: Future<Output = (Bytes, Option<S>)> + Send + 'static,
{
    let chunks = stream::unfold(Some(source), move |source| {
        let next = source.map(&next);
        async move {
            let (bytes, source) = next?.await;
            Some((Ok::<_, Infallible>(Frame::data(bytes)), source))
        }
    });
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().extend(headers);
    reply::with_request_id(head, response)
}

fn too_slow() -> Problem {
    Problem::new(Kind::Timeout, "The answer was not read before the deadline of the call.")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
    use bytes::BytesMut;
    use http::Request;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        chat::StreamEvent,
        dialect::{AnswerContext, Api, Echo},
        units::UnixMs,
    };

    const WHOLE: [&str; 4] = ["messageStart", "contentBlockDelta", "messageStop", "metadata"];

    /// The body of a stream of these events, each after a silence.
    async fn read_slowly(
        api: Api,
        names: &[&'static str],
        end: Option<Result<(), Problem>>,
        silence: Duration,
    ) -> Bytes {
        let (parts, ()) = Request::new(()).into_parts();
        let head = Head {
            parts,
            dialect: api.dialect(),
            request_id: "r".into(),
            base_path: String::new(),
            deadline: None,
            silence_ends_at: None,
        };
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
        let body = from_model(&head, Vec::new(), api.stream(context), deltas).into_body().collect().await;
        body.expect("no errors").to_bytes()
    }

    async fn read(api: Api, names: &[&'static str], end: Option<Result<(), Problem>>) -> String {
        String::from_utf8_lossy(&read_slowly(api, names, end, Duration::ZERO).await).into_owned()
    }

    #[tokio::test]
    async fn a_stream_without_an_end_ends_with_an_error() {
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
    async fn a_silent_stream_sends_a_keep_alive_every_fifteen_seconds() {
        let silence = Duration::from(KEEP_ALIVE * 2 + Millis::from_s(1));
        for (api, keep_alive) in [(Api::ChatCompletions, ": keep-alive\n\n"), (Api::Messages, "event: ping\n")] {
            let read = read_slowly(api, &WHOLE, Some(Ok(())), silence).await;
            let text = String::from_utf8_lossy(&read);
            assert_eq!(text.matches(keep_alive).count(), 2 * WHOLE.len(), "{text}");
        }
        let read = read_slowly(Api::Converse, &WHOLE, Some(Ok(())), silence).await;
        let expected: Vec<&str> = WHOLE.iter().flat_map(|name| ["keepAlive", "keepAlive", name]).collect();
        assert_eq!(types(&read), expected);
        let without_silence = read_slowly(Api::Converse, &WHOLE, Some(Ok(())), Duration::from_secs(14)).await;
        assert_eq!(types(&without_silence), WHOLE);
    }
}
