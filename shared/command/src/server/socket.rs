//! A socket whose writes end with an error if the client does not read.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    connections::{Place, Work},
    wait::{Pace, Wait},
};

/// A socket. A write that waits for the client counts as work of the connection.
pub struct TimedSocket<S> {
    socket: S,
    place: Arc<Place>,
    wait: Wait,
    blocked: Option<Work>,
}

impl<S: Unpin> TimedSocket<S> {
    pub fn new(socket: S, place: Arc<Place>, pace: Pace) -> Self {
        Self { socket, place, wait: Wait::new(pace), blocked: None }
    }

    fn socket(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().socket)
    }

    fn written(&mut self, context: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = result {
            self.wait.end(*result.as_ref().unwrap_or(&0));
            self.blocked = None;
            return Poll::Ready(result);
        }
        self.blocked.get_or_insert_with(|| self.place.write());
        self.wait.begin();
        ready!(self.wait.poll_too_long(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedSocket<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.as_mut().socket().poll_write(context, buffer);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.as_mut().socket().poll_write_vectored(context, buffers);
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(context)
    }
}
