//! What goes with a wire or a stream while it is lent: its place under limits
//! and in gauges, given back on drop.

use std::rc::Rc;

use bytes::Bytes;
use h2::client::SendRequest;
use prometheus_client::metrics::gauge::Gauge;

use super::multiplexed::State;
use crate::{discovery::EndpointKey, outcome::Reason, upstream::queue::Place};

/// A socket of its own: its place under the backend's limit, and in the gauge.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) place: Place,
    pub(super) _open: Open,
}

/// Counts in a gauge until dropped.
#[derive(Debug)]
pub(super) struct Open(Gauge);

impl Open {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Goes with a wire that was taken for one exchange, and brings it back.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) is_reused: bool,
    pub(super) key: EndpointKey,
    pub(super) stream: Option<Stream>,
    pub(super) socket: Option<Socket>,
}

impl Lease {
    /// As `Stream::refusal`.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        self.stream.as_ref()?.refusal()
    }
}

/// A place on an HTTP/2 connection, counted until dropped.
#[derive(Debug)]
pub(crate) struct Stream {
    connection: Rc<State>,
    /// The connection served before: it may have been closed meanwhile.
    pub(crate) is_reused: bool,
    /// Set where it is a lane.
    pub(super) lane: Option<Open>,
}

impl Stream {
    pub(super) fn new(connection: &Rc<State>) -> Self {
        let is_reused = connection.begin();
        Self {
            connection: Rc::clone(connection),
            is_reused,
            lane: None,
        }
    }

    pub(super) fn connection(&self) -> &Rc<State> {
        &self.connection
    }

    /// Why the peer proxy refused our handshake, known only once the stream
    /// broke (TLS 1.3 tells late). The request was never read then.
    pub(crate) fn refusal(&self) -> Option<Reason> {
        self.connection.refusal()
    }

    /// Of an application. Peer proxies take WebSockets as they take lanes.
    ///
    /// # Errors
    /// Why it can't be asked for one; nothing was sent.
    pub(crate) async fn takes_websockets(&self, sender: &SendRequest<Bytes>) -> Result<(), Reason> {
        self.connection.settled().takes_websockets(sender).await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.end();
    }
}
