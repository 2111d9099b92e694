//! HTTP response body: complete, or streamed by a call that continues even if the client
//! disconnects.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// Body that hyper sends to the client.
pub(super) enum ResponseBody {
    Complete(Option<Bytes>),
    Streamed { chunks: mpsc::UnboundedReceiver<BodyChunk>, is_cut: bool },
}

/// A part of a streamed body.
pub(super) enum BodyChunk {
    Bytes(Bytes),
    /// Closes the connection.
    Disconnect,
}

impl ResponseBody {
    /// Creates a complete body.
    pub fn complete(bytes: impl Into<Bytes>) -> Self {
        Self::Complete(Some(bytes.into()))
    }

    /// Creates a streamed body and the sender of its chunks.
    pub fn streamed() -> (mpsc::UnboundedSender<BodyChunk>, Self) {
        let (sender, chunks) = mpsc::unbounded_channel();
        (sender, Self::Streamed { chunks, is_cut: false })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Complete(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { is_cut: true, .. } => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            Self::Streamed { chunks, is_cut } => match ready!(chunks.poll_recv(cx)) {
                None => Poll::Ready(None),
                Some(BodyChunk::Bytes(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(BodyChunk::Disconnect) => {
                    // hyper flushes its buffer when a body is pending and discards it when a body
                    // fails.
                    *is_cut = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Complete(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Streamed { .. } => http_body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Complete(None))
    }
}
