//! A stream whose first bytes were already read.
//!
//! Ground. `detect` reads to see what a connection speaks; whoever carries the
//! connection on (TLS, HTTP/2) reads those bytes again from here, then the
//! stream itself. Writes go straight through, vectored ones too: a wrapper
//! that hides `is_write_vectored` costs a record for each slice.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
#[cfg(test)]
use tokio::io::AsyncReadExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    prefix: BytesMut,
    stream: S,
}

impl<S> Prefixed<S> {
    /// Serves `prefix` before anything that is still in `stream`.
    pub(crate) fn new(prefix: BytesMut, stream: S) -> Self {
        Self { prefix, stream }
    }

    #[cfg(test)]
    /// What is still to be served before the stream's own bytes.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    #[cfg(test)]
    /// Reads once more from the stream behind the prefix; 0 is the end.
    ///
    /// # Errors
    /// The stream's own.
    pub(crate) async fn peek_more(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.prefix).await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        let now = this.prefix.len().min(into.remaining());
        into.put_slice(&this.prefix.split_to(now));
        if !this.prefix.has_remaining() {
            // A connection lives long; its first bytes need not.
            this.prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_prefix_comes_first_and_nothing_is_lost() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b"cd").await.unwrap();
        let mut stream = Prefixed::new(BytesMut::from(&b"a"[..]), near);
        assert_eq!(stream.peek_more().await.unwrap(), 2);
        assert_eq!(stream.prefix(), b"acd");
        far.write_all(b"ef").await.unwrap();
        drop(far);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"acdef");
    }

    #[tokio::test]
    async fn a_small_reader_gets_the_prefix_in_pieces() {
        let (far, near) = tokio::io::duplex(64);
        drop(far);
        let mut stream = Prefixed::new(BytesMut::from(&b"abc"[..]), near);
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"ab");
        assert_eq!(stream.prefix(), b"c");
    }
}
