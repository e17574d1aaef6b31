//! One worker: its listeners, its pools, and what keeps them current.
//!
//! Everything here lives on one thread. A new snapshot comes by message and
//! takes the place of the old one between two polls.

mod pools;

use std::{
    cell::RefCell, collections::HashSet, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use crate::{
    clock::Epoch,
    config::Config,
    detect::Patience,
    discovery::{Asker, Backend, EndpointKey, Meaning, Snapshot},
    drain,
    http::{exchange::Context, h1::Limits, mirror::Mirrors, server},
    inbound::{self, Inbound, Locals},
    listen::{Gate, Listener, Origin},
    outbound::{self, Outbound},
    outcome::Side,
    record::{Recorder, Shared},
    runtime::Tasks,
    sock::{self, Liveness, Source},
    tls::certs::Store,
    upstream::{
        balance::Averages,
        connect::Connector,
        pool::{self, Pool},
    },
};

pub(crate) use pools::Look;

/// What every worker is built from.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    outbound_listen: SocketAddr,
    inbound_listen: SocketAddr,
    liveness: Liveness,
    mark: Option<u32>,
    origin: Origin,
    outbound_gate: Gate,
    inbound_gate: Gate,
    own_ports: Arc<[u16]>,
    grace: Duration,
    http: server::Config,
    pool: pool::Config,
    outbound: outbound::Config,
    inbound: inbound::Config,
    namespace: Arc<str>,
    pod: Arc<str>,
}

/// How we tell that a peer's machine has gone.
pub(super) fn liveness(config: &Config) -> Liveness {
    Liveness {
        idle: config.sockets.keepalive,
        unacknowledged: config.sockets.user_timeout,
        ..Liveness::default()
    }
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let limits = Limits {
            head_bytes: config.http.max_header_bytes,
            fields: config.http.max_headers,
            target_bytes: config.http.max_target_bytes,
            trailer_bytes: config.http.max_header_bytes,
            ..Limits::default()
        };
        let patience = Patience {
            silence: config.detect.client_silence,
            ..Patience::default()
        };
        let ports = [
            config.listen.outbound,
            config.listen.inbound,
            config.admin.metrics,
            config.admin.health,
            config.admin.debug,
        ];
        Self {
            outbound_listen: config.listen.outbound,
            inbound_listen: config.listen.inbound,
            liveness: liveness(config),
            mark: config.sockets.mark,
            origin: Origin::Kernel,
            outbound_gate: Gate::new(config.listen.max_connections),
            inbound_gate: Gate::new(config.listen.max_connections),
            own_ports: ports.map(|address| address.port()).into(),
            grace: config.drain.grace,
            http: server::Config {
                limits,
                header_timeout: config.http.header_timeout,
                keep_alive: config.http.keep_alive,
                streams: config.http.max_streams,
                stream_window: config.http.stream_window,
                connection_window: config.http.connection_window,
                resets: config.http.max_pending_resets,
            },
            pool: pool::Config {
                idle_per_endpoint: config.pool.max_idle,
                idle_timeout: config.pool.idle_timeout,
                connections_per_endpoint: 8,
                streams_per_connection: config.http.max_streams,
                stream_window: config.http.stream_window,
                connection_window: config.http.connection_window,
                header_bytes: u32::try_from(config.http.max_header_bytes).unwrap_or(u32::MAX),
            },
            outbound: outbound::Config {
                patience,
                ask_timeout: config.control.ask_timeout,
            },
            inbound: inbound::Config {
                patience,
                hello_timeout: config.detect.handshake_timeout,
            },
            namespace: config.pod.namespace.as_str().into(),
            pod: config.pod.name.as_str().into(),
        }
    }
}

/// What all workers hold together.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    pub(crate) asker: Asker,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) certificates: Arc<Store>,
    pub(crate) shared: Shared,
    pub(crate) epoch: Epoch,
    pub(crate) phase: drain::Watch,
}

/// Carries traffic until the proxy has stopped.
pub(crate) async fn run(
    settings: Settings,
    shares: Shares,
    bound: oneshot::Sender<io::Result<()>>,
    looks: mpsc::Receiver<Look>,
) {
    let listen = |address| sock::listener(address, &settings.liveness);
    let listening = listen(settings.outbound_listen)
        .and_then(|out| Ok((out, listen(settings.inbound_listen)?)));
    let (outbound_socket, inbound_socket) = match listening {
        Ok(sockets) => sockets,
        Err(error) => {
            // Whoever started us tells.
            let _ = bound.send(Err(error));
            return;
        }
    };
    let _ = bound.send(Ok(()));
    let listener = |socket, gate: &Gate| Listener {
        socket,
        origin: settings.origin.clone(),
        gate: gate.clone(),
        own_ports: Arc::clone(&settings.own_ports),
        grace: settings.grace,
    };
    let worker = Worker::new(&settings, &shares);
    let mut tasks = Tasks::new();
    tasks.spawn(Rc::clone(&worker).keep_current(shares.snapshots.clone()));
    tasks.spawn(Rc::clone(&worker).sweep());
    tasks.spawn(Rc::clone(&worker).show(looks));
    let outbound = listener(outbound_socket, &settings.outbound_gate).accept(
        |arrival| Rc::clone(&worker.outbound).story(arrival),
        shares.phase.clone(),
    );
    let inbound = listener(inbound_socket, &settings.inbound_gate).accept(
        |arrival| Rc::clone(&worker.inbound).story(arrival),
        shares.phase.clone(),
    );
    tokio::join!(outbound, inbound);
}

struct Worker {
    outbound: Rc<Outbound>,
    inbound: Rc<Inbound>,
}

impl Worker {
    fn new(settings: &Settings, shares: &Shares) -> Rc<Self> {
        let recorder = Recorder::new(shares.shared.clone());
        let http = Rc::new(settings.http.clone());
        let outbound = Outbound {
            config: settings.outbound.clone(),
            http: Rc::clone(&http),
            cx: context(Side::Outbound, settings, shares),
            recorder: recorder.clone(),
            asker: shares.asker.clone(),
            drain: shares.phase.clone(),
        };
        let inbound = Inbound {
            config: settings.inbound.clone(),
            http,
            cx: context(Side::Inbound, settings, shares),
            recorder,
            certificates: Arc::clone(&shares.certificates),
            snapshots: shares.snapshots.clone(),
            drain: shares.phase.clone(),
            locals: Locals::new(&settings.namespace, &settings.pod),
        };
        Rc::new(Self {
            outbound: Rc::new(outbound),
            inbound: Rc::new(inbound),
        })
    }

    /// Takes each new snapshot, and forgets what it no longer holds.
    async fn keep_current(self: Rc<Self>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        while snapshots.changed().await.is_ok() {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let held = endpoints(&snapshot);
            let cx = &self.outbound.cx;
            cx.pool.retain(|key| held.contains(&key));
            cx.averages.borrow_mut().retain(|key| held.contains(&key));
            *cx.snapshot.borrow_mut() = Arc::clone(&snapshot);
            *self.inbound.cx.snapshot.borrow_mut() = snapshot;
        }
    }

    /// Ends connections that were idle for too long.
    async fn sweep(self: Rc<Self>) {
        loop {
            sleep(SWEEP).await;
            let now = Instant::now();
            self.outbound.cx.pool.expire(now);
            self.inbound.cx.pool.expire(now);
        }
    }
}

/// Idle connections end at most so much later than they should.
const SWEEP: Duration = Duration::from_secs(5);

fn context(side: Side, settings: &Settings, shares: &Shares) -> Rc<Context> {
    let source = Source {
        inbound: side == Side::Inbound,
        mark: settings.mark,
    };
    let metrics = shares.shared.metrics();
    let connector = Connector::new(
        source,
        settings.liveness,
        Arc::clone(&shares.certificates),
        Arc::clone(metrics),
    );
    let pool = Pool::new(settings.pool.clone(), connector, Arc::clone(metrics));
    let limits = settings.http.limits;
    Rc::new(Context {
        side,
        snapshot: RefCell::new(Arc::clone(&shares.snapshots.borrow())),
        mirrors: Mirrors::new(Rc::clone(&pool), limits, metrics.mirror.requests.clone()),
        pool,
        averages: RefCell::new(Averages::new()),
        random: RefCell::new(fastrand::Rng::new()),
        epoch: shares.epoch,
        limits,
    })
}

/// Every endpoint that some destination may choose.
fn endpoints(snapshot: &Snapshot) -> HashSet<EndpointKey> {
    let mut held = HashSet::new();
    backends(snapshot, |backend| {
        held.extend(backend.endpoints.iter().map(|endpoint| endpoint.key));
    });
    held
}

/// Visits every destination; one that several routes lead to more than once.
fn backends(snapshot: &Snapshot, mut visit: impl FnMut(&Backend)) {
    for known in snapshot.addresses.values() {
        match &known.meaning {
            Meaning::Workload(backend) => visit(backend),
            Meaning::Service(port) => {
                visit(&port.default);
                let rules = port.routes.iter().flat_map(|routes| &routes.entries);
                for backend in rules.flat_map(|(_, rule)| rule.destinations()) {
                    visit(backend);
                }
            }
            Meaning::Unmeshed | Meaning::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests;
