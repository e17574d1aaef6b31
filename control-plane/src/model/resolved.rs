//! What the index says: services, endpoints and workloads with everything
//! joined, and what became different.
//!
//! `index` makes these of the objects that sources told; `serve` renders them.
//! Never names what doesn't exist without saying why.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{AccessRule, BackendName, BackendPolicy, Key, Name, Pod, Protocol, Route};

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
    Endpoints { backend: BackendName, uid: Arc<str> },
    /// What an address means.
    Address(SocketAddr),
    /// Every port of this IP means something else.
    Ip(IpAddr),
    /// A pod's inbound side.
    Workload(Name),
    /// What can't hold of this object.
    Problems(Key),
    /// What is answered to this object.
    Verdict(Key),
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
    pub uid: Arc<str>,
    pub address: SocketAddr,
    /// Empty where no pod is behind the address.
    pub pod: Name,
    /// Namespace and service account; `None` where it has no proxy. `serve`
    /// writes the SPIFFE ID, since it knows the trust domain.
    pub identity: Option<Name>,
    /// It has a proxy, and this port is redirected to it.
    pub mesh: bool,
    pub protocol: Protocol,
    /// Empty where nobody said.
    pub node: String,
    pub zone: String,
    /// Boxed: most have none, and there may be a hundred thousand.
    pub hints: Option<Box<Hints>>,
    pub weight: u32,
    pub draining: bool,
}

/// For callers of which nodes and zones an endpoint is meant
/// (discovery.k8s.io/v1, EndpointHints).
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Hints {
    pub nodes: Vec<String>,
    pub zones: Vec<String>,
}

/// A service with everything joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedService {
    pub name: Name,
    pub ports: Vec<ResolvedPort>,
    pub policy: BackendPolicy,
    pub own_node_only: bool,
    /// 0 is none.
    pub affinity_seconds: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvedPort {
    pub port: u16,
    pub name: String,
    pub protocol: Protocol,
    /// Those attached to this port, of every namespace, those of one namespace
    /// all of one kind; backends that don't resolve say why. Render `routes_for`
    /// a caller, never all of them.
    pub routes: Vec<Route>,
}

impl ResolvedPort {
    /// The routes that a caller in `namespace` gets (GEP-1294): those of its
    /// own namespace if there are any (consumer routes, which hold for nobody
    /// else), otherwise those of the service's (producer routes).
    pub fn routes_for(&self, service: &Name, namespace: &str) -> Vec<&Route> {
        let of = |wanted: &str| -> Vec<&Route> {
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
