//! Step 1: accepts connections, within limits, and asks where they were going.
//!
//! `app` opens one `Listener` per worker and direction and hands in the story
//! (`inbound` or `outbound`) as a function. A connection that was made to the
//! proxy's own port, and one over the limit, is told to the story by name and
//! goes no further.

use std::{collections::HashMap, future::Future, net::IpAddr, net::SocketAddr, sync::Arc, sync::atomic::AtomicUsize, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    addr::{OrigDst, PeerAddr},
    drain,
    outcome::Reason,
};

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) peer: PeerAddr,
    pub(crate) destination: OrigDst,
    pub(crate) accepted: Instant,
    /// Its place under the limit; keep it as long as the connection.
    pub(crate) slot: Slot,
}

/// What the story is told.
#[derive(Debug)]
pub(crate) enum Arrival {
    Accepted(Conn),
    /// Already reset; to be recorded.
    Refused { peer: PeerAddr, destination: Option<OrigDst>, reason: Reason },
}

/// Connections that all workers together may hold.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: Arc<AtomicUsize>,
    limit: usize,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self { open: Arc::default(), limit }
    }
}

/// One connection's place under the `Gate`.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

/// Who says where a connection was going.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Redirection, by `SO_ORIGINAL_DST`.
    Kernel,
    /// Tests without redirection: by the local address it was made to.
    Fixed(Arc<HashMap<IpAddr, SocketAddr>>),
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) origin: Origin,
    pub(crate) gate: Gate,
    /// The ports that the proxy itself listens on.
    pub(crate) own_ports: Arc<[u16]>,
    /// How long connections may take to end once the proxy is stopping.
    pub(crate) grace: Duration,
}

impl Listener {
    /// Accepts until the proxy is stopping, then waits for the stories to end,
    /// at most for the grace period. Returns how many it had to drop.
    pub(crate) async fn accept<F, Story>(self, _story: F, _drain: drain::Watch) -> usize
    where
        F: Fn(Arrival) -> Story,
        Story: Future<Output = ()> + 'static,
    {
        0
    }
}
