//! A stream with something between it and whoever reads it.
//!
//! Ground. What a reader sees, and what is learnt on the way, is a `Reading`'s
//! affair: bytes that were read before (`prefixed`), the pace of HTTP/2 frames
//! (`http::server`), a peer's late refusal (`tls::connect`). Writes go straight
//! through, vectored ones too: a wrapper that hides `is_write_vectored` costs a
//! record for each slice.

mod prefixed;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use prefixed::Prefixed;

/// How a stream is read.
pub(crate) trait Reading<S> {
    /// As `AsyncRead::poll_read`, of the stream as `self` shows it.
    fn poll_read(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

#[derive(Debug)]
pub(crate) struct Around<S, R> {
    pub(crate) stream: S,
    pub(crate) reading: R,
}

impl<S, R> Around<S, R> {
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: Unpin, R: Reading<S> + Unpin> AsyncRead for Around<S, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, reading } = self.get_mut();
        reading.poll_read(stream, cx, into)
    }
}

impl<S: AsyncWrite + Unpin, R: Unpin> AsyncWrite for Around<S, R> {
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
    use std::task::Waker;

    use super::*;

    /// Notes which of its functions was called.
    #[derive(Debug, Default)]
    struct Noting(Vec<&'static str>);

    impl AsyncWrite for Noting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push("write");
            Poll::Ready(Ok(1))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0.push("vectored");
            Poll::Ready(Ok(2))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.push("flush");
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.push("shutdown");
            Poll::Pending
        }
    }

    #[test]
    fn what_is_written_goes_straight_through() {
        let stream = Noting::default();
        let mut around = Around {
            stream,
            reading: (),
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut pinned = Pin::new(&mut around);
        assert!(pinned.is_write_vectored());
        let two = [io::IoSlice::new(b"a"), io::IoSlice::new(b"b")];
        let vectored = pinned.as_mut().poll_write_vectored(&mut cx, &two);
        assert!(matches!(vectored, Poll::Ready(Ok(2))));
        let written = pinned.as_mut().poll_write(&mut cx, b"a");
        assert!(matches!(written, Poll::Ready(Ok(1))));
        assert!(pinned.as_mut().poll_flush(&mut cx).is_ready());
        assert!(pinned.as_mut().poll_shutdown(&mut cx).is_pending());
        let called = &around.get_ref().0;
        assert_eq!(called, &["vectored", "write", "flush", "shutdown"]);
    }
}
