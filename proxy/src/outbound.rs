//! The story of a connection that our workload opens.
//!
//! After `listen`; the original destination decides what it is, never a Host
//! header. Outside the mesh's ranges it passes through unasked; inside, the
//! control plane says: service, workload, unmeshed or unknown. Then `detect`
//! and `http`, or `tcp`. Implements `Planner`: `route` decides per request over
//! the snapshot of that moment.

mod opaque;

use std::{cell::RefCell, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    around::Prefixed,
    authz::{Denial, Permit},
    detect::{self, First, Patience, Verdict},
    discovery::{Asker, Backend, Meaning, Protocol, ServicePort},
    drain,
    http::{
        exchange::{Context, Plan, Planner},
        server::{self, Server},
    },
    identity::Peer,
    listen::{Arrival, Conn},
    outcome::{Outcome, Reason, Side},
    record::{ConnectionRecord, Recorder},
    request::Request,
    route, sock,
    wire::Wire,
};

use opaque::{Dialled, Heard};

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) patience: Patience,
    /// How long a connection waits for the meaning of its destination.
    pub(crate) ask_timeout: Duration,
}

/// One worker's outbound side.
pub(crate) struct Outbound {
    pub(crate) config: Config,
    pub(crate) http: Rc<server::Config>,
    pub(crate) cx: Rc<Context>,
    pub(crate) recorder: Recorder,
    pub(crate) asker: Asker,
    pub(crate) drain: drain::Watch,
}

/// What the original destination is to us.
#[derive(Clone, Debug)]
enum Target {
    Service(Arc<ServicePort>),
    Workload(Arc<Backend>),
}

impl Target {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Service(port) => port.protocol,
            Self::Workload(backend) => backend
                .endpoints
                .first()
                .map_or(Protocol::Detect, |endpoint| endpoint.protocol),
        }
    }

    /// Where opaque bytes go: routes are for HTTP.
    fn backend(&self) -> &Arc<Backend> {
        match self {
            Self::Service(port) => &port.default,
            Self::Workload(backend) => backend,
        }
    }
}

impl Outbound {
    pub(crate) async fn story(self: Rc<Self>, arrival: Arrival) {
        match arrival {
            Arrival::Refused(refused) => refused.record(Side::Outbound, &self.recorder),
            Arrival::Accepted(conn) => self.connection(conn).await,
        }
    }

    async fn connection(&self, conn: Conn) {
        let record = self
            .recorder
            .connection(Side::Outbound, conn.peer, conn.destination);
        record.peer(&Peer::Local);
        let meanings = &self.recorder.metrics().outbound.meanings;
        let target = match self.meaning(conn.destination.0).await {
            Known::Outside => {
                meanings.inc("outside");
                return Box::pin(self.pass_through(conn, &record)).await;
            }
            Known::NoAnswer => {
                meanings.inc("unanswered");
                return refuse(conn.stream, &record, Reason::DiscoveryUnavailable);
            }
            Known::Inside(Meaning::Unmeshed) => {
                meanings.inc("unmeshed");
                return Box::pin(self.pass_through(conn, &record)).await;
            }
            Known::Inside(Meaning::Unknown) => {
                meanings.inc("unknown");
                return Box::pin(self.pass_through(conn, &record)).await;
            }
            Known::Inside(Meaning::Service(port)) => {
                meanings.inc("service");
                record.service(&port);
                Target::Service(port)
            }
            Known::Inside(Meaning::Workload(backend)) => {
                meanings.inc("workload");
                Target::Workload(backend)
            }
        };
        match target.protocol() {
            Protocol::Http1 => Box::pin(self.http1(conn, BytesMut::new(), target, record)).await,
            Protocol::Http2 => Box::pin(self.http2(conn, BytesMut::new(), target, record)).await,
            Protocol::Opaque | Protocol::Tls => {
                Box::pin(self.opaque(conn, BytesMut::new(), &target, None, &record)).await
            }
            Protocol::Detect => Box::pin(self.detect(conn, target, record)).await,
        }
    }

    /// Waits even while the control plane is known to be away: a replica takes
    /// over, or a restart ends, within the time of one answer, and a refusal is
    /// for no answer alone. What was ever learnt is there at once, without it.
    async fn meaning(&self, address: SocketAddr) -> Known {
        let snapshot = Arc::clone(&self.cx.snapshot.borrow());
        if let Some(meaning) = snapshot.lookup(address) {
            return Known::Inside(meaning.clone());
        }
        if snapshot.revision > 0 && !snapshot.is_inside(address.ip()) {
            return Known::Outside;
        }
        match timeout(self.config.ask_timeout, self.asker.ask(address)).await {
            Ok(Some(newer)) => match newer.lookup(address) {
                Some(meaning) => Known::Inside(meaning.clone()),
                None if !newer.is_inside(address.ip()) => Known::Outside,
                None => Known::NoAnswer,
            },
            Ok(None) | Err(_) => Known::NoAnswer,
        }
    }

    async fn detect(&self, conn: Conn, target: Target, record: ConnectionRecord) {
        let mut first = BytesMut::new();
        let dialled = RefCell::new(None);
        let heard = {
            let listening = pin!(self.speculate(&target, &dialled));
            detect::first_bytes(&conn.stream, &mut first, listening, &self.config.patience).await
        };
        let verdicts = &record.metrics().detect.verdicts;
        match heard {
            Ok(First::Client(Verdict::Http1)) => {
                verdicts.inc("http1");
                self.unused(dialled.into_inner());
                Box::pin(self.http1(conn, first, target, record)).await;
            }
            Ok(First::Client(Verdict::Http2)) => {
                verdicts.inc("http2");
                self.unused(dialled.into_inner());
                Box::pin(self.http2(conn, first, target, record)).await;
            }
            Ok(First::Client(verdict)) => {
                verdicts.inc(if verdict == Verdict::Tls {
                    "tls"
                } else {
                    "opaque"
                });
                Box::pin(self.opaque(conn, first, &target, dialled.into_inner(), &record)).await;
            }
            Ok(First::Server(Heard::Spoke)) | Ok(First::ClientFinished) => {
                verdicts.inc("server-first");
                Box::pin(self.opaque(conn, first, &target, dialled.into_inner(), &record)).await;
            }
            Ok(First::Server(Heard::Failed(reason))) => refuse(conn.stream, &record, reason),
            Err(_) => record.opaque().finish(Outcome::CallerLeft),
        }
    }

    /// A speculative connection that nobody needs: it counts nowhere else.
    fn unused(&self, dialled: Option<Dialled>) {
        if let Some(dialled) = dialled {
            drop(dialled);
            self.recorder.metrics().detect.speculative_unused.inc();
        }
    }

    async fn http1(&self, conn: Conn, first: BytesMut, target: Target, record: ConnectionRecord) {
        let Conn {
            stream,
            destination,
            slot,
            ..
        } = conn;
        self.server(target, destination.0, record)
            .http1(Wire::tcp(stream, first))
            .await;
        drop(slot);
    }

    async fn http2(&self, conn: Conn, first: BytesMut, target: Target, record: ConnectionRecord) {
        let Conn {
            stream,
            destination,
            slot,
            ..
        } = conn;
        self.server(target, destination.0, record)
            .http2(Prefixed::new(first, stream))
            .await;
        drop(slot);
    }

    fn server(
        &self,
        target: Target,
        destination: SocketAddr,
        record: ConnectionRecord,
    ) -> Server<ToService> {
        Server {
            cx: Rc::clone(&self.cx),
            planner: ToService {
                cx: Rc::clone(&self.cx),
                destination,
                last: RefCell::new(target),
            },
            record,
            config: Rc::clone(&self.http),
            drain: self.drain.clone(),
            is_mesh: false,
        }
    }
}

/// What could be learnt of a destination.
enum Known {
    Inside(Meaning),
    /// Not one of the mesh's addresses.
    Outside,
    NoAnswer,
}

fn refuse(stream: TcpStream, record: &ConnectionRecord, reason: Reason) {
    sock::reset(stream);
    record
        .opaque()
        .finish(Outcome::Faulted(reason.at(Side::Outbound)));
}

/// Plans the requests of one connection.
struct ToService {
    cx: Rc<Context>,
    destination: SocketAddr,
    /// What the destination was last known to be: a connection outlives a
    /// subscription that nobody used.
    last: RefCell<Target>,
}

impl Planner for ToService {
    fn plan(&self, request: &impl Request) -> Result<Plan, Denial> {
        let snapshot = self.cx.snapshot.borrow();
        let newer = match snapshot.lookup(self.destination) {
            Some(Meaning::Service(port)) => Some(Target::Service(Arc::clone(port))),
            Some(Meaning::Workload(backend)) => Some(Target::Workload(Arc::clone(backend))),
            Some(Meaning::Unmeshed | Meaning::Unknown) | None => None,
        };
        let mut target = self.last.borrow_mut();
        if let Some(newer) = newer {
            *target = newer;
        }
        match &*target {
            Target::Workload(backend) => Ok(Plan {
                permit: Permit::outbound(None),
                rule: None,
                filters: None,
                backend: Arc::clone(backend),
            }),
            Target::Service(port) => {
                let choice = route::choose(port, request).map_err(|reason| Denial {
                    reason,
                    policy: None,
                })?;
                Ok(Plan {
                    rule: choice.rule.cloned(),
                    filters: choice.filters.cloned(),
                    backend: Arc::clone(choice.backend),
                    permit: Permit::outbound(choice.path),
                })
            }
        }
    }
}
