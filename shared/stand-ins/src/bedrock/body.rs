//! The body of a response: complete, or fed by a call that runs on whether or not anybody still reads.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// What hyper sends to the client.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Fed { pieces: mpsc::UnboundedReceiver<Piece>, cut: bool },
}

/// What a call feeds into a body.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The connection breaks here.
    Cut,
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    pub fn fed() -> (mpsc::UnboundedSender<Piece>, Self) {
        let (feed, pieces) = mpsc::unbounded_channel();
        (feed, Self::Fed { pieces, cut: false })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Fed { cut: true, .. } => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            Self::Fed { pieces, cut } => match ready!(pieces.poll_recv(cx)) {
                None => Poll::Ready(None),
                Some(Piece::Bytes(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Piece::Cut) => {
                    // hyper flushes what it has when a body pauses, and throws it away when a body fails.
                    *cut = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Fed { .. } => http_body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}
