//! How long the caller of an HTTP/2 connection has left something unfinished.
//!
//! Under `server`, between the socket and `h2`, which has no clock: a header
//! block without its end, or half a frame, would hold a connection for ever.
//! `Watched` counts through the frames that pass and never changes a byte;
//! `Overdue` resolves once something that must come in one piece has been begun
//! for too long. That is everything but the payload of DATA, whose pace is the
//! body's. Between frames a connection may be idle for as long as it likes.
//!
//! Only time in which `h2` waits for the caller's bytes counts: while the caller
//! takes its answers slowly, `h2` doesn't read, and what is unfinished then is
//! nobody's fault.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::around::{Around, Reading};

/// A connection whose frames are counted through.
pub(super) type Watched<S> = Around<S, Watching>;

#[derive(Debug)]
pub(super) struct Watching {
    frames: Frames,
    clock: Rc<Clock>,
}

/// The clock beside it.
#[derive(Debug)]
pub(super) struct Overdue {
    clock: Rc<Clock>,
    limit: Duration,
    /// Since when nobody reads.
    paused: Option<Instant>,
    /// Made when something stays unfinished for the first time.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What both know.
#[derive(Debug)]
struct Clock {
    begun: Cell<Option<Instant>>,
    /// The last read is still waiting for bytes.
    is_awaited: Cell<bool>,
}

/// When the time of the preface begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Starts {
    /// With the connection: a peer proxy opens it to use it.
    AtOnce,
    /// With the first byte: an application may connect long before it speaks.
    WithFirstByte,
}

/// Gives a part of the connection at most `limit` from its begin to its end.
pub(super) fn watched<S>(stream: S, limit: Duration, starts: Starts) -> (Watched<S>, Overdue) {
    let begun = match starts {
        Starts::AtOnce => Some(Instant::now()),
        Starts::WithFirstByte => None,
    };
    let clock = Rc::new(Clock {
        begun: Cell::new(begun),
        is_awaited: Cell::new(false),
    });
    let overdue = Overdue {
        clock: Rc::clone(&clock),
        limit,
        paused: None,
        timer: None,
    };
    let frames = Frames::default();
    let reading = Watching { frames, clock };
    (Watched { stream, reading }, overdue)
}

impl Overdue {
    /// Poll it after whatever reads the connection, in the same task: what was
    /// read sets the time and wakes nobody.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_awaited = self.clock.is_awaited.take();
        let Some(mut begun) = self.clock.begun.get() else {
            self.paused = None;
            return Poll::Pending;
        };
        if !is_awaited {
            self.paused.get_or_insert_with(Instant::now);
            return Poll::Pending;
        }
        if let Some(paused) = self.paused.take() {
            begun += paused.max(begun).elapsed();
            self.clock.begun.set(Some(begun));
        }
        let until = begun + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> Reading<S> for Watching {
    fn poll_read(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(stream).poll_read(cx, into);
        let Self { frames, clock } = self;
        clock.is_awaited.set(polled.is_pending());
        ready!(polled)?;
        let came = into.filled().get(before..).unwrap_or_default();
        if came.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let rested = frames.pass(came);
        if !frames.is_unfinished() {
            clock.begun.set(None);
        } else if rested || clock.begun.get().is_none() {
            clock.begun.set(Some(Instant::now()));
        }
        Poll::Ready(Ok(()))
    }
}

/// RFC 9113 §3.4.
const PREFACE: usize = 24;
/// RFC 9113 §4.1: length, type, flags, stream.
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in the connection we are. Whether a frame is right is for `h2` to say.
#[derive(Debug, Default)]
struct Frames {
    preface: usize,
    /// The next frame's header, as far as it came.
    header: [u8; FRAME_HEADER],
    have: usize,
    /// Of the current frame's payload.
    left: usize,
    is_data: bool,
    /// A header block has begun, and END_HEADERS was not seen yet.
    in_block: bool,
    /// The first frame, which is part of the preface, is complete.
    has_settings: bool,
}

impl Frames {
    /// Goes over the bytes that came; whether nothing was unfinished somewhere
    /// among them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let preface = bytes.len().min(PREFACE - self.preface);
        self.preface += preface;
        bytes = bytes.get(preface..).unwrap_or_default();
        let mut rested = false;
        while !bytes.is_empty() {
            let taken = if self.left > 0 {
                let taken = bytes.len().min(self.left);
                self.left -= taken;
                taken
            } else {
                self.gather(bytes)
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            self.has_settings |= self.is_between_frames();
            rested |= !self.is_unfinished();
        }
        rested
    }

    /// Takes as much of a frame's header as there is.
    fn gather(&mut self, bytes: &[u8]) -> usize {
        let room = self.header.get_mut(self.have..).unwrap_or_default();
        let taken = bytes.len().min(room.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.have += taken;
        if self.have == FRAME_HEADER {
            self.have = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.is_data = kind == DATA;
            if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
                self.in_block = flags & END_HEADERS == 0;
            }
        }
        taken
    }

    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    fn is_unfinished(&self) -> bool {
        let is_within = self.have > 0 || (self.left > 0 && !self.is_data);
        (is_within || self.in_block || !self.has_settings) && self.preface > 0
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(3600);

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).unwrap();
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    fn opening() -> Vec<u8> {
        let settings = frame(4, 0, 0);
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()
    }

    struct Connection {
        far: DuplexStream,
        near: Watched<DuplexStream>,
        overdue: Overdue,
    }

    impl Connection {
        fn new(starts: Starts) -> Self {
            let (far, near) = tokio::io::duplex(1 << 16);
            let (near, overdue) = watched(near, LIMIT, starts);
            Self { far, near, overdue }
        }

        async fn comes(&mut self, bytes: &[u8]) {
            self.far.write_all(bytes).await.unwrap();
            self.near
                .read_exact(&mut vec![0; bytes.len()])
                .await
                .unwrap();
        }

        /// After how long, within `patience`, while somebody wants to read.
        async fn overdue(&mut self, patience: Duration) -> Option<Duration> {
            let start = Instant::now();
            let Self { near, overdue, .. } = self;
            let overdue = poll_fn(|cx| {
                let (mut room, near) = ([0], Pin::new(&mut *near));
                let read = near.poll_read(cx, &mut ReadBuf::new(&mut room));
                assert!(read.is_pending());
                overdue.poll(cx)
            });
            let overdue = timeout(patience, overdue).await;
            overdue.ok().map(|()| start.elapsed())
        }

        /// Nobody does for so long.
        async fn rests(&mut self, time: Duration) {
            let overdue = timeout(time, poll_fn(|cx| self.overdue.poll(cx))).await;
            assert!(overdue.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_begun_must_end_in_time() {
        let begun = [
            b"P".to_vec(),
            opening().split_off(24).split_off(3),
            frame(HEADERS, 0, 20),
            [frame(HEADERS, 0, 20), frame(CONTINUATION, 0, 20)].concat(),
            frame(HEADERS, END_HEADERS, 20).split_at(20).0.to_vec(),
            frame(6, 0, 8).split_at(10).0.to_vec(),
            vec![0, 0],
        ];
        for (number, bytes) in begun.iter().enumerate() {
            let mut connection = Connection::new(Starts::WithFirstByte);
            if number > 1 {
                connection.comes(&opening()).await;
            }
            connection.comes(bytes).await;
            let overdue = connection.overdue(HOUR).await;
            assert_eq!(overdue, Some(LIMIT), "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idling_between_frames_takes_as_long_as_it_likes() {
        let whole = [
            Vec::new(),
            opening(),
            frame(HEADERS, END_HEADERS, 20),
            [frame(HEADERS, 0, 20), frame(CONTINUATION, END_HEADERS, 0)].concat(),
            frame(6, 0, 8),
            // A body comes at its own pace.
            frame(DATA, 0, 20).split_at(15).0.to_vec(),
        ];
        let mut connection = Connection::new(Starts::WithFirstByte);
        for (number, bytes) in whole.iter().enumerate() {
            connection.comes(bytes).await;
            assert_eq!(connection.overdue(HOUR).await, None, "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_gains_no_time() {
        let mut connection = Connection::new(Starts::WithFirstByte);
        connection.comes(&opening()).await;
        connection.comes(&frame(HEADERS, 0, 0)).await;
        let step = Duration::from_secs(10);
        for _ in 0..2 {
            assert_eq!(connection.overdue(step).await, None);
            connection.comes(&frame(CONTINUATION, 0, 1)).await;
        }
        assert_eq!(connection.overdue(HOUR).await, Some(step));
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_somebody_wants_to_read_counts() {
        let mut connection = Connection::new(Starts::WithFirstByte);
        connection.comes(&opening()).await;
        connection.comes(&frame(HEADERS, 0, 20)).await;
        let step = Duration::from_secs(10);
        for _ in 0..2 {
            connection.rests(HOUR).await;
            assert_eq!(connection.overdue(step).await, None);
        }
        connection.rests(HOUR).await;
        // What begins in a pause has all of its time.
        connection.comes(&frame(CONTINUATION, END_HEADERS, 0)).await;
        connection.comes(&frame(HEADERS, 0, 20)).await;
        connection.rests(HOUR).await;
        assert_eq!(connection.overdue(HOUR).await, Some(LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_has_a_time_of_its_own() {
        let mut connection = Connection::new(Starts::WithFirstByte);
        connection.comes(&opening()).await;
        let ping = frame(6, 0, 8);
        let (first, rest) = ping.split_at(12);
        connection.comes(first).await;
        for _ in 0..10 {
            assert_eq!(connection.overdue(Duration::from_secs(20)).await, None);
            // One ends and the next begins in a single read.
            connection.comes(&[rest, first].concat()).await;
        }
        assert_eq!(connection.overdue(HOUR).await, Some(LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_proxy_has_to_begin_at_once() {
        let mut connection = Connection::new(Starts::AtOnce);
        assert_eq!(connection.overdue(HOUR).await, Some(LIMIT));
        let mut connection = Connection::new(Starts::AtOnce);
        connection.comes(&opening()).await;
        assert_eq!(connection.overdue(HOUR).await, None);
    }

    proptest! {
        #[test]
        fn how_the_network_cuts_the_bytes_changes_nothing(
            frames in prop::collection::vec((0_u8..12, any::<bool>(), 0_usize..40), 0..12),
            cuts in prop::collection::vec(1_usize..30, 1..40),
            end in 0_usize..200,
        ) {
            let mut bytes = opening();
            for (kind, ends, payload) in frames {
                bytes.extend(frame(kind, if ends { END_HEADERS } else { 0 }, payload));
            }
            bytes.truncate(bytes.len().min(end));
            let (mut whole, mut pieces) = (Frames::default(), Frames::default());
            whole.pass(&bytes);
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle().take(bytes.len()) {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                pieces.pass(piece);
                rest = after;
            }
            prop_assert_eq!(whole.is_unfinished(), pieces.is_unfinished());
            prop_assert_eq!(whole.is_between_frames(), pieces.is_between_frames());
        }
    }
}
