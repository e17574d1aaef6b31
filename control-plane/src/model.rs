//! Workloads, services, routes and policies as the mesh sees them.
//!
//! Plain types, std only. Sources make them from manifests (here, routes in
//! `route`, policies in `policy`), `index` joins them, `serve` renders what
//! `index` joined (`resolved`), and what it judged (`verdict`) is written back.
//! Never parses, never waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

mod injection;
mod name;
mod origin;
mod policy;
mod resolved;
mod route;
mod verdict;

pub use injection::{INJECT, wants_proxy};
pub use name::{Name, Named};
pub use origin::{Moved, Origin};
pub use policy::{
    AccessPolicy, AccessRule, AccessTarget, BackendPolicy, BackendPolicyObject, LoadBalancing,
};
pub use resolved::{
    Change, Endpoint, Hints, Meaning, ResolvedAccess, ResolvedPort, ResolvedService,
    ResolvedWorkload,
};
pub use route::{
    BackendRef, Broken, Cors, Destination, Filter, GrpcMatch, HeaderModifier, Match, Mirror,
    Parent, PathMatch, PathModifier, Redirect, Refused, Rewrite, Route, RouteKind, RouteRetry,
    Rule, TextMatch,
};
pub use verdict::{CONTROLLER, Condition, ConditionKind, Entry, Reason, Reference, Verdict};

/// A service's port, as a destination.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendName {
    pub service: Name,
    pub port: u16,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// One object has this content now, or is gone.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all apply: a box would cost an allocation each and save nothing"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Apply(Object),
    Delete(Key),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub kind: Kind,
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Namespace,
    Service,
    EndpointSlice,
    Pod,
    HttpRoute,
    GrpcRoute,
    BackendPolicy,
    AccessPolicy,
    Node,
    ServiceRange,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::BackendPolicy => "BackendPolicy",
            Self::AccessPolicy => "AccessPolicy",
            Self::Node => "Node",
            Self::ServiceRange => "ServiceCIDR",
        }
    }
}

/// A manifest, parsed and valid by itself. What it refers to may not exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    Namespace(Namespace),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    Route(Route),
    BackendPolicy(BackendPolicyObject),
    AccessPolicy(AccessPolicy),
    Node(Node),
    ServiceRange(ServiceRange),
}

impl Object {
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Namespace(it) => (Kind::Namespace, Name::new("", &it.name)),
            Self::Service(it) => (Kind::Service, it.name.clone()),
            Self::EndpointSlice(it) => (Kind::EndpointSlice, it.name.clone()),
            Self::Pod(it) => (Kind::Pod, it.name.clone()),
            Self::Route(it) => (it.kind.into(), it.name.clone()),
            Self::BackendPolicy(it) => (Kind::BackendPolicy, it.name.clone()),
            Self::AccessPolicy(it) => (Kind::AccessPolicy, it.name.clone()),
            Self::Node(it) => (Kind::Node, Name::new("", &it.name)),
            Self::ServiceRange(it) => (Kind::ServiceRange, Name::new("", &it.name)),
        };
        Key { kind, name }
    }
}

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    pub name: Name,
    /// 0 where the manifest doesn't say. Of two that claim one address the
    /// older has it, then the first by name.
    pub created_milliseconds: i64,
    /// ClusterIPs; empty for headless ones.
    pub addresses: BTreeSet<IpAddr>,
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    pub publish_not_ready: bool,
    /// `sessionAffinity: ClientIP`: for so long after its last call a client
    /// stays with its endpoint; 0 is none.
    pub affinity_seconds: u32,
    /// `internalTrafficPolicy: Local`.
    pub own_node_only: bool,
    pub distribution: Distribution,
}

/// `trafficDistribution`. A cluster makes hints of it in EndpointSlices; where
/// there are none `index` does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Distribution {
    #[default]
    Anywhere,
    /// `PreferSameZone`, or `PreferClose`, its old name.
    SameZone,
    /// `PreferSameNode`; where there is none on it, in its zone.
    SameNode,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
    pub target: TargetPort,
    pub protocol: Protocol,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    Number(u16),
    Named(String),
}

impl Default for TargetPort {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub enum Protocol {
    #[default]
    Detect,
    Http1,
    Http2,
    Opaque,
    Tls,
}

/// discovery.k8s.io/v1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EndpointSlice {
    pub name: Name,
    /// From the label `kubernetes.io/service-name`.
    pub service: String,
    /// Port name → number.
    pub ports: BTreeMap<String, u16>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SliceEndpoint {
    pub addresses: Vec<IpAddr>,
    /// `targetRef` of kind Pod, in the slice's namespace.
    pub pod: Option<String>,
    /// Of that pod; empty where the slice doesn't say.
    pub pod_uid: String,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Empty where the slice doesn't say.
    pub node: String,
    pub zone: String,
    pub hints: Option<Box<Hints>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    pub name: Name,
    /// `metadata.uid`; where a manifest has none, the source derives one from
    /// what makes the pod another one: its name, addresses and account.
    pub uid: String,
    /// Replicas have these in common, ports and probes too: a source that has
    /// many keeps each once.
    pub labels: Arc<Labels>,
    pub service_account: String,
    pub addresses: Vec<IpAddr>,
    /// Container ports by name, for named target ports.
    pub ports: Arc<BTreeMap<String, u16>>,
    /// Whether it has been given a proxy; `None`: nobody says, so it has what it
    /// is to have (`wants_proxy`).
    pub injected: Option<bool>,
    /// What its own label `weft.dev/inject` says.
    pub asked: Option<bool>,
    /// Shares its node's addresses, so it has no proxy and owns none of them.
    pub host_network: bool,
    pub ready: bool,
    pub terminating: bool,
    /// Its containers have ended for good; it keeps its name and no address.
    pub finished: bool,
    /// Where it runs; empty where nobody said.
    pub node: String,
    /// Its own label's; else its node's holds.
    pub zone: String,
    /// 1 to 65,535.
    pub weight: u32,
    /// Inbound ports that its redirection leaves out.
    pub excluded_ports: BTreeSet<u16>,
    /// What probes it, with named ports resolved.
    pub probes: Arc<Vec<Probe>>,
}

/// A container's liveness, readiness or startup probe over the network.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Probe {
    pub port: u16,
    pub kind: ProbeKind,
}

#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum ProbeKind {
    Tcp,
    Grpc,
    /// Its path.
    Http(String),
}

/// Where pods run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    pub name: String,
    pub zone: String,
    /// Base address and prefix length of what its pods' addresses come from.
    pub pod_ranges: Vec<(IpAddr, u8)>,
}

/// What ClusterIPs come from (networking.k8s.io/v1, ServiceCIDR).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceRange {
    pub name: String,
    pub ranges: Vec<(IpAddr, u8)>,
}

/// What a source can't take: where, why, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileProblem {
    /// Path below the watched directory; empty for an object of a cluster.
    pub file: String,
    /// From 0; `None` where it is the whole file's.
    pub document: Option<usize>,
    /// From 1; 0 where none is known.
    pub line: u64,
    /// As far as the document told.
    pub object: Option<Key>,
    pub field: String,
    pub message: String,
    pub remedy: String,
    /// What is answered to the object, where somebody reads its status.
    pub verdict: Option<Verdict>,
}

/// Something an object says that can't hold; the rest of it, or its last good
/// state, keeps serving.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    pub object: Key,
    /// JSON path in the object: `spec.rules[0].backendRefs[1]`.
    pub field: String,
    pub message: String,
    pub remedy: String,
}
