//! Reads the event stream of a reply, frame by frame.

use std::{borrow::Cow, collections::VecDeque, pin::Pin, time::Duration};

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_types::{body::SdkBody, event_stream::Message};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use super::{Failure, failure::NO_REASON};
use crate::{chat::StreamEvent, connections::CallInProgress, stored_headers::StoredHeaders, units::Millis};

/// The events of one answer.
#[derive(Debug)]
pub struct EventStream {
    body: Pin<Box<SdkBody>>,
    decoder: MessageFrameDecoder,
    buffer: BytesMut,
    peeked: VecDeque<StreamEvent>,
    headers: StoredHeaders,
    /// Maximum time between two events. The SDK alone would wait forever.
    idle_timeout: Duration,
    _in_progress: CallInProgress,
}

impl EventStream {
    pub(super) fn new(
        headers: StoredHeaders,
        body: SdkBody,
        idle_timeout: Millis,
        in_progress: CallInProgress,
    ) -> Self {
        Self {
            headers,
            _in_progress: in_progress,
            idle_timeout: idle_timeout.into(),
            body: Box::pin(body),
            decoder: MessageFrameDecoder::new(),
            buffer: BytesMut::new(),
            peeked: VecDeque::new(),
        }
    }

    /// The headers of the reply that the caller may want (`x-amzn-bedrock-*`).
    pub fn headers(&self) -> &StoredHeaders {
        &self.headers
    }

    /// Waits for the first event, which [`next`](Self::next) then returns. Nothing is delivered
    /// before, so another pool can still replace a stream that fails immediately.
    ///
    /// # Errors
    /// Returns an error if the stream fails or ends.
    pub async fn peek(&mut self) -> Result<(), Failure> {
        match self.read().await? {
            Some(event) => self.peeked.push_back(event),
            None => return Err(Failure::broken("the stream was empty")),
        }
        Ok(())
    }

    /// Returns the next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// Returns an error if the stream breaks, carries an exception, or stays silent too long.
    pub async fn next(&mut self) -> Result<Option<StreamEvent>, Failure> {
        match self.peeked.pop_front() {
            Some(event) => Ok(Some(event)),
            None => tokio::time::timeout(self.idle_timeout, self.read()).await.map_err(|_| Failure::silent())?,
        }
    }

    async fn read(&mut self) -> Result<Option<StreamEvent>, Failure> {
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
                Some(Err(_)) => return Err(Failure::disconnected("the stream was cut")),
                None if self.buffer.has_remaining() => {
                    return Err(Failure::broken("the stream was cut inside a frame"));
                }
                None => return Ok(None),
            }
        }
    }
}

fn event(message: &Message) -> Result<StreamEvent, Failure> {
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
        let message = body.get("message").and_then(Value::as_str).unwrap_or(NO_REASON);
        return Err(Failure::from_stream_exception(&name, message));
    }
    let broken = || Failure::broken("the stream had an event without a type or with a broken payload");
    let name = header(":event-type").ok_or_else(broken)?;
    match name.as_str() {
        "chunk" => native(message.payload()),
        _ => Ok(StreamEvent::Converse { name, payload: payload().map_err(|_| broken())? }),
    }
}

/// Reads a chunk of InvokeModelWithResponseStream, which carries the model's own bytes in base64.
fn native(payload: &[u8]) -> Result<StreamEvent, Failure> {
    #[derive(Deserialize)]
    struct ChunkPayload<'c> {
        // Base64 needs no escapes, but JSON may have them.
        #[serde(borrow)]
        bytes: Cow<'c, str>,
    }
    let chunk: Option<ChunkPayload> = serde_json::from_slice(payload).ok();
    let bytes = chunk.and_then(|chunk| STANDARD.decode(chunk.bytes.as_bytes()).ok());
    bytes
        .map(|bytes| StreamEvent::Native(bytes.into()))
        .ok_or_else(|| Failure::broken("the stream had a damaged chunk"))
}
