//! Workloads, services, routes and policies as the mesh sees them.
//!
//! Plain types, std only. Sources make them from manifests, `index` joins
//! them, `serve` renders what `index` joined. Never parses, never waits. One
//! page for all of the contract, so over the file's budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

/// "namespace/name".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

impl Name {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

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

// ── what sources say ────────────────────────────────────────────────────────

/// One object has this content now, or is gone.
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
    BackendPolicy,
    AccessPolicy,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::HttpRoute => "HTTPRoute",
            Self::BackendPolicy => "BackendPolicy",
            Self::AccessPolicy => "AccessPolicy",
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
    HttpRoute(HttpRoute),
    BackendPolicy(BackendPolicyObject),
    AccessPolicy(AccessPolicy),
}

impl Object {
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Namespace(it) => (Kind::Namespace, Name::new("", &it.name)),
            Self::Service(it) => (Kind::Service, it.name.clone()),
            Self::EndpointSlice(it) => (Kind::EndpointSlice, it.name.clone()),
            Self::Pod(it) => (Kind::Pod, it.name.clone()),
            Self::HttpRoute(it) => (Kind::HttpRoute, it.name.clone()),
            Self::BackendPolicy(it) => (Kind::BackendPolicy, it.name.clone()),
            Self::AccessPolicy(it) => (Kind::AccessPolicy, it.name.clone()),
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
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub zone: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    pub name: Name,
    /// `metadata.uid`; where a manifest has none, the source derives one from
    /// what makes the pod another one: its name, addresses and account.
    pub uid: String,
    pub labels: Labels,
    pub service_account: String,
    pub addresses: Vec<IpAddr>,
    /// Container ports by name, for named target ports.
    pub ports: BTreeMap<String, u16>,
    /// What its own label `weft.dev/inject` says; `None`: its namespace decides.
    pub inject: Option<bool>,
    /// Shares its node's addresses, so it has no proxy and owns none of them.
    pub host_network: bool,
    pub ready: bool,
    pub terminating: bool,
    pub zone: String,
    /// 1 to 65,535.
    pub weight: u32,
    /// Inbound ports that its redirection leaves out.
    pub excluded_ports: BTreeSet<u16>,
    /// What probes it, with named ports resolved.
    pub probes: Vec<Probe>,
}

/// A container's liveness, readiness or startup probe over the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    pub port: u16,
    pub kind: ProbeKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeKind {
    Tcp,
    Grpc,
    /// Its path.
    Http(String),
}

/// gateway.networking.k8s.io/v1, parents of kind Service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpRoute {
    pub name: Name,
    pub created_milliseconds: i64,
    pub parents: Vec<Parent>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parent {
    pub service: Name,
    /// `None`: every port.
    pub port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    pub name: String,
    pub matches: Vec<Match>,
    pub backends: Vec<BackendRef>,
    pub request_timeout_milliseconds: u64,
    pub backend_timeout_milliseconds: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    pub path: PathMatch,
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathMatch {
    Exact(String),
    Prefix(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendRef {
    pub backend: BackendName,
    pub weight: u32,
    /// Why it is unusable: by itself (a kind that is no Service) as a source
    /// says it, or because it refers to nothing, which the index adds.
    pub invalid: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendPolicyObject {
    pub name: Name,
    pub created_milliseconds: i64,
    /// Services in its own namespace.
    pub targets: Vec<String>,
    pub policy: BackendPolicy,
}

/// Milliseconds everywhere; 0 is none but for `connect`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendPolicy {
    pub load_balancing: LoadBalancing,
    pub consecutive_failures: u32,
    pub base_ejection: u64,
    pub max_ejection: u64,
    pub max_ejected_percent: u32,
    pub connections: u32,
    pub requests: u32,
    pub pending: u32,
    pub pending_timeout: u64,
    pub attempts: u32,
    pub retry_status_codes: Vec<u16>,
    pub retry_grpc_statuses: Vec<u8>,
    pub retry_non_idempotent: bool,
    pub per_try_timeout: u64,
    pub base_backoff: u64,
    pub max_backoff: u64,
    pub budget_percent: u32,
    pub budget_minimum_per_second: u32,
    pub connect_timeout: u64,
    pub first_byte_timeout: u64,
    pub idle_timeout: u64,
    pub request_timeout: u64,
}

impl Default for BackendPolicy {
    fn default() -> Self {
        Self {
            load_balancing: LoadBalancing::PeakEwma,
            consecutive_failures: 5,
            base_ejection: 5_000,
            max_ejection: 300_000,
            max_ejected_percent: 50,
            connections: 0,
            requests: 0,
            pending: 0,
            pending_timeout: 1_000,
            attempts: 0,
            retry_status_codes: Vec::new(),
            retry_grpc_statuses: Vec::new(),
            retry_non_idempotent: false,
            per_try_timeout: 0,
            base_backoff: 25,
            max_backoff: 250,
            budget_percent: 20,
            budget_minimum_per_second: 3,
            connect_timeout: 5_000,
            first_byte_timeout: 0,
            idle_timeout: 0,
            request_timeout: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadBalancing {
    PeakEwma,
    RoundRobin,
    Weighted,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessPolicy {
    pub name: Name,
    pub targets: Vec<AccessTarget>,
    /// Empty: every port.
    pub ports: BTreeSet<u16>,
    /// `None`: it doesn't say.
    pub strict: Option<bool>,
    pub rules: Vec<AccessRule>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessTarget {
    /// Every workload of its own namespace.
    Namespace,
    /// Pods of its own namespace with these labels.
    Selected(Labels),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessRule {
    pub deny: bool,
    pub identities: Vec<String>,
    pub namespaces: Vec<String>,
    pub methods: Vec<String>,
    pub path_prefixes: Vec<String>,
}

// ── what the index says ─────────────────────────────────────────────────────

/// What became different, so that exactly its subscribers hear of it: who
/// fetches anew what these name, and nothing else, knows all that there is.
/// It may name what stayed the same; content decides in the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// Ranges.
    Mesh,
    /// Ports, routes or policy of a service. A port that it has no longer took
    /// its endpoints with it, unnamed; those of a new port are each named.
    Service(Name),
    /// This endpoint is there now, is another, or is gone.
    Endpoints { backend: BackendName, uid: String },
    /// What an address means.
    Address(SocketAddr),
    /// Every port of this IP means something else.
    Ip(IpAddr),
    /// A pod's inbound side.
    Workload(Name),
    /// What can't hold of this object.
    Problems(Key),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    Service(BackendName),
    Workload(Endpoint),
    Unmeshed,
    Unknown,
}

#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Endpoint {
    /// Of the pod and its port, opaque; never re-used for another pod.
    pub uid: String,
    pub address: SocketAddr,
    /// Empty where no pod is behind the address.
    pub pod: Name,
    /// Namespace and service account; `None` where it has no proxy. `serve`
    /// writes the SPIFFE ID, since it knows the trust domain.
    pub identity: Option<Name>,
    /// It has a proxy, and this port is redirected to it.
    pub mesh: bool,
    pub protocol: Protocol,
    pub zone: String,
    pub weight: u32,
    pub draining: bool,
}

/// A service with everything joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedService {
    pub name: Name,
    pub ports: Vec<ResolvedPort>,
    pub policy: BackendPolicy,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedPort {
    pub port: u16,
    pub name: String,
    pub protocol: Protocol,
    /// Those attached to this port, of every namespace; backends that don't
    /// resolve say why. Render `routes_for` a caller, never all of them.
    pub routes: Vec<HttpRoute>,
}

impl ResolvedPort {
    /// The routes that a caller in `namespace` gets (GEP-1294): those of its
    /// own namespace if there are any (consumer routes, which hold for nobody
    /// else), otherwise those of the service's (producer routes).
    pub fn routes_for(&self, service: &Name, namespace: &str) -> Vec<&HttpRoute> {
        let of = |wanted: &str| -> Vec<&HttpRoute> {
            self.routes
                .iter()
                .filter(|route| route.name.namespace == wanted)
                .collect()
        };
        let own = of(namespace);
        if own.is_empty() {
            of(&service.namespace)
        } else {
            own
        }
    }
}

/// A pod's inbound side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedWorkload {
    pub pod: Pod,
    /// It, or else its namespace, says that it has a proxy.
    pub meshed: bool,
    pub ports: BTreeMap<u16, (Protocol, ResolvedAccess)>,
    pub default_access: ResolvedAccess,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResolvedAccess {
    pub strict: bool,
    /// With "namespace/name#index" of where each comes from.
    pub deny: Vec<(String, AccessRule)>,
    pub allow: Vec<(String, AccessRule)>,
    pub default_deny: bool,
}

/// What a file says that is no object: where, why, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileProblem {
    /// Path below the watched directory.
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
