//! A connection whose peer must take what we write: one that takes nothing for a while is closed.
//!
//! Without it a peer that stops reading holds its connection, and what waits in it, for ever: neither the
//! deadline of the headers nor that of the body looks at writing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a write may wait for its peer.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A connection with a limit on stalled writes.
#[derive(Debug)]
pub struct Stalling<S> {
    stream: S,
    /// Made when a write waits for the first time, which most connections never see.
    limit: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl<S> Stalling<S> {
    /// Watches `stream`.
    pub fn new(stream: S) -> Stalling<S> {
        Stalling { stream, limit: None, is_waiting: false }
    }

    /// Passes a write's outcome on, unless it has waited too long.
    fn watched<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_waiting = false;
            return outcome;
        }
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(STALL_MAX)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            limit.as_mut().reset(Instant::now() + STALL_MAX);
        }
        match limit.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watched(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
