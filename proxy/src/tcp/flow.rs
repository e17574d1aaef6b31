//! One direction of a carried connection.
//!
//! `tcp::carry` polls two of these. Bytes are read into 4 KiB on the stack and
//! written at once, so a quiet connection owns no buffer; when reads fill what
//! they are given, a buffer on the heap grows to 256 KiB. That size costs 1.41
//! CPU-s/GB where 64 KiB cost 1.90 and 16 KiB 2.31 (one stream, mutual TLS).

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SMALL: usize = 4 * 1024;
/// Size to which a buffer grows unless told otherwise.
pub(super) const LARGE: usize = 256 * 1024;
/// How much faster each buffer is than the last.
const GROWTH: usize = 4;
/// Bytes after which other connections of the worker have their turn.
const TURN: usize = 4 * LARGE;

/// Which end broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    Source,
    Sink,
}

#[derive(Debug)]
pub(super) struct Flow {
    prefix: Bytes,
    /// Read and not yet written: `heap[start..end]`.
    heap: Box<[u8]>,
    start: usize,
    end: usize,
    /// Size of the next buffer.
    size: usize,
    largest: usize,
    source: Source,
    sink: Sink,
    /// The source was reset, so that its end is none.
    is_source_reset: bool,
    /// The source had nothing more when it was last asked.
    is_drained: bool,
    carried: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Open,
    Finished,
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sink {
    Open,
    /// Written to since it was last flushed.
    Unflushed,
    Finished,
    /// It takes nothing more; what it said before is whole.
    Refused,
    /// Gone in the middle of what it said.
    Reset,
}

impl Sink {
    /// Linux says EPIPE when the peer's FIN was there before its reset, and
    /// ECONNRESET when it was not (`tcp_reset`).
    fn after(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Refused
        } else {
            Self::Reset
        }
    }
}

impl Flow {
    pub(super) fn new(prefix: Bytes, largest: usize) -> Self {
        Self {
            prefix,
            heap: Box::default(),
            start: 0,
            end: 0,
            size: SMALL,
            largest,
            source: Source::Open,
            sink: Sink::Open,
            is_source_reset: false,
            is_drained: false,
            carried: 0,
        }
    }

    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// Bytes of buffer held.
    pub(super) fn held(&self) -> usize {
        self.heap.len() + self.prefix.len()
    }

    /// Is there anything that could still reach the sink without waiting for
    /// the source?
    pub(super) fn has_more(&self) -> bool {
        matches!(self.sink, Sink::Open | Sink::Unflushed) && (!self.is_drained || self.is_waiting())
    }

    /// All of it arrived, its end included.
    pub(super) fn is_finished(&self) -> bool {
        self.sink == Sink::Finished
    }

    /// Was the sink reset before its own end?
    pub(super) fn is_sink_reset(&self) -> bool {
        self.sink == Sink::Reset
    }

    /// A write has met, and so consumed, the reset of what we read from: the
    /// next read says EOF where it would have said ECONNRESET.
    pub(super) fn source_was_reset(&mut self) {
        self.is_source_reset = true;
    }

    pub(super) fn may_release(&self) -> bool {
        self.size > SMALL && !self.is_waiting()
    }

    /// Gives the buffer back and starts small again.
    pub(super) fn release(&mut self) {
        if self.may_release() {
            self.size = SMALL;
            self.heap = Box::default();
        }
    }

    fn grow(&mut self) {
        self.size = (self.size * GROWTH).min(self.largest).max(SMALL);
    }

    fn is_waiting(&self) -> bool {
        self.start < self.end || !self.prefix.is_empty()
    }

    /// Carries what there is. Ready when the source's FIN was passed on, or
    /// when an end broke; it may be polled again after that.
    pub(super) fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<Result<(), Broken>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let turn = self.carried + TURN as u64;
        loop {
            match self.sink {
                Sink::Finished => return Poll::Ready(Ok(())),
                Sink::Refused | Sink::Reset => {
                    self.discard(cx, from);
                    return Poll::Ready(Err(Broken::Sink));
                }
                Sink::Open | Sink::Unflushed => {}
            }
            let written = self.poll_write_waiting(cx, to);
            match (self.source, written) {
                (_, Poll::Ready(Err(error))) => self.sink = Sink::after(&error),
                // A reset overtakes what the sink is too slow to take.
                (Source::Broken, _) => {
                    let _best_effort = Pin::new(to).poll_flush(cx);
                    return Poll::Ready(Err(Broken::Source));
                }
                (_, Poll::Pending) => return Poll::Pending,
                (Source::Finished, _) => match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    Ok(()) => self.sink = Sink::Finished,
                    Err(error) => self.sink = Sink::after(&error),
                },
                (Source::Open, _) if self.carried >= turn => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                (Source::Open, _) if self.size == SMALL => ready!(self.poll_small(cx, from, to)),
                (Source::Open, _) => ready!(self.poll_fill(cx, from, to)),
            }
        }
    }

    /// Writes what waits.
    fn poll_write_waiting<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
    ) -> Poll<io::Result<()>> {
        while !self.prefix.is_empty() {
            let written = ready!(self.poll_write(cx, to, &self.prefix.clone()))?;
            self.prefix.advance(written);
        }
        // An empty `Bytes` still keeps what it was cut from.
        self.prefix = Bytes::new();
        while self.start < self.end {
            let heap = std::mem::take(&mut self.heap);
            let written =
                self.poll_write(cx, to, heap.get(self.start..self.end).unwrap_or_default());
            self.heap = heap;
            self.start += ready!(written)?;
        }
        if self.size == SMALL {
            self.heap = Box::default();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(to).poll_write(cx, bytes))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => {
                self.sink = Sink::Unflushed;
                self.carried += written as u64;
                Poll::Ready(Ok(written))
            }
        }
    }

    /// Reads to the stack and writes at once; only what the sink doesn't take
    /// needs a buffer.
    fn poll_small<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<()>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        let mut stack = [MaybeUninit::uninit(); SMALL];
        let mut room = ReadBuf::uninit(&mut stack);
        if !self.poll_read(cx, from, &mut room) {
            return self.poll_flush(cx, to);
        }
        let read = room.filled();
        if read.is_empty() {
            return Poll::Ready(());
        }
        if read.len() == SMALL {
            self.grow();
        }
        let written = match self.poll_write(cx, to, read) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => {
                self.sink = Sink::after(&error);
                return Poll::Ready(());
            }
            Poll::Pending => 0,
        };
        self.heap = read.get(written..).unwrap_or_default().into();
        (self.start, self.end) = (0, self.heap.len());
        Poll::Ready(())
    }

    /// Fills the buffer on the heap with all that is there.
    fn poll_fill<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<()>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        if self.heap.len() != self.size {
            self.heap = vec![0; self.size].into();
        }
        let mut heap = std::mem::take(&mut self.heap);
        let mut room = ReadBuf::new(&mut heap);
        while room.remaining() > 0
            && self.source == Source::Open
            && self.poll_read(cx, from, &mut room)
        {}
        let filled = room.filled().len();
        self.heap = heap;
        (self.start, self.end) = (0, filled);
        if filled == self.size {
            self.grow();
        }
        if filled == 0 && self.source == Source::Open {
            self.poll_flush(cx, to)
        } else {
            Poll::Ready(())
        }
    }

    /// Takes what nobody will have: closing a socket with bytes unread resets
    /// it, and what was written to it before would be lost.
    fn discard<F: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut F) {
        let mut stack = [MaybeUninit::uninit(); SMALL];
        for _ in 0..TURN / SMALL {
            if self.source != Source::Open
                || !self.poll_read(cx, from, &mut ReadBuf::uninit(&mut stack))
            {
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once; false when there is nothing now.
    fn poll_read<F: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        room: &mut ReadBuf<'_>,
    ) -> bool {
        let before = room.filled().len();
        let read = Pin::new(from).poll_read(cx, room);
        self.is_drained = read.is_pending();
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if room.filled().len() > before => {}
            Poll::Ready(Ok(())) if !self.is_source_reset => self.source = Source::Finished,
            // TLS without its close_notify is one of these: it was cut off.
            Poll::Ready(_) => self.source = Source::Broken,
        }
        true
    }

    /// What is written leaves before the source is waited for.
    fn poll_flush<T: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<()> {
        if self.sink == Sink::Unflushed {
            match ready!(Pin::new(to).poll_flush(cx)) {
                Ok(()) => self.sink = Sink::Open,
                Err(error) => {
                    self.sink = Sink::after(&error);
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}
