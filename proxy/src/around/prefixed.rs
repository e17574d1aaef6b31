//! A stream whose first bytes were already read.
//!
//! Part of `around`. `detect` reads to see what a connection speaks; whoever
//! carries the connection on (TLS, HTTP/2) reads those bytes again from here,
//! then the stream itself.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
#[cfg(test)]
use tokio::io::AsyncReadExt as _;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Around, Reading};

pub(crate) type Prefixed<S> = Around<S, Prefix>;

/// What is still to be served before the stream's own bytes.
#[derive(Debug)]
pub(crate) struct Prefix(BytesMut);

impl<S> Prefixed<S> {
    /// Serves `prefix` before anything that is still in `stream`.
    pub(crate) fn new(prefix: BytesMut, stream: S) -> Self {
        let reading = Prefix(prefix);
        Self { stream, reading }
    }

    #[cfg(test)]
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.reading.0
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    #[cfg(test)]
    /// Reads once more from the stream behind the prefix; 0 is the end.
    ///
    /// # Errors
    /// The stream's own.
    pub(crate) async fn peek_more(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.reading.0).await
    }
}

impl<S: AsyncRead + Unpin> Reading<S> for Prefix {
    fn poll_read(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(prefix) = self;
        if prefix.is_empty() {
            return Pin::new(stream).poll_read(cx, into);
        }
        let now = prefix.len().min(into.remaining());
        into.put_slice(&prefix.split_to(now));
        if prefix.is_empty() {
            // A connection lives long; its first bytes need not.
            *prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
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
