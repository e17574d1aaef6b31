//! The bytes of one HTTP/1 connection, whatever carries them: a TCP socket, or
//! a lane (one long-lived HTTP/2 stream of the mesh connection between two
//! proxies, whose DATA is HTTP/1 as our codec wrote it).
//!
//! Mechanism. `http` reads and writes messages on it from both ends; `upstream`
//! keeps idle ones. Buffers are empty and unallocated while nothing moves.
//! Never looks into the bytes.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture};
use tokio::{
    io::AsyncWrite,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Value of `:protocol` that opens a lane.
pub(crate) const LANE_PROTOCOL: &str = "weft1-h1";

/// How we end a lane whose exchange we recorded as a fault.
const TOLD: h2::Reason = h2::Reason::INTERNAL_ERROR;

/// First read of a message, and how far one read may grow for a body.
const READ_MIN: usize = 4 * 1024;
const READ_MAX: usize = 64 * 1024;

/// Both halves, usable apart within one task.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

#[derive(Debug)]
pub(crate) struct Reader {
    io: ReadIo,
    /// Bytes that arrived and were not taken yet.
    pub(crate) buffer: BytesMut,
    /// Size of the next read.
    reserve: usize,
}

#[derive(Debug)]
pub(crate) struct Writer {
    io: WriteIo,
    /// Bytes that wait for `flush`.
    pub(crate) buffer: BytesMut,
}

#[derive(Debug)]
enum ReadIo {
    Tcp(OwnedReadHalf),
    /// Our CONNECT is not answered yet.
    Opening(ResponseFuture),
    Lane(RecvStream),
    Ended,
}

#[derive(Debug)]
enum WriteIo {
    Tcp(OwnedWriteHalf),
    Lane(SendStream<Bytes>),
    /// Ended by us.
    Ended,
}

impl Wire {
    /// `prefix` was read from the socket already.
    pub(crate) fn tcp(stream: TcpStream, prefix: BytesMut) -> Self {
        let (reader, writer) = stream.into_split();
        Self::new(ReadIo::Tcp(reader), WriteIo::Tcp(writer), prefix)
    }

    /// The end that opened it; the peer's answer may still be on its way.
    pub(crate) fn opened_lane(response: ResponseFuture, sender: SendStream<Bytes>) -> Self {
        Self::new(
            ReadIo::Opening(response),
            WriteIo::Lane(sender),
            BytesMut::new(),
        )
    }

    /// The end that accepted it.
    pub(crate) fn accepted_lane(receiver: RecvStream, sender: SendStream<Bytes>) -> Self {
        Self::new(
            ReadIo::Lane(receiver),
            WriteIo::Lane(sender),
            BytesMut::new(),
        )
    }

    fn new(read: ReadIo, write: WriteIo, prefix: BytesMut) -> Self {
        Self {
            reader: Reader {
                io: read,
                buffer: prefix,
                reserve: READ_MIN,
            },
            writer: Writer {
                io: write,
                buffer: BytesMut::new(),
            },
        }
    }

    /// Whether an idle one can still be used: nothing arrived, nobody closed.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.reader.is_quiet()
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn release_buffers(&mut self) {
        self.reader.release();
        self.writer.buffer = BytesMut::new();
    }

    /// Ends it so that the other side sees a failure, not an orderly end.
    pub(crate) fn reset(self) {
        match (self.reader.io, self.writer.io) {
            (ReadIo::Tcp(reader), WriteIo::Tcp(writer)) => {
                if let Ok(stream) = reader.reunite(writer) {
                    // Dropped with zero linger: RST.
                    let _ = stream.set_zero_linger();
                }
            }
            (_, WriteIo::Lane(mut sender)) => sender.send_reset(TOLD),
            (_, WriteIo::Tcp(_) | WriteIo::Ended) => {}
        }
    }
}

impl Reader {
    /// Waits for bytes and appends them to `buffer`; 0 is the orderly end.
    ///
    /// # Errors
    /// A broken connection, a refused or reset lane.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty()
            && let ReadIo::Tcp(half) = &self.io
        {
            half.readable().await?;
        }
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.io {
                ReadIo::Tcp(half) => {
                    self.buffer.reserve(self.reserve);
                    let read = ready!(poll_read_into(half, cx, &mut self.buffer))?;
                    if read >= self.reserve {
                        self.reserve = (self.reserve * 2).min(READ_MAX);
                    }
                    return Poll::Ready(Ok(read));
                }
                ReadIo::Opening(response) => {
                    let response = ready!(Pin::new(response).poll(cx)).map_err(into_io)?;
                    if !response.status().is_success() {
                        self.io = ReadIo::Ended;
                        return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
                    }
                    self.io = ReadIo::Lane(response.into_body());
                }
                ReadIo::Lane(receiver) => match ready!(receiver.poll_data(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        let read = data.len();
                        receiver
                            .flow_control()
                            .release_capacity(read)
                            .map_err(into_io)?;
                        self.buffer.extend_from_slice(&data);
                        return Poll::Ready(Ok(read));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
                    None => {
                        self.io = ReadIo::Ended;
                        return Poll::Ready(Ok(0));
                    }
                },
                ReadIo::Ended => return Poll::Ready(Ok(0)),
            }
        }
    }

    fn is_quiet(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        match &mut self.io {
            // Without a waker: whoever uses it next registers its own.
            ReadIo::Tcp(half) => {
                let mut probe = [0];
                matches!(half.try_read(&mut probe), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            ReadIo::Opening(response) => Pin::new(response).poll(&mut cx).is_pending(),
            ReadIo::Lane(receiver) => receiver.poll_data(&mut cx).is_pending(),
            ReadIo::Ended => false,
        }
    }

    pub(crate) fn release(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        self.reserve = READ_MIN;
    }
}

impl Writer {
    /// Writes all of `buffer`.
    ///
    /// # Errors
    /// A broken connection or reset lane.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let mut none = Bytes::new();
        poll_fn(|cx| self.poll_send(cx, &mut none)).await
    }

    /// Writes all of `buffer`, then `tail` without copying it.
    pub(crate) async fn send(&mut self, mut tail: Bytes) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx, &mut tail)).await
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, tail: &mut Bytes) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() || !tail.is_empty() {
            match &mut self.io {
                WriteIo::Tcp(half) => {
                    let slices = [IoSlice::new(&self.buffer), IoSlice::new(tail)];
                    let written = ready!(Pin::new(half).poll_write_vectored(cx, &slices))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    let head = written.min(self.buffer.len());
                    self.buffer.advance(head);
                    tail.advance(written - head);
                }
                WriteIo::Lane(sender) => {
                    let next = if self.buffer.is_empty() {
                        tail.len()
                    } else {
                        self.buffer.len()
                    };
                    let room = ready!(poll_room(sender, cx, next))?.min(next);
                    let data = if self.buffer.is_empty() {
                        tail.split_to(room)
                    } else {
                        self.buffer.split_to(room).freeze()
                    };
                    sender.send_data(data, false).map_err(into_io)?;
                }
                WriteIo::Ended => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other side that nothing more comes. `buffer` must be flushed.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        match &mut self.io {
            WriteIo::Tcp(half) => poll_fn(|cx| Pin::new(&mut *half).poll_shutdown(cx)).await?,
            WriteIo::Lane(sender) => sender.send_data(Bytes::new(), true).map_err(into_io)?,
            WriteIo::Ended => {}
        }
        self.io = match std::mem::replace(&mut self.io, WriteIo::Ended) {
            // Kept: dropping it before the reader would do the same again.
            WriteIo::Tcp(half) => WriteIo::Tcp(half),
            WriteIo::Lane(_) | WriteIo::Ended => WriteIo::Ended,
        };
        Ok(())
    }
}

fn poll_read_into(
    half: &mut OwnedReadHalf,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let mut read = std::pin::pin!(half.read_buf(buffer));
    read.as_mut().poll(cx)
}

/// How much of `wanted` flow control lets us send now.
fn poll_room(
    sender: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    sender.reserve_capacity(wanted);
    loop {
        let room = sender.capacity();
        if room > 0 || wanted == 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(sender.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// A stream's end in terms of a connection; `ended` reads it.
fn into_io(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

/// Why a wire ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// The peer did not read anything of it (RFC 9113 §8.7).
    Refused,
    /// The peer proxy ended it and recorded why.
    Told,
    Broken,
}

pub(crate) fn ended(error: &io::Error) -> Ended {
    let stream = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<h2::Error>());
    let Some(stream) = stream.filter(|stream| stream.is_remote()) else {
        return Ended::Broken;
    };
    match stream.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Ended::Refused,
        Some(h2::Reason::NO_ERROR) if stream.is_go_away() => Ended::Refused,
        Some(TOLD) if stream.is_reset() => Ended::Told,
        _ => Ended::Broken,
    }
}
