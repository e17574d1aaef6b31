//! The workload as the inbound side reaches it: its addresses as backends of
//! one endpoint, and opaque connections to it.
//!
//! A local backend has no breaker, no retries by policy and no limits: those
//! are the caller's proxy's. A reused connection that died is still replaced.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::{pending, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    net::TcpStream,
    time::sleep,
};

use crate::{
    addr::OrigDst,
    authz, detect,
    discovery::{
        Backend, BackendCells, BackendPolicy, Endpoint, EndpointCells, EndpointKey, EndpointState,
        Hints, Protocol, Security, ServiceName,
    },
    identity::Peer,
    listen::Conn,
    outcome::{Outcome, Reason, Side},
    record::{ConnectionRecord, Record},
    sock,
    tcp::{Leg, Limits, Prefixes, Progress, carry},
    tls::certs::Session,
};

use super::Inbound;

/// Backends of our own addresses, made on first use.
#[derive(Debug)]
pub(crate) struct Locals {
    service: ServiceName,
    policy: Arc<BackendPolicy>,
    known: RefCell<HashMap<SocketAddr, Arc<Backend>>>,
}

/// More addresses than any workload listens on; a caller that tries them all
/// starts the list anew.
const MOST: usize = 1024;

impl Locals {
    pub(crate) fn new(namespace: &str, pod: &str) -> Self {
        let mut policy = BackendPolicy::default();
        policy.circuit_breaking.consecutive_failures = 0;
        Self {
            service: ServiceName {
                namespace: namespace.into(),
                name: pod.into(),
            },
            policy: Arc::new(policy),
            known: RefCell::default(),
        }
    }

    pub(super) fn backend(&self, address: SocketAddr) -> Arc<Backend> {
        let mut known = self.known.borrow_mut();
        if known.len() >= MOST && !known.contains_key(&address) {
            known.clear();
        }
        Arc::clone(
            known
                .entry(address)
                .or_insert_with(|| Arc::new(self.make(address))),
        )
    }

    /// Of whom a key speaks.
    pub(crate) fn address(&self, key: EndpointKey) -> Option<SocketAddr> {
        let known = self.known.borrow();
        known
            .keys()
            .copied()
            .find(|address| self::key(*address) == key)
    }

    fn make(&self, address: SocketAddr) -> Backend {
        let cells = Arc::new(BackendCells::default());
        let endpoint = Endpoint {
            key: key(address),
            uid: address.to_string().into(),
            address,
            namespace: Arc::clone(&self.service.namespace),
            pod: Arc::clone(&self.service.name),
            security: Security::Unmeshed,
            protocol: Protocol::Detect,
            node: "".into(),
            zone: "".into(),
            hints: Hints::default(),
            weight: 1,
            state: EndpointState::Ready,
            cells: EndpointCells::new(&cells),
        };
        let service = self.service.clone();
        Backend::new(
            service,
            address.port(),
            Arc::clone(&self.policy),
            vec![Arc::new(endpoint)],
            cells,
        )
    }
}

/// The inbound pool holds local addresses alone, so any injective enough
/// number does: 64 bits of address and port.
fn key(address: SocketAddr) -> EndpointKey {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    EndpointKey(hasher.finish())
}

/// A connection to the application, made before the caller spoke.
#[derive(Debug)]
pub(super) struct Dialled {
    stream: TcpStream,
    said: BytesMut,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Heard {
    Spoke,
    Failed(Reason),
}

impl Inbound {
    /// After a silence of the caller: does the application speak first? Only
    /// where it may talk to a caller without identity at all.
    pub(super) async fn listen_to_application(
        &self,
        conn: &Conn,
        protocol: Protocol,
        heard: &mut Option<Dialled>,
    ) -> Heard {
        let is_http = matches!(protocol, Protocol::Http1 | Protocol::Http2);
        let port = conn.destination.0.port();
        if is_http || self.admits_opaque(port, &Peer::Plaintext).is_err() {
            return pending().await;
        }
        let dialled = match self.dial(conn.destination).await {
            Ok(stream) => heard.insert(Dialled {
                stream,
                said: BytesMut::new(),
            }),
            Err(reason) => {
                // HTTP is told by a status, if the caller speaks it.
                sleep(self.config.patience.refusal).await;
                return Heard::Failed(reason);
            }
        };
        poll_fn(|cx| {
            let mut room = [0; 4096];
            let mut into = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut dialled.stream).poll_read(cx, &mut into);
            dialled.said.extend_from_slice(into.filled());
            polled.map(|_| ())
        })
        .await;
        if detect::is_http2_greeting(&dialled.said) {
            return pending().await;
        }
        Heard::Spoke
    }

    async fn dial(&self, destination: OrigDst) -> Result<TcpStream, Reason> {
        let connect = self.locals.policy.timeouts.connect;
        self.cx.pool.connector.tcp(destination.0, connect).await
    }

    fn admits_opaque(&self, port: u16, peer: &Peer) -> Result<(), authz::Denial> {
        let snapshot = self.cx.snapshot.borrow();
        match &snapshot.workload {
            Some(workload) => authz::admit_opaque(workload, port, peer).map(|_permit| ()),
            None => Err(authz::Denial {
                reason: Reason::PolicyMissing,
                policy: None,
            }),
        }
    }

    /// Carries opaque bytes to the application, if and as long as they may.
    pub(super) async fn opaque<S: Leg>(
        &self,
        mut downstream: S,
        mut first: BytesMut,
        mut caller: Caller<'_>,
        connection: &ConnectionRecord,
    ) {
        let mut record = connection.opaque();
        let mut dialled = self.admitted(&mut caller).await;
        if let Err(denial) = &dialled
            && let Some(session) = self.may_be_unused(&first, &caller, connection)
        {
            let is_taken_back =
                self.is_taken_back(&mut downstream, &mut first, session, denial.reason);
            if is_taken_back.await {
                return record.finish(Outcome::CallerLeft);
            }
            // The policy has changed meanwhile, or the application has started.
            dialled = self.admitted(&mut caller).await;
        }
        let dialled = match dialled {
            Ok(dialled) => dialled,
            Err(denial) => {
                if let Some(policy) = &denial.policy {
                    record.judged_by(policy);
                }
                return refuse(&downstream, record, denial.reason);
            }
        };
        let backend = self.locals.backend(caller.destination.0);
        record.planned(None, &backend);
        let prefixes = Prefixes {
            from_downstream: first.freeze(),
            from_upstream: dialled.said.freeze(),
        };
        let progress = Progress::default();
        let limits = Limits::from(None);
        let port = caller.destination.0.port();
        let cut = self.no_longer(port, caller.peer, caller.session);
        let ended = carry(downstream, dialled.stream, prefixes, limits, &progress, cut).await;
        record.received(progress.to_upstream.get());
        record.sent(progress.to_downstream.get());
        record.finish(ended.outcome(Side::Inbound));
    }

    /// The application, for a caller that may talk to it.
    async fn admitted(&self, caller: &mut Caller<'_>) -> Result<Dialled, authz::Denial> {
        self.admits_opaque(caller.destination.0.port(), caller.peer)?;
        if let Some(dialled) = caller.dialled.take() {
            return Ok(dialled);
        }
        let dialled = self.dial(caller.destination).await;
        let said = BytesMut::new();
        dialled
            .map(|stream| Dialled { stream, said })
            .map_err(|reason| authz::Denial {
                reason,
                policy: None,
            })
    }

    /// A caller's proxy dials while its client is silent, lest the server speaks
    /// first. That client may still turn out to speak HTTP: then this connection
    /// ends unused, and refusing it at once would break the client's. So bytes
    /// are refused, not silence.
    fn may_be_unused<'a>(
        &self,
        first: &BytesMut,
        caller: &Caller<'a>,
        connection: &ConnectionRecord,
    ) -> Option<&'a Session> {
        let declared = self.protocol(caller.destination.0.port(), connection);
        let is_opaque = matches!(declared, Some(Protocol::Opaque | Protocol::Tls));
        caller.session.filter(|_| first.is_empty() && !is_opaque)
    }

    /// Waits for what the caller's proxy does with a connection that is to be
    /// refused: it takes it back, or its client has spoken, or still waits for
    /// the server. The last is clear after a while, except where only HTTP is
    /// carried and everybody has to speak first.
    async fn is_taken_back<S: Leg>(
        &self,
        downstream: &mut S,
        first: &mut BytesMut,
        session: &Session,
        reason: Reason,
    ) -> bool {
        tokio::select! {
            // A client that has finished ends TLS in order, and waits.
            read = downstream.read_buf(first) => read.is_err(),
            () = self.certificates.ended(session) => true,
            () = sleep(self.config.patience.refusal), if reason != Reason::OpaqueRefused => false,
        }
    }

    /// Resolves when what was admitted no longer is.
    async fn no_longer(&self, port: u16, peer: &Peer, session: Option<&Session>) -> Reason {
        let mut snapshots = self.snapshots.clone();
        let judged = async {
            while snapshots.changed().await.is_ok() {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                let Some(workload) = &snapshot.workload else {
                    continue;
                };
                if let Err(denial) = authz::admit_opaque(workload, port, peer) {
                    return denial.reason;
                }
            }
            pending().await
        };
        let over = async {
            match session {
                Some(session) => self.certificates.ended(session).await,
                None => pending().await,
            }
        };
        tokio::select! {
            reason = judged => reason,
            () = over => Reason::PeerExpired,
        }
    }
}

/// Who opened an opaque connection, and to where.
pub(super) struct Caller<'a> {
    pub(super) peer: &'a Peer,
    pub(super) destination: OrigDst,
    /// Of mesh TLS: the connection ends with it.
    pub(super) session: Option<&'a Session>,
    pub(super) dialled: Option<Dialled>,
}

fn refuse(downstream: &impl Leg, record: Record, reason: Reason) {
    sock::reset_on_drop(downstream.socket());
    record.finish(Outcome::Faulted(reason.at(Side::Inbound)));
}
