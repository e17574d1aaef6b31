//! Carries opaque bytes both ways between two connections.
//!
//! Takes the place of `http` in both stories, after detection and, where the
//! peer is a sidecar, inside TLS. One future carries both directions. A half
//! close, a reset and an orderly end each arrive on the other side as what
//! they were. `flow` is one direction; here they meet.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_rustls::server;

use self::flow::{Broken, Flow, LARGE};
use crate::{
    around::Prefixed,
    outcome::{Outcome, Reason, Side},
    sock,
    tls::connect::MeshStream,
};

mod flow;
#[cfg(test)]
mod tests;

/// One side: a socket, or TLS over one.
pub(crate) trait Leg: AsyncRead + AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Leg for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Leg for MeshStream {
    fn socket(&self) -> &TcpStream {
        self.tcp()
    }
}

impl<S: Leg> Leg for server::TlsStream<S> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0.socket()
    }
}

impl<S: Leg> Leg for Prefixed<S> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().socket()
    }
}

/// What detection had read already; it is written first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefixes {
    pub(crate) from_downstream: Bytes,
    pub(crate) from_upstream: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Silence in both directions that ends it; `None` is for ever.
    pub(crate) idle: Option<Duration>,
    /// Most bytes of one direction's buffer; 4 KiB or less is no growth.
    pub(crate) buffer: usize,
}

impl From<Option<Duration>> for Limits {
    fn from(idle: Option<Duration>) -> Self {
        Self {
            idle,
            buffer: LARGE,
        }
    }
}

/// What was carried so far. The caller keeps it, so that an access log written
/// when the story is dropped tells the truth.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) to_upstream: Cell<u64>,
    pub(crate) to_downstream: Cell<u64>,
    /// Bytes of buffer held at this moment, full or empty.
    pub(crate) buffered: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// Both sides sent FIN and each was passed on.
    Finished,
    /// Reset, or gone without a word; the other side was reset.
    DownstreamReset,
    UpstreamReset,
    /// No byte either way for the idle timeout; both sides were reset.
    Idle,
    /// Cut by the signal; both sides were reset.
    Cut(Reason),
}

impl Ended {
    pub(crate) const fn outcome(self, side: Side) -> Outcome {
        match self {
            Self::Finished => Outcome::Carried,
            Self::DownstreamReset => Outcome::CallerLeft,
            Self::UpstreamReset => Outcome::BrokenOff,
            Self::Idle => Outcome::Faulted(Reason::IdleTimeout.at(side)),
            Self::Cut(reason) => Outcome::Faulted(reason.at(side)),
        }
    }
}

/// Silence after which buffers are given back. Longer than any pause within a
/// bulk transfer, and short beside the life of a pooled connection.
const RELEASE: Duration = Duration::from_secs(1);

/// Carries until both sides are done, or `cut` resolves. Both connections are
/// closed on return.
pub(crate) async fn carry<D: Leg, U: Leg>(
    mut downstream: D,
    mut upstream: U,
    prefixes: Prefixes,
    limits: impl Into<Limits>,
    progress: &Progress,
    cut: impl Future<Output = Reason>,
) -> Ended {
    let Limits { idle, buffer } = limits.into();
    let mut carrier = Carrier {
        up: Flow::new(prefixes.from_downstream, buffer),
        down: Flow::new(prefixes.from_upstream, buffer),
        idle,
        active: Instant::now(),
    };
    let mut cut = pin!(cut);
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut is_armed = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(reason) = cut.as_mut().poll(cx) {
            return Poll::Ready(Ended::Cut(reason));
        }
        let ended = carrier.poll_flows(cx, &mut downstream, &mut upstream, progress);
        if ended.is_ready() {
            return ended;
        }
        let is_idle = carrier.poll_silence(cx, timer.as_mut(), &mut is_armed);
        progress
            .buffered
            .set(carrier.up.held() + carrier.down.held());
        if is_idle {
            Poll::Ready(Ended::Idle)
        } else {
            Poll::Pending
        }
    })
    .await;
    progress.buffered.set(0);
    let is_orderly = match ended {
        Ended::Finished => true,
        // It was refused after all that the other said had arrived with its
        // end: the kernel refuses what is still sent, and delivers the rest.
        Ended::UpstreamReset => carrier.down.is_finished(),
        Ended::DownstreamReset => carrier.up.is_finished(),
        Ended::Idle | Ended::Cut(_) => false,
    };
    if !is_orderly {
        sock::reset_on_drop(downstream.socket());
        sock::reset_on_drop(upstream.socket());
    }
    ended
}

struct Carrier {
    up: Flow,
    down: Flow,
    idle: Option<Duration>,
    /// When a byte last moved.
    active: Instant,
}

impl Carrier {
    fn poll_flows<D: Leg, U: Leg>(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut D,
        upstream: &mut U,
        progress: &Progress,
    ) -> Poll<Ended> {
        let before = self.up.carried() + self.down.carried();
        let up = self.up.poll(cx, downstream, upstream);
        if self.up.is_sink_reset() {
            self.down.source_was_reset();
        }
        let down = self.down.poll(cx, upstream, downstream);
        if self.down.is_sink_reset() {
            self.up.source_was_reset();
        }
        progress.to_upstream.set(self.up.carried());
        progress.to_downstream.set(self.down.carried());
        if self.up.carried() + self.down.carried() != before {
            self.active = Instant::now();
        }
        match (up, down) {
            (Poll::Ready(Err(Broken::Source)), _) => Poll::Ready(Ended::DownstreamReset),
            (_, Poll::Ready(Err(Broken::Source))) => Poll::Ready(Ended::UpstreamReset),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Finished),
            // Who takes nothing more may have said something before: it is
            // there already, and the other side is still to have it.
            (Poll::Ready(Err(Broken::Sink)), _) if !self.down.has_more() => {
                Poll::Ready(Ended::UpstreamReset)
            }
            (_, Poll::Ready(Err(Broken::Sink))) if !self.up.has_more() => {
                Poll::Ready(Ended::DownstreamReset)
            }
            _ => Poll::Pending,
        }
    }

    /// Gives back buffers after a short silence; true after a long one.
    fn poll_silence(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        is_armed: &mut bool,
    ) -> bool {
        loop {
            let may_release = self.up.may_release() || self.down.may_release();
            let release = may_release.then(|| self.active + RELEASE);
            let idle = self.idle.map(|idle| self.active + idle);
            let Some(next) = release.into_iter().chain(idle).min() else {
                *is_armed = false;
                return false;
            };
            // One armed too early only looks again: no timer moves per byte.
            if !*is_armed || timer.deadline() > next {
                timer.as_mut().reset(next);
                *is_armed = true;
            }
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            *is_armed = false;
            let now = Instant::now();
            if idle.is_some_and(|idle| idle <= now) {
                return true;
            }
            if release.is_some_and(|release| release <= now) {
                self.up.release();
                self.down.release();
            }
        }
    }
}
