//! Step 1: accepts connections, within limits, and asks where they were going.
//!
//! `app` opens one `Listener` per worker and direction and hands in the story
//! (`inbound` or `outbound`) as a function; `detect` comes next. A connection
//! that was made to the proxy's own port, or that is over the limit, is reset
//! here, and its story has but to record it: passing it on would loop.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::errno::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    addr::{OrigDst, PeerAddr, canonical},
    drain::{self, Phase},
    outcome::{Outcome, Reason, Side},
    record::Recorder,
    runtime::Tasks,
    sock,
};

#[cfg(test)]
mod tests;

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) peer: PeerAddr,
    pub(crate) destination: OrigDst,
    /// Its place under the limit; keep it as long as the connection.
    pub(crate) slot: Slot,
}

/// What the story is told.
#[derive(Debug)]
pub(crate) enum Arrival {
    Accepted(Conn),
    /// Already reset; to be recorded.
    Refused(Refused),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) peer: PeerAddr,
    /// Where it was going, when that is known.
    pub(crate) destination: Option<OrigDst>,
    pub(crate) reason: Reason,
}

impl Refused {
    pub(crate) fn record(self, side: Side, recorder: &Recorder) {
        if self.reason == Reason::TooManyConnections {
            recorder.metrics().connections.refused.inc();
        }
        let destination = self.destination.unwrap_or(OrigDst(self.peer.0));
        let record = recorder.connection(side, self.peer, destination).opaque();
        record.finish(Outcome::Faulted(self.reason.at(side)));
    }
}

/// Connections that all workers together may hold.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<AtomicUsize>,
    limit: usize,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: Arc::default(),
            limit,
        }
    }

    #[cfg(test)]
    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Option<Slot> {
        let more = |open| (open < self.limit).then_some(open + 1);
        // Nothing else is published by the count, so its order is all that matters.
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Slot(Arc::clone(&self.open)))
    }
}

/// One connection's place under the `Gate`.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who says where a connection was going.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Redirection, by `SO_ORIGINAL_DST`.
    Kernel,
    /// Tests without redirection: by the local address it was made to.
    #[cfg_attr(not(test), allow(dead_code, reason = "a seam for tests"))]
    Fixed(Arc<HashMap<IpAddr, SocketAddr>>),
}

impl Origin {
    fn of(&self, stream: &TcpStream, local: SocketAddr) -> Option<OrigDst> {
        match self {
            Self::Kernel => sock::original_destination(stream).ok(),
            Self::Fixed(map) => map.get(&local.ip()).copied().map(OrigDst),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Listener {
    /// From `sock::listener`, so that what it accepts is tuned already.
    pub(crate) socket: TcpListener,
    pub(crate) origin: Origin,
    pub(crate) gate: Gate,
    /// Every port that the proxy itself listens on.
    pub(crate) own_ports: Arc<[u16]>,
    /// How long connections may take to end once the proxy is stopping.
    pub(crate) grace: Duration,
}

impl Listener {
    /// Accepts until the proxy is stopping, then waits for the stories to end,
    /// at most for the grace period. Returns how many it had to drop.
    ///
    /// While it is draining it goes on accepting: the workload still serves,
    /// and still calls.
    pub(crate) async fn accept<F, Story>(self, story: F, mut drain: drain::Watch) -> usize
    where
        F: Fn(Arrival) -> Story,
        Story: Future<Output = ()> + 'static,
    {
        let mut tasks = Tasks::new();
        let mut pause = Pause::default();
        let mut stopping = pin!(drain.reached(Phase::Stopping));
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        pause = Pause::default();
                        tasks.spawn(story(self.arrival(stream, peer)));
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        let pausing = pause.next(&error);
                        tokio::select! {
                            () = &mut stopping => break,
                            () = sleep(pausing) => {}
                        }
                    }
                },
            }
        }
        // Who was let in by the kernel before now is served; closing the
        // listener would reset them.
        while let Some((stream, peer)) = accept_now(&self.socket).await {
            tasks.spawn(story(self.arrival(stream, peer)));
        }
        let grace = self.grace;
        drop(self);
        let ended = timeout(grace, tasks.ended()).await;
        if ended.is_ok() { 0 } else { tasks.len() }
    }

    fn arrival(&self, stream: TcpStream, peer: SocketAddr) -> Arrival {
        let peer = PeerAddr(canonical(peer));
        let local = stream.local_addr().ok().map(canonical);
        let destination = local.and_then(|local| self.origin.of(&stream, local));
        let refuse = |stream, reason| {
            sock::reset(stream);
            Arrival::Refused(Refused {
                peer,
                destination,
                reason,
            })
        };
        match (destination, local) {
            (Some(destination), Some(local)) if !self.is_direct(destination, local) => {
                match self.gate.enter() {
                    Some(slot) => Arrival::Accepted(Conn {
                        stream,
                        peer,
                        destination,
                        slot,
                    }),
                    None => refuse(stream, Reason::TooManyConnections),
                }
            }
            _ => refuse(stream, Reason::DirectConnection),
        }
    }

    /// Was it made to the proxy itself? Redirection leaves our ports out; this
    /// also holds under rules that do not.
    fn is_direct(&self, destination: OrigDst, local: SocketAddr) -> bool {
        destination.0 == local
            || (destination.0.ip() == local.ip() && self.own_ports.contains(&destination.0.port()))
    }
}

/// Takes a connection that is waiting, and never waits for one.
async fn accept_now(socket: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    tokio::select! {
        biased;
        accepted = socket.accept() => accepted.ok(),
        () = std::future::ready(()) => None,
    }
}

/// Errors of accept(2) that say something of the connection and nothing of us.
fn is_of_one_connection(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error().map(Errno::from_raw),
        None | Some(
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EBADF
                | Errno::EINVAL
        )
    )
}

/// Out of descriptors, the next accept fails as well: wait for connections to
/// end instead of spinning. What comes meanwhile waits in the backlog.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    fn next(&mut self, error: &io::Error) -> Duration {
        if self.0 == 0 {
            tracing::warn!(%error, "connections can't be accepted");
        }
        let pause = Self::FIRST
            .saturating_mul(1 << self.0.min(16))
            .min(Self::LONGEST);
        self.0 += 1;
        pause
    }
}
