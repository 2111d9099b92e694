//! Reads the event stream of a reply, frame by frame.

use std::{borrow::Cow, collections::VecDeque, pin::Pin, time::Duration};

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_types::{body::SdkBody, event_stream::Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, carrier::Headers, failure::NO_REASON};
use crate::chat::Event;

/// How long a stream may be silent between two events. The SDK would wait for ever.
const IDLE: Duration = Duration::from_secs(120);

/// The events of one answer.
#[derive(Debug)]
pub struct EventStream {
    body: Pin<Box<SdkBody>>,
    decoder: MessageFrameDecoder,
    buffer: BytesMut,
    peeked: VecDeque<Event>,
    headers: Headers,
}

impl EventStream {
    pub(super) fn new(headers: Headers, body: SdkBody) -> Self {
        Self {
            headers,
            body: Box::pin(body),
            decoder: MessageFrameDecoder::new(),
            buffer: BytesMut::new(),
            peeked: VecDeque::new(),
        }
    }

    /// The headers of the reply that its caller may want (`x-amzn-bedrock-*`).
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Waits for the first event, which [`next`](Self::next) then gives again. Until it is here nothing was delivered,
    /// and a stream that fails at once can still be replaced by another pool's.
    ///
    /// # Errors
    /// The stream failed or ended.
    pub async fn peek(&mut self) -> Result<(), Failure> {
        match self.read().await? {
            Some(event) => self.peeked.push_back(event),
            None => return Err(Failure::broken("the stream was empty")),
        }
        Ok(())
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream broke, carried an exception, or stayed silent too long.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        match self.peeked.pop_front() {
            Some(event) => Ok(Some(event)),
            None => tokio::time::timeout(IDLE, self.read()).await.map_err(|_| Failure::timed_out())?,
        }
    }

    async fn read(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            match self.decoder.decode_frame(&mut self.buffer) {
                Ok(DecodedFrame::Complete(message)) => return event(&message).map(Some),
                Ok(DecodedFrame::Incomplete) => {}
                Err(_) => return Err(Failure::broken("the stream had a damaged frame")),
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(data.chunk());
                    }
                }
                Some(Err(_)) => return Err(Failure::broken("the stream was cut")),
                None if self.buffer.has_remaining() => {
                    return Err(Failure::broken("the stream was cut inside a frame"));
                }
                None => return Ok(None),
            }
        }
    }
}

fn event(message: &Message) -> Result<Event, Failure> {
    let header = |name: &str| {
        message
            .headers()
            .iter()
            .find(|header| header.name().as_str() == name)
            .and_then(|header| header.value().as_string().ok())
            .map(|value| value.as_str().to_owned())
    };
    let payload = || serde_json::from_slice::<Value>(message.payload());
    if header(":message-type").as_deref() != Some("event") {
        let name = header(":exception-type").or_else(|| header(":error-code")).unwrap_or_default();
        let body = payload().unwrap_or_default();
        let told = body.get("message").and_then(Value::as_str).unwrap_or(NO_REASON);
        return Err(Failure::in_stream(&name, told));
    }
    let broken = || Failure::broken("the stream had an event without a type or with a broken payload");
    let name = header(":event-type").ok_or_else(broken)?;
    match name.as_str() {
        "chunk" => native(message.payload()),
        _ => Ok(Event::Converse { name, payload: payload().map_err(|_| broken())? }),
    }
}

/// A chunk of InvokeModelWithResponseStream, which carries the model's own bytes in base64.
fn native(payload: &[u8]) -> Result<Event, Failure> {
    #[derive(Deserialize)]
    struct Chunk<'c> {
        // Base64 needs no escapes, but JSON may have them.
        #[serde(borrow)]
        bytes: Cow<'c, str>,
    }
    let chunk: Option<Chunk> = serde_json::from_slice(payload).ok();
    let bytes = chunk.and_then(|chunk| STANDARD.decode(chunk.bytes.as_bytes()).ok());
    bytes.map(|bytes| Event::Native(bytes.into())).ok_or_else(|| Failure::broken("the stream had a damaged chunk"))
}
