//! What this proxy would do with a request, told without doing it.
//!
//! For `weft explain`: the same decoding, route and authorization functions as
//! on the path, over the bytes that a control plane would have sent. Only this
//! module turns their answers into plain values. Never sends anything; a turn
//! of a rule's weights that it takes is one of its own copy.

mod words;

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use crate::{
    authz,
    control::explain,
    discovery::{Backend, Endpoint, EndpointState, Meaning, Protocol, Rule, Security, Snapshot},
    identity::{Peer, SpiffeId},
    outcome::Reason,
    request, route,
    upstream::balance,
};

/// How many fields of `sent` are not in `read`, which was decoded from it: the
/// control plane counts what a newer proxy says as a proxy counts its word.
pub fn unknown_fields(sent: &[u8], read: &impl prost::Message) -> u64 {
    explain::unknown_fields(sent, read)
}

/// A request that somebody asks about.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as they would be sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl request::Request for Request {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &[u8] {
        let path = self.target.split_once('?').map_or(&*self.target, |it| it.0);
        path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.target.split_once('?').map(|it| it.1.as_bytes())
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| value.as_bytes())
    }
}

/// What is wrong with the bytes of a control plane.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("no answer of a control plane")]
    NotAMessage,
    #[error("this proxy would reject {name}: {why}")]
    Rejected { name: String, why: String },
    #[error("an identity that is none: {0}")]
    Identity(String),
}

/// The caller's side.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outbound {
    /// "service", "workload", "unmeshed", "unknown", or "outside" of the mesh's ranges.
    pub meaning: &'static str,
    /// "namespace/name:port" of the service, or the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// Any route is attached.
    pub routed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Selected>,
    /// What is forwarded instead of the request's own path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged_path: Option<String>,
    /// Why it is refused here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    pub backends: Vec<Share>,
}

/// The rule that decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Selected {
    /// "namespace/name".
    pub route: String,
    /// From 0, in its route.
    pub index: u32,
}

/// A backend of the rule and its part of the requests.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Share {
    pub weight: u32,
    /// "namespace/name:port".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Why its share is answered with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
    /// What the route's filters do on the way, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    pub endpoints: Vec<Reached>,
    /// The fault of its share, where no endpoint may be used from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Refusal>,
    /// For how many seconds after its last call a caller stays with its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays_seconds: Option<u64>,
}

/// An endpoint as the caller's proxy knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reached {
    /// "namespace/pod"; empty where no pod is behind the address.
    pub pod: String,
    pub address: SocketAddr,
    /// "ready" or "draining".
    pub state: &'static str,
    /// The identity that its proxy must prove; `None`: it gets plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    pub node: String,
    pub zone: String,
    pub turn: Turn,
}

/// When an endpoint gets a new request of this caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// With the others of its kind.
    First,
    /// When none of the first can be used.
    Later,
    Never,
}

/// A fault of the closed list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refusal {
    pub reason: &'static str,
    pub http_status: u16,
    pub grpc_status: u8,
    pub help: &'static str,
    /// The policy's rule that said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

impl Refusal {
    fn of(reason: Reason, policy: Option<&Arc<str>>) -> Self {
        Self {
            reason: reason.as_str(),
            http_status: reason.http_status(),
            grpc_status: reason.grpc_status(),
            help: reason.help(),
            policy: policy.map(ToString::to_string),
        }
    }
}

/// The called side's verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inbound {
    /// The rule that allowed, where one had to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// What the caller's proxy decides, told `state` by a control plane.
///
/// # Errors
/// When `state` is none, or holds something that this proxy would reject.
pub fn outbound(
    state: &[u8],
    address: SocketAddr,
    request: &Request,
) -> Result<Outbound, Unreadable> {
    let snapshot = read(state)?;
    Ok(match snapshot.lookup(address) {
        // Nobody asks what an address outside of the ranges means.
        None | Some(Meaning::Unmeshed | Meaning::Unknown) if !snapshot.is_inside(address.ip()) => {
            nothing("outside")
        }
        Some(Meaning::Unmeshed) => nothing("unmeshed"),
        None | Some(Meaning::Unknown) => nothing("unknown"),
        Some(Meaning::Workload(backend)) => Outbound {
            destination: Some(backend.service.to_string()),
            backends: vec![whole(backend)],
            ..nothing("workload")
        },
        Some(Meaning::Service(port)) => {
            let service = Outbound {
                destination: Some(format!("{}:{}", port.service, port.port)),
                protocol: Some(port.protocol.as_str()),
                routed: port.routes.is_some(),
                ..nothing("service")
            };
            // Routes are for HTTP: opaque bytes go to the port's own endpoints.
            if matches!(port.protocol, Protocol::Opaque | Protocol::Tls) {
                return Ok(Outbound {
                    backends: vec![whole(&port.default)],
                    ..service
                });
            }
            match route::find(port, request) {
                Err(reason) => Outbound {
                    refused: Some(Refusal::of(reason, None)),
                    ..service
                },
                Ok(found) => Outbound {
                    rule: found.rule.map(|rule| Selected {
                        route: rule.route.to_string(),
                        index: rule.index,
                    }),
                    judged_path: found
                        .path
                        .map(|path| String::from_utf8_lossy(&path).into_owned()),
                    backends: match found.rule {
                        Some(rule) => shares(rule),
                        None => vec![whole(&port.default)],
                    },
                    ..service
                },
            }
        }
    })
}

/// What the proxy of a called pod decides, told `state`, of a caller that
/// proves `identity` (`None`: it comes in plaintext). `port` is the pod's.
///
/// # Errors
/// When `state` or `identity` can't be read.
pub fn inbound(
    state: &[u8],
    port: u16,
    identity: Option<&str>,
    request: &Request,
) -> Result<Inbound, Unreadable> {
    let peer = match identity {
        None => Peer::Plaintext,
        Some(text) => match text.parse::<SpiffeId>() {
            Ok(identity) => Peer::Identified(identity),
            Err(_) => return Err(Unreadable::Identity(text.to_owned())),
        },
    };
    let snapshot = read(state)?;
    let Some(workload) = &snapshot.workload else {
        return Ok(Inbound {
            allowed_by: None,
            refused: Some(Refusal::of(Reason::PolicyMissing, None)),
        });
    };
    Ok(match authz::admit(workload, port, &peer, request) {
        Ok(permit) => Inbound {
            allowed_by: permit.policy().map(ToString::to_string),
            refused: None,
        },
        Err(denial) => Inbound {
            allowed_by: None,
            refused: Some(Refusal::of(denial.reason, denial.policy.as_ref())),
        },
    })
}

fn read(state: &[u8]) -> Result<Arc<Snapshot>, Unreadable> {
    match explain::snapshot(state) {
        Ok(snapshot) => Ok(snapshot),
        Err(None) => Err(Unreadable::NotAMessage),
        Err(Some((name, why))) => Err(Unreadable::Rejected { name, why }),
    }
}

const fn nothing(meaning: &'static str) -> Outbound {
    Outbound {
        meaning,
        destination: None,
        protocol: None,
        routed: false,
        rule: None,
        judged_path: None,
        refused: None,
        backends: Vec::new(),
    }
}

fn shares(rule: &Rule) -> Vec<Share> {
    let share = |weighted: &crate::discovery::WeightedBackend| match &weighted.backend {
        Ok(backend) => Share {
            weight: weighted.weight,
            filters: words::of(weighted.filters.as_deref()),
            ..whole(backend)
        },
        Err(why) => Share {
            weight: weighted.weight,
            backend: None,
            invalid: Some(why.to_string()),
            filters: Vec::new(),
            endpoints: Vec::new(),
            unreachable: None,
            stays_seconds: None,
        },
    };
    rule.backends.iter().map(share).collect()
}

fn whole(backend: &Arc<Backend>) -> Share {
    let endpoints = backend.endpoints.iter().enumerate();
    Share {
        weight: 1,
        backend: Some(format!("{}:{}", backend.service, backend.port)),
        invalid: None,
        filters: Vec::new(),
        endpoints: endpoints
            .map(|(at, it)| reached(it, backend.tier_of(at)))
            .collect(),
        unreachable: balance::nobody(backend)
            .err()
            .map(|nobody| Refusal::of(nobody.reason(), None)),
        stays_seconds: backend.policy.affinity.map(|time| time.as_secs()),
    }
}

fn reached(endpoint: &Endpoint, tier: Option<usize>) -> Reached {
    Reached {
        pod: match &*endpoint.pod {
            "" => String::new(),
            pod => format!("{}/{pod}", endpoint.namespace),
        },
        address: endpoint.address,
        state: match endpoint.state {
            EndpointState::Ready => "ready",
            EndpointState::Draining => "draining",
        },
        identity: match &endpoint.security {
            Security::Mesh { identity, .. } => Some(identity.to_string()),
            Security::Unmeshed => None,
        },
        node: endpoint.node.to_string(),
        zone: endpoint.zone.to_string(),
        turn: match tier {
            Some(0) => Turn::First,
            Some(_) => Turn::Later,
            None => Turn::Never,
        },
    }
}
