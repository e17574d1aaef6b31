//! What the proxy knows: one immutable value, replaced whole, shared by `Arc`.
//!
//! Data. `control::decode` builds it from validated resources; each worker
//! holds its own `Arc<Snapshot>`; decisions are pure functions over it. What
//! must be counted across workers and outlive a snapshot (breaker, limits,
//! budget, weights) hangs on it as atomics in `cells`. Never does I/O.

mod backend;
mod cells;
mod cors;
mod expression;
mod filters;
mod health;
mod locality;
mod policy;
mod routes;
#[cfg(test)]
pub(crate) mod samples;
mod schedule;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use crate::{addr::Range, identity::SpiffeId};

pub(crate) use backend::{Backend, Tier};
pub(crate) use cells::{BackendCells, EndpointCells, Places, RuleCells, Waiter};
pub(crate) use cors::{Cors, Names, Origin};
pub(crate) use expression::{Expression, Text};
pub(crate) use filters::{FieldEdits, Filters, Mirror, PathEdit, Redirect, RequestEdits};
pub(crate) use health::{Health, Rejected, Status, Stream};
pub(crate) use locality::{Here, Hints};
pub(crate) use policy::{BackendPolicy, CircuitBreaking, Limits, LoadBalancing, Retries, Timeouts};
pub(crate) use routes::{
    GrpcMatch, HeaderMatch, Match, PathMatch, QueryMatch, RouteTable, Rule, WeightedBackend,
};
pub(crate) use schedule::Schedule;

/// Everything, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Counts publications; a greater one is newer.
    pub(crate) revision: u64,
    /// The mesh's addresses. Outside them traffic passes through unasked.
    pub(crate) ranges: Arc<[Range]>,
    /// What the addresses that were asked for mean. Read by `lookup`.
    pub(crate) addresses: HashMap<SocketAddr, Known>,
    /// Our own pod; `None` until the control plane has told.
    pub(crate) workload: Option<Arc<Workload>>,
}

impl Snapshot {
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// What `address` means, if it was asked for and answered. Tells that it
    /// is in use: what nobody looks up for long is unsubscribed.
    pub(crate) fn lookup(&self, address: SocketAddr) -> Option<&Meaning> {
        let known = self.addresses.get(&address)?;
        // Looked at first, so that the line stays shared between workers.
        if !known.used.load(Ordering::Relaxed) {
            known.used.store(true, Ordering::Relaxed);
        }
        Some(&known.meaning)
    }
}

/// The answer to a question, and whether anyone still wants it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) meaning: Meaning,
    /// Lives as long as the subscription; `control` clears it now and then.
    pub(crate) used: Arc<AtomicBool>,
}

impl From<Meaning> for Known {
    fn from(meaning: Meaning) -> Self {
        Self {
            meaning,
            used: Arc::default(),
        }
    }
}

/// What an address is.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    Service(Arc<ServicePort>),
    /// A pod's own address: mTLS to that pod, no route applies. A backend of
    /// one endpoint, with the defaults of a policy.
    Workload(Arc<Backend>),
    /// Known, and without a proxy.
    Unmeshed,
    /// The control plane knows nothing of it.
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ServiceName {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of a service: what a connection to its address gets.
#[derive(Debug)]
pub(crate) struct ServicePort {
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// `None` where no route is attached: requests go to `default`. With
    /// routes, a request that none matches is refused (GEP-1294).
    pub(crate) routes: Option<RouteTable>,
    /// The port's own endpoints.
    pub(crate) default: Arc<Backend>,
}

/// From `appProtocol`; `Detect` where it says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) enum Protocol {
    #[default]
    Detect,
    Http1,
    Http2,
    Opaque,
    Tls,
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Opaque => "opaque",
            Self::Tls => "tls",
        }
    }
}

/// Identifies a workload's port for as long as the proxy lives; never re-used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct EndpointKey(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) key: EndpointKey,
    pub(crate) uid: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) namespace: Arc<str>,
    pub(crate) pod: Arc<str>,
    pub(crate) security: Security,
    pub(crate) protocol: Protocol,
    /// Where it runs; empty where nobody said.
    pub(crate) node: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) hints: Hints,
    /// 1 to 65,535.
    pub(crate) weight: u32,
    pub(crate) state: EndpointState,
    /// Of this endpoint as a member of one backend: two services that share a
    /// pod judge it apart, each by its own policy and fraction.
    pub(crate) cells: Arc<EndpointCells>,
}

/// How to reach an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Security {
    /// Its proxy must prove `identity`, and accepts these protocols.
    Mesh {
        identity: SpiffeId,
        http: bool,
        tcp: bool,
    },
    /// It has no proxy, or none on this port.
    Unmeshed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndpointState {
    Ready,
    /// Gets no new request while another one is ready.
    Draining,
}

/// Our own pod: what arrives for it, and who may call.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: Arc<str>,
    pub(crate) pod: Arc<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) here: Here,
    pub(crate) ports: HashMap<u16, WorkloadPort>,
    /// For ports that `ports` doesn't name.
    pub(crate) default_access: Access,
}

#[derive(Debug, Default)]
pub(crate) struct WorkloadPort {
    pub(crate) protocol: Protocol,
    pub(crate) access: Access,
}

/// Who may call, in the order in which it is asked: mTLS, deny, allow, default.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Access {
    pub(crate) strict: bool,
    pub(crate) deny: Vec<AccessRule>,
    pub(crate) allow: Vec<AccessRule>,
    pub(crate) default_deny: bool,
}

/// All of its conditions; an empty condition always holds.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct AccessRule {
    /// "namespace/name#index", named in the refusal.
    pub(crate) policy: Arc<str>,
    pub(crate) identities: Vec<SpiffeId>,
    pub(crate) namespaces: Vec<Box<str>>,
    pub(crate) methods: Vec<Box<str>>,
    /// Segment prefixes, canonical, without a trailing slash.
    pub(crate) path_prefixes: Vec<Box<str>>,
}

/// A question to the control plane: what does this address mean?
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) address: SocketAddr,
    /// Answered with the first snapshot that knows it.
    pub(crate) reply: oneshot::Sender<Arc<Snapshot>>,
}

/// Asks. Cheap to clone; bounded: a full queue is no answer.
#[derive(Clone, Debug)]
pub(crate) struct Asker(mpsc::Sender<Question>);

impl Asker {
    /// At most `bound` questions wait.
    pub(crate) fn channel(bound: usize) -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(bound);
        (Self(sender), receiver)
    }

    /// `None` when nobody answers: the caller bounds the wait.
    pub(crate) async fn ask(&self, address: SocketAddr) -> Option<Arc<Snapshot>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Question { address, reply }).await.ok()?;
        answer.await.ok()
    }
}
