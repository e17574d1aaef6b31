//! The rest of the outbound story where the bytes stay opaque, or may.
//!
//! Something must be dialled before anyone spoke, so after a short silence of
//! the client an endpoint is: if its server speaks first, the connection is
//! opaque and this is its upstream. Such dials count in no breaker and no
//! budget, and wait in no queue.

use std::{
    cell::RefCell,
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    detect,
    discovery::{Backend, BackendPolicy, Endpoint, EndpointKey},
    listen::Conn,
    outcome::{Outcome, Reason, Side},
    record::{ConnectionRecord, Record},
    sock,
    tcp::{Limits, Prefixes, Progress, carry},
    tls::certs::Session,
    upstream::{
        balance::{self, InFlight, Nobody},
        breaker::Verdict,
        connect::Opaque,
        queue::{self, Place},
    },
};

use super::{Outbound, Target, refuse};

/// An upstream for opaque bytes.
pub(super) struct Dialled {
    upstream: Opaque,
    endpoint: Arc<Endpoint>,
    /// What the server said already.
    said: BytesMut,
    place: Place,
    flight: InFlight,
}

/// What came of dialling before the client spoke.
pub(super) enum Heard {
    /// The server spoke or closed: the upstream is where it was asked to be.
    Spoke,
    Failed(Reason),
}

/// Until a dial that nobody has asked for looks again whether a place is free.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Outbound {
    /// Dials and listens, for as long as it takes the server to speak.
    pub(super) async fn speculate(
        &self,
        target: &Target,
        dialled: &RefCell<Option<Dialled>>,
    ) -> Heard {
        self.recorder.metrics().detect.speculative.inc();
        match self.dial_unasked(target.backend()).await {
            Ok(upstream) => *dialled.borrow_mut() = Some(upstream),
            // HTTP may still be carried there: the client has to speak.
            Err(Reason::OpaqueRefused) => return pending().await,
            // HTTP takes a pooled connection, or is told by a status; a client
            // that waits for the server to speak can't be kept waiting.
            Err(reason) => {
                let patience = match reason {
                    // It has waited already.
                    Reason::TooManyConnections => Duration::ZERO,
                    _ => self.config.patience.refusal,
                };
                sleep(patience).await;
                return Heard::Failed(reason);
            }
        }
        poll_fn(|cx| match dialled.borrow_mut().as_mut() {
            Some(upstream) => upstream.poll_hear(cx),
            None => Poll::Pending,
        })
        .await;
        let is_http2 = |it: &Dialled| detect::is_http2_greeting(&it.said);
        if dialled.borrow().as_ref().is_some_and(is_http2) {
            return pending().await;
        }
        Heard::Spoke
    }

    /// A connection for a caller that has spoken, or whose port says enough.
    async fn dial_for(
        &self,
        backend: &Arc<Backend>,
        record: &mut Record,
    ) -> Result<Dialled, Reason> {
        let place = self.cx.pool.place(backend).await?;
        self.dial(backend, place, Some(record)).await
    }

    /// As `dial`, for whom nobody has asked yet: it takes a place that is free,
    /// now or within the time that others would wait for theirs, but no turn
    /// before those who have spoken, and in no idle connection's stead.
    async fn dial_unasked(&self, backend: &Arc<Backend>) -> Result<Dialled, Reason> {
        let until = Instant::now() + backend.policy.limits.pending_timeout;
        loop {
            match queue::connection_now(backend) {
                Some(place) => return self.dial(backend, place, None).await,
                None if Instant::now() >= until => return Err(Reason::TooManyConnections),
                None => sleep_until(until.min(Instant::now() + LOOK_AGAIN)).await,
            }
        }
    }

    /// A connection to one of the endpoints, each tried once; without a record
    /// before anyone spoke.
    async fn dial(
        &self,
        backend: &Arc<Backend>,
        place: Place,
        mut record: Option<&mut Record>,
    ) -> Result<Dialled, Reason> {
        let mut tried: smallvec::SmallVec<[EndpointKey; 4]> = smallvec::SmallVec::new();
        let mut last = None;
        loop {
            let mut flight = match self.pick(backend, &tried) {
                Ok(flight) => flight,
                Err(nobody) => return Err(last.unwrap_or_else(|| nobody.reason())),
            };
            let endpoint = Arc::clone(flight.endpoint());
            tried.push(endpoint.key);
            if let Some(record) = record.as_deref_mut() {
                record.attempt(&endpoint);
            }
            let connect = backend.policy.timeouts.connect;
            match self.cx.pool.connector.opaque(&endpoint, connect).await {
                Ok(upstream) => {
                    return Ok(Dialled {
                        upstream,
                        endpoint,
                        said: BytesMut::new(),
                        place,
                        flight,
                    });
                }
                Err(reason) => {
                    last = Some(reason);
                    if record.is_some()
                        && !matches!(reason, Reason::OpaqueRefused | Reason::CertificateMissing)
                    {
                        flight.report(
                            backend,
                            Verdict::Failure,
                            self.cx.epoch.milliseconds(Instant::now()),
                        );
                    }
                }
            }
        }
    }

    fn pick(&self, backend: &Arc<Backend>, tried: &[EndpointKey]) -> Result<InFlight, Nobody> {
        let now_ms = self.cx.epoch.milliseconds(Instant::now());
        let mut averages = self.cx.averages.borrow_mut();
        balance::pick(
            backend,
            &mut averages,
            tried,
            now_ms,
            &mut self.cx.random.borrow_mut(),
        )
    }

    /// Carries the connection to its end.
    pub(super) async fn opaque(
        &self,
        conn: Conn,
        first: BytesMut,
        target: &Target,
        dialled: Option<Dialled>,
        connection: &ConnectionRecord,
    ) {
        let backend = target.backend();
        let mut record = connection.opaque();
        record.planned(None, backend);
        let dialled = match dialled {
            Some(dialled) => {
                record.attempt(&dialled.endpoint);
                dialled
            }
            None => match self.dial_for(backend, &mut record).await {
                Ok(dialled) => dialled,
                Err(reason) => {
                    sock::reset(conn.stream);
                    record.finish(Outcome::Faulted(reason.at(Side::Outbound)));
                    return;
                }
            },
        };
        let Dialled {
            upstream,
            said,
            place,
            mut flight,
            ..
        } = dialled;
        let now_ms = self.cx.epoch.milliseconds(Instant::now());
        flight.report(backend, Verdict::Success, now_ms);
        let prefixes = Prefixes {
            from_downstream: first.freeze(),
            from_upstream: said.freeze(),
        };
        let limits = Limits::from(backend.policy.timeouts.idle);
        let progress = Progress::default();
        let ended = match upstream {
            Opaque::Plain(stream) => {
                carry(conn.stream, stream, prefixes, limits, &progress, pending()).await
            }
            Opaque::Mesh(mesh) => {
                let cut = self.session_over(&mesh.session);
                carry(conn.stream, mesh.stream, prefixes, limits, &progress, cut).await
            }
        };
        record.received(progress.to_upstream.get());
        record.sent(progress.to_downstream.get());
        record.finish(ended.outcome(Side::Outbound));
        drop((place, flight, conn.slot));
    }

    async fn session_over(&self, session: &Session) -> Reason {
        let certificates = &self.cx.pool.connector.certificates;
        certificates.ended(session).await;
        if certificates.wall().now() > session.ends {
            Reason::PeerExpired
        } else {
            Reason::PeerUntrusted
        }
    }

    /// To the original destination, as if we weren't there.
    pub(super) async fn pass_through(&self, conn: Conn, connection: &ConnectionRecord) {
        let connect = BackendPolicy::default().timeouts.connect;
        let stream = match self
            .cx
            .pool
            .connector
            .tcp(conn.destination.0, connect)
            .await
        {
            Ok(stream) => stream,
            Err(reason) => return refuse(conn.stream, connection, reason),
        };
        let mut record = connection.opaque();
        let progress = Progress::default();
        let limits = Limits::from(None);
        let ended = carry(
            conn.stream,
            stream,
            Prefixes::default(),
            limits,
            &progress,
            pending(),
        )
        .await;
        record.received(progress.to_upstream.get());
        record.sent(progress.to_downstream.get());
        record.finish(ended.outcome(Side::Outbound));
        drop(conn.slot);
    }
}

impl Dialled {
    /// Ready once the server said something, closed or broke: `carry` sees which.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [0; 4096];
        let mut into = ReadBuf::new(&mut room);
        let polled = match &mut self.upstream {
            Opaque::Plain(stream) => Pin::new(stream).poll_read(cx, &mut into),
            Opaque::Mesh(mesh) => Pin::new(&mut mesh.stream).poll_read(cx, &mut into),
        };
        if polled.is_ready() {
            self.said.extend_from_slice(into.filled());
        }
        polled.map(|_| ())
    }
}
