//! The story of a connection that arrives for our workload.
//!
//! After `listen`. Mesh TLS is finished and names the peer; everything else is
//! plaintext, which only a permissive port admits. `authz` judges each request
//! over the snapshot of that moment, and opaque connections at their start and
//! at every change. What is admitted goes to the original destination, from
//! 127.0.0.6 or ::6.

mod local;

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{net::TcpStream, sync::watch};

use crate::{
    addr::OrigDst,
    around::Prefixed,
    authz::{self, Denial},
    detect::{self, First, Hello, Patience, Verdict},
    discovery::{Backend, Protocol, Snapshot},
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
    sock,
    tls::{
        Alpn,
        accept::{self, Accepted},
        certs::Store,
    },
    wire::Wire,
};

use local::{Caller, Heard};

pub(crate) use local::Locals;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) patience: Patience,
    /// Until a ClientHello must be complete.
    pub(crate) hello_timeout: Duration,
}

/// One worker's inbound side.
pub(crate) struct Inbound {
    pub(crate) config: Config,
    pub(crate) http: Rc<server::Config>,
    pub(crate) cx: Rc<Context>,
    pub(crate) recorder: Recorder,
    pub(crate) certificates: Arc<Store>,
    /// Told of every snapshot: opaque connections are judged again.
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) drain: drain::Watch,
    pub(crate) locals: Locals,
}

impl Inbound {
    pub(crate) async fn story(self: Rc<Self>, arrival: Arrival) {
        match arrival {
            Arrival::Refused(refused) => refused.record(Side::Inbound, &self.recorder),
            Arrival::Accepted(conn) => self.connection(conn).await,
        }
    }

    async fn connection(&self, conn: Conn) {
        let record = self
            .recorder
            .connection(Side::Inbound, conn.peer, conn.destination);
        let port = conn.destination.0.port();
        let Some(protocol) = self.protocol(port, &record) else {
            return refuse(conn.stream, &record, Reason::PolicyMissing);
        };
        let mut first = BytesMut::new();
        let mut heard = None;
        let spoke = {
            let listening = pin!(self.listen_to_application(&conn, protocol, &mut heard));
            detect::first_bytes(&conn.stream, &mut first, listening, &self.config.patience).await
        };
        let verdict = match spoke {
            Ok(First::Client(verdict)) => verdict,
            // The application spoke first, or the caller only listens.
            Ok(First::Server(Heard::Spoke) | First::ClientFinished) => Verdict::Opaque,
            Ok(First::Server(Heard::Failed(reason))) => {
                return refuse(conn.stream, &record, reason);
            }
            Err(_) => return record.opaque().finish(Outcome::CallerLeft),
        };
        if verdict == Verdict::Tls {
            match detect::read_client_hello(&conn.stream, &mut first, self.config.hello_timeout)
                .await
            {
                Ok(Hello::Complete(hello)) if hello.is_mesh() => {
                    return Box::pin(self.mesh(conn, first, heard, record)).await;
                }
                Ok(_) => {}
                Err(_) => return record.opaque().finish(Outcome::CallerLeft),
            }
        }
        Box::pin(self.plaintext(conn, first, verdict, heard, record)).await;
    }

    /// What the workload says of the port; `None` before the first configuration.
    fn protocol(&self, port: u16, record: &ConnectionRecord) -> Option<Protocol> {
        let snapshot = self.cx.snapshot.borrow();
        let workload = snapshot.workload.as_ref()?;
        let declared = workload.ports.get(&port);
        if declared.is_some() {
            record.port(port);
        }
        Some(declared.map_or(Protocol::Detect, |declared| declared.protocol))
    }

    async fn mesh(
        &self,
        conn: Conn,
        first: BytesMut,
        heard: Option<local::Dialled>,
        record: ConnectionRecord,
    ) {
        let Conn {
            stream,
            destination,
            slot,
            ..
        } = conn;
        let results = &self.recorder.metrics().tls.accepted;
        let Accepted {
            stream,
            peer,
            alpn,
            session,
        } = match accept::accept(Prefixed::new(first, stream), &self.certificates).await {
            Ok(accepted) => accepted,
            Err(reason) => {
                results.inc(reason.as_str());
                return record
                    .opaque()
                    .finish(Outcome::Faulted(reason.at(Side::Inbound)));
            }
        };
        results.inc("ok");
        record.peer(&peer);
        match alpn {
            Alpn::Http => {
                // Its pool has connections of its own.
                drop(heard);
                let server = self.server(destination, peer, true, record);
                tokio::select! {
                    () = server.http2(stream) => {}
                    () = self.certificates.ended(&session) => {}
                }
            }
            Alpn::Tcp => {
                let caller = Caller {
                    peer: &peer,
                    destination,
                    session: Some(&session),
                    dialled: heard,
                };
                Box::pin(self.opaque(stream, BytesMut::new(), caller, &record)).await;
            }
        }
        drop(slot);
    }

    async fn plaintext(
        &self,
        conn: Conn,
        first: BytesMut,
        verdict: Verdict,
        heard: Option<local::Dialled>,
        record: ConnectionRecord,
    ) {
        let Conn {
            stream,
            destination,
            slot,
            ..
        } = conn;
        record.peer(&Peer::Plaintext);
        self.recorder.metrics().inbound.plaintext.inc();
        let declared = self.protocol(destination.0.port(), &record);
        let is_opaque = matches!(declared, Some(Protocol::Opaque | Protocol::Tls));
        match verdict {
            Verdict::Http1 if !is_opaque => {
                let server = self.server(destination, Peer::Plaintext, false, record);
                server.http1(Wire::tcp(stream, first)).await;
            }
            Verdict::Http2 if !is_opaque => {
                let server = self.server(destination, Peer::Plaintext, false, record);
                server.http2(Prefixed::new(first, stream)).await;
            }
            _ => {
                let caller = Caller {
                    peer: &Peer::Plaintext,
                    destination,
                    session: None,
                    dialled: heard,
                };
                Box::pin(self.opaque(stream, first, caller, &record)).await;
            }
        }
        drop(slot);
    }

    fn server(
        &self,
        destination: OrigDst,
        peer: Peer,
        is_mesh: bool,
        record: ConnectionRecord,
    ) -> Server<ToWorkload> {
        Server {
            cx: Rc::clone(&self.cx),
            planner: ToWorkload {
                cx: Rc::clone(&self.cx),
                peer,
                port: destination.0.port(),
                backend: self.locals.backend(destination.0),
            },
            record,
            config: Rc::clone(&self.http),
            drain: self.drain.clone(),
            is_mesh,
        }
    }
}

fn refuse(stream: TcpStream, record: &ConnectionRecord, reason: Reason) {
    sock::reset(stream);
    record
        .opaque()
        .finish(Outcome::Faulted(reason.at(Side::Inbound)));
}

/// Plans the requests of one connection.
struct ToWorkload {
    cx: Rc<Context>,
    peer: Peer,
    port: u16,
    backend: Arc<Backend>,
}

impl Planner for ToWorkload {
    fn plan(&self, request: &impl Request) -> Result<Plan, Denial> {
        let snapshot = self.cx.snapshot.borrow();
        let Some(workload) = &snapshot.workload else {
            return Err(Denial {
                reason: Reason::PolicyMissing,
                policy: None,
            });
        };
        let permit = authz::admit(workload, self.port, &self.peer, request)?;
        Ok(Plan {
            permit,
            rule: None,
            filters: None,
            backend: Arc::clone(&self.backend),
        })
    }
}
