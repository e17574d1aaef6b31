//! Ready connections, one pool a worker: nothing here is shared.
//!
//! An endpoint with a proxy has one mutual-TLS HTTP/2 connection (another when
//! its streams run out); HTTP/2 requests are streams of it, HTTP/1 lanes are
//! long-lived ones. An endpoint without has HTTP/1 sockets, or HTTP/2 in
//! plaintext. Idle lanes and sockets are re-used last in, first out. Called by
//! `http`; never retries and never chooses an endpoint.

mod dial;
mod lease;
mod multiplexed;
mod room;
mod settled;
mod view;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use tokio::time::Instant;

use crate::{
    discovery::{Backend, Endpoint, EndpointKey, Security},
    outcome::Reason,
    record::Metrics,
    runtime::Tasks,
    wire::Wire,
};

use super::{connect::Connector, queue};
use lease::{Open, Socket};
use multiplexed::{Dialling, Multiplexed};

pub(crate) use lease::{Lease, Stream};

#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Idle lanes and sockets kept per endpoint.
    pub(crate) idle_per_endpoint: usize,
    /// How long one is kept.
    pub(crate) idle_timeout: Duration,
    /// HTTP/2 connections per endpoint, at most.
    pub(crate) connections_per_endpoint: usize,
    /// Streams of one HTTP/2 connection before another is opened.
    pub(crate) streams_per_connection: u32,
    /// Receive windows, bytes. The connection's holds those of all streams, so
    /// that slow readers of some never stall the others.
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    /// Header section, bytes.
    pub(crate) header_bytes: u32,
}

/// Which connection will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    Any,
    /// One that served nobody: its server can't have closed it as idle.
    New,
    /// One that is no one's loss: there is no waiting for a place, and the last
    /// one is not taken. For copies.
    Spare,
}

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) connector: Rc<Connector>,
    metrics: Arc<Metrics>,
    config: Config,
    slots: RefCell<HashMap<EndpointKey, Slot>>,
    /// Drives connections; ends with the pool.
    tasks: RefCell<Tasks>,
    next: Cell<u64>,
}

#[derive(Debug, Default)]
struct Slot {
    connections: Vec<Multiplexed>,
    dialling: Option<Dialling>,
    idle: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    /// The connection whose lane it is.
    stream: Option<Stream>,
    socket: Option<Socket>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(config: Config, connector: Rc<Connector>, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self {
            connector,
            metrics,
            config,
            slots: RefCell::default(),
            tasks: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// A wire on which nothing is in flight.
    ///
    /// # Errors
    /// Why none could be had; nothing was sent.
    pub(crate) async fn http1(
        self: &Rc<Self>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
    ) -> Result<(Wire, Lease), Reason> {
        let key = endpoint.key;
        let checkouts = &self.metrics.pool.checkouts;
        let idle = match wanted {
            Wanted::Any | Wanted::Spare => self.idle(key),
            Wanted::New => None,
        };
        if let Some(idle) = idle {
            checkouts.inc("reused");
            let Idle {
                wire,
                stream,
                socket,
                ..
            } = idle;
            return Ok((
                wire,
                Lease {
                    is_reused: true,
                    key,
                    stream,
                    socket,
                },
            ));
        }
        let (wire, stream, socket) = match &endpoint.security {
            Security::Unmeshed => {
                let place = match wanted {
                    Wanted::Any | Wanted::New => self.place(backend).await?,
                    Wanted::Spare => {
                        queue::spare_connection(backend).ok_or(Reason::TooManyConnections)?
                    }
                };
                let stream = self
                    .connector
                    .tcp(endpoint.address, backend.policy.timeouts.connect)
                    .await?;
                let socket = Socket {
                    place,
                    _open: Open::new(&self.metrics.pool.open),
                };
                (Wire::tcp(stream, BytesMut::new()), None, Some(socket))
            }
            Security::Mesh { .. } => {
                let (mut sender, mut stream) = self.http2(backend, endpoint, wanted).await?;
                let opened = sender.send_request(multiplexed::open_lane(), false);
                let (response, body) = opened.map_err(|_| Reason::StreamRefused)?;
                stream.lane = Some(Open::new(&self.metrics.pool.lanes));
                (Wire::opened_lane(response, body), Some(stream), None)
            }
        };
        checkouts.inc("new");
        Ok((
            wire,
            Lease {
                is_reused: false,
                key,
                stream,
                socket,
            },
        ))
    }

    /// Takes a wire back whose exchange is complete. Buffered bytes, a full
    /// pool or a retired connection end it instead.
    pub(crate) fn put_back(&self, mut wire: Wire, lease: Lease) {
        let Lease {
            key,
            stream,
            socket,
            ..
        } = lease;
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(key).or_default();
        let is_current = stream
            .as_ref()
            .is_none_or(|stream| slot.is_current(stream.connection().number()));
        if !is_current || !wire.is_quiet() {
            self.metrics.pool.closed.inc("peer");
        } else if slot.idle.len() < self.config.idle_per_endpoint {
            wire.release_buffers();
            let idle = Idle {
                wire,
                stream,
                socket,
                since: Instant::now(),
            };
            let is_wanted = slot.is_wanted(&idle);
            slot.idle.push(idle);
            if is_wanted && slot.gives_way() {
                self.metrics.pool.closed.inc("limit");
            }
        } else {
            self.metrics.pool.closed.inc("idle");
        }
    }

    /// A sender on a connection with a free stream.
    ///
    /// # Errors
    /// Why none could be had; nothing was sent.
    pub(crate) async fn http2(
        self: &Rc<Self>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
    ) -> Result<(SendRequest<Bytes>, Stream), Reason> {
        if matches!(endpoint.security, Security::Mesh { http: false, .. }) {
            return Err(Reason::TlsHandshake);
        }
        loop {
            let free = self.free_connection(backend, endpoint.key, wanted);
            if let Some(lent) = free {
                if let Some(ready) = lent.ready().await {
                    return Ok(ready);
                }
                continue;
            }
            self.dialling(backend, endpoint, wanted)?.ended().await?;
        }
    }

    fn free_connection(
        &self,
        backend: &Backend,
        key: EndpointKey,
        wanted: Wanted,
    ) -> Option<multiplexed::Lent> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&key)?;
        // Its streams may wait for each other rather than for a connection that
        // the limit forbids; a copy's may not.
        let may_wait =
            wanted != Wanted::Spare && (queue::is_full(backend) || slot.is_full(&self.config));
        slot.free_connection(&self.config, may_wait)
    }

    fn idle(&self, key: EndpointKey) -> Option<Idle> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&key)?;
        let now = Instant::now();
        while let Some(mut idle) = slot.idle.pop() {
            let is_current = idle
                .stream
                .as_ref()
                .is_none_or(|stream| slot.is_current(stream.connection().number()));
            let cause = if now.duration_since(idle.since) >= self.config.idle_timeout {
                "idle"
            } else if !is_current || !idle.wire.is_quiet() {
                "peer"
            } else {
                return Some(idle);
            };
            self.metrics.pool.closed.inc(cause);
        }
        None
    }
}

impl Slot {
    fn is_current(&self, connection: u64) -> bool {
        self.connections
            .iter()
            .any(|it| it.number() == connection && it.is_open())
    }

    /// Whether no other connection may be opened to this endpoint.
    fn is_full(&self, config: &Config) -> bool {
        let open = self.connections.iter().filter(|it| it.is_open());
        open.count() >= config.connections_per_endpoint.max(1)
    }

    /// The least busy open connection, if it has a free stream or its streams
    /// may wait for each other.
    fn free_connection(&mut self, config: &Config, may_wait: bool) -> Option<multiplexed::Lent> {
        self.connections.retain(Multiplexed::is_open);
        let best = self.connections.iter().min_by_key(|it| it.streams())?;
        let has_room = best.streams() < best.stream_limit(config.streams_per_connection);
        (has_room || may_wait).then(|| best.lend())
    }

    fn retire(&mut self, number: u64) {
        self.connections.retain(|it| it.number() != number);
        self.idle.retain(|idle| {
            idle.stream
                .as_ref()
                .is_none_or(|stream| stream.connection().number() != number)
        });
    }
}

#[cfg(test)]
mod tests;
