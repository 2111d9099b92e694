//! The progress of an upload.
//!
//! The SDK passes a body to the connection as a whole, so nothing shows how much of it was sent.
//! This interceptor divides the body into chunks, after it was signed. The connection takes the
//! next chunk when there is room for it, and each time is a progress.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeTransmitInterceptorContextMut},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Maximum size of a chunk.
const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// An upload of one body. Clones observe the same upload.
#[derive(Debug, Clone)]
pub(super) struct ObservedUpload {
    body: Bytes,
    progressed_at: Arc<Mutex<Option<Instant>>>,
}

impl ObservedUpload {
    /// The upload of `body`, which must be the body of the request.
    pub(super) fn of(body: Bytes) -> Self {
        Self { body, progressed_at: Arc::default() }
    }

    /// Returns the time when the connection took the last chunk.
    pub(super) fn progressed_at(&self) -> Option<Instant> {
        *self.progressed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_progress(&self) {
        *self.progressed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

impl Intercept for ObservedUpload {
    fn name(&self) -> &'static str {
        "ObservedUpload"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request_mut().body_mut();
        // The SDK may have encoded the body otherwise.
        if body.bytes().is_some_and(|bytes| bytes.len() == self.body.len()) {
            let chunks = Chunks { upload: self.clone(), rest: self.body.clone() };
            *body = SdkBody::from_body_1_x(chunks);
        }
        Ok(())
    }
}

/// The body of one attempt.
struct Chunks {
    upload: ObservedUpload,
    rest: Bytes,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.upload.note_progress();
        let length = self.rest.len().min(MAX_CHUNK_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
