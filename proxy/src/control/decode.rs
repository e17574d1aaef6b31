//! The wire, validated: the only place in the proxy that knows proto types.
//!
//! `client` hands in what it received and sends what `request` makes; `store`
//! gets values that hold. A resource that doesn't is rejected with a reason
//! that names its field, and the last good one stays. What an unknown value
//! could open is read as closed: a strict port, a draining endpoint.
//!
//! Pure. `received` is the entry for arbitrary bytes (fuzzed).

mod access;
mod endpoint;
mod filter;
mod key;
mod route;
mod service;
mod unknown;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::{DecodeError, Message};
use tokio_rustls::rustls::pki_types::CertificateDer;
use weft_proto::v1;

use crate::{addr::Range, discovery::Workload, tls::certs::Bundle};

use self::key::{key, name};

pub(crate) use endpoint::{Change, Member};
pub(crate) use filter::{Filter, HeaderModifier};
pub(crate) use key::Key;
pub(crate) use route::{RouteRetry, RouteRule};
pub(crate) use service::{Service, Target};
pub(crate) use unknown::count as unknown_fields;

/// What this proxy can enforce; the control plane renders policy in it alone.
pub(crate) const FEATURES: &[&str] = &[
    "http-route/v1",
    "http-route/v2",
    "access-policy/v1",
    "backend-policy/v1",
];

/// Why a resource is of no use. Names the field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invalid {
    field: String,
    wrong: String,
}

impl Invalid {
    fn new(field: &str, wrong: impl fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            wrong: wrong.to_string(),
        }
    }

    /// The same, seen from the message that holds `field`.
    fn within(self, field: impl fmt::Display) -> Self {
        Self {
            field: format!("{field}.{}", self.field),
            ..self
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.wrong)
    }
}

/// A resource's content.
#[derive(Debug)]
pub(crate) enum Body {
    Mesh { ranges: Arc<[Range]> },
    TrustBundle(Bundle),
    Workload(Arc<Workload>),
    Address(Meaning),
    Service(Service),
    Endpoints(Change),
}

/// What an address means, by name; `store` finds what is named.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Meaning {
    Service(Target),
    Workload(Box<Member>),
    Unmeshed,
    Unknown,
}

/// A resource, and the bytes to keep over a restart: `content` of anything but
/// endpoints, whose members keep their own.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) body: Result<Body, Invalid>,
    pub(crate) content: Box<[u8]>,
}

/// One message of the control plane.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) nonce: u64,
    pub(crate) resources: Vec<Resource>,
    /// Resources whose name can't be read: as it came, and why.
    pub(crate) nameless: Vec<(Request, Invalid)>,
    pub(crate) removed: Vec<Key>,
    pub(crate) heartbeat: Option<Heartbeat>,
    /// Fields of it that are newer than this proxy.
    pub(crate) unknown_fields: u64,
}

#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) newest: Vec<(Key, u64)>,
    pub(crate) interval: Option<Duration>,
}

/// A message to the control plane.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Request(v1::WatchRequest);

impl Request {
    fn new(message: v1::watch_request::Message) -> Self {
        let message = Some(message);
        Self(v1::WatchRequest { message })
    }

    pub(crate) fn into_wire(self) -> v1::WatchRequest {
        self.0
    }

    pub(crate) fn hello(who: &super::Config, held: impl Iterator<Item = (Key, u64)>) -> Self {
        let held = held.map(|(key, version)| v1::Held {
            name: Some(name(&key)),
            version,
        });
        Self::new(v1::watch_request::Message::Hello(v1::Hello {
            namespace: who.namespace.to_string(),
            pod: who.pod.to_string(),
            pod_uid: who.pod_uid.to_string(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            held: held.collect(),
        }))
    }

    pub(crate) fn subscribe(key: &Key, refresh: bool) -> Self {
        let name = Some(name(key));
        Self::new(v1::watch_request::Message::Subscribe(v1::Subscribe {
            name,
            refresh,
        }))
    }

    pub(crate) fn unsubscribe(key: &Key) -> Self {
        let name = Some(name(key));
        Self::new(v1::watch_request::Message::Unsubscribe(v1::Unsubscribe {
            name,
        }))
    }

    pub(crate) fn acknowledge(nonce: u64) -> Self {
        Self::new(v1::watch_request::Message::Acknowledge(nonce))
    }

    pub(crate) fn reject(nonce: u64, key: &Key, version: u64, reason: &str) -> Self {
        Self::rejection(nonce, Some(name(key)), version, reason)
    }

    fn rejection(nonce: u64, name: Option<v1::Name>, version: u64, reason: &str) -> Self {
        Self::new(v1::watch_request::Message::Reject(v1::Reject {
            nonce,
            name,
            version,
            reason: reason.to_owned(),
        }))
    }
}

/// Validates a message.
pub(crate) fn response(wire: v1::WatchResponse) -> Response {
    let mut response = Response {
        nonce: wire.nonce,
        ..Response::default()
    };
    for wire in wire.resources {
        let version = wire.version;
        match key(wire.name.as_ref()) {
            Ok(key) => response.resources.push(resource(key, wire)),
            Err(invalid) => {
                let reason = invalid.to_string();
                let reject = Request::rejection(response.nonce, wire.name, version, &reason);
                response.nameless.push((reject, invalid));
            }
        }
    }
    // What can't be named isn't held.
    let known = |name: &v1::Name| key(Some(name)).ok();
    response.removed = wire.removed.iter().filter_map(known).collect();
    response.heartbeat = wire.heartbeat.map(|heartbeat| Heartbeat {
        newest: heartbeat
            .newest
            .iter()
            .filter_map(|held| Some((key(held.name.as_ref()).ok()?, held.version)))
            .collect(),
        interval: (heartbeat.interval_milliseconds > 0)
            .then(|| Duration::from_millis(heartbeat.interval_milliseconds.into())),
    });
    response
}

/// The same from the bytes that came.
///
/// # Errors
/// When they are no message at all.
pub(crate) fn received(bytes: &Bytes) -> Result<Response, DecodeError> {
    let wire = v1::WatchResponse::decode(bytes.clone())?;
    let unknown_fields = unknown::count(bytes, &wire);
    Ok(Response {
        unknown_fields,
        ..response(wire)
    })
}

/// The same from what a state directory or a fuzzer holds.
pub(crate) fn response_from_bytes(bytes: &[u8]) -> Option<Response> {
    received(&Bytes::copy_from_slice(bytes)).ok()
}

/// What `response_from_bytes` reads again: each resource by its kept bytes,
/// endpoints by those of their members.
pub(crate) fn keep<'a>(kept: impl Iterator<Item = (Key, u64, Kept<'a>)>) -> Vec<u8> {
    let resources = kept.filter_map(|(key, version, kept)| match kept {
        Kept::Content(content) => v1::Resource::decode(content).ok(),
        Kept::Members(members) => Some(v1::Resource {
            name: Some(name(&key)),
            version,
            body: Some(v1::resource::Body::Endpoints(v1::Endpoints {
                whole: true,
                added_or_updated: members
                    .filter_map(|content| v1::Endpoint::decode(content).ok())
                    .collect(),
                ..v1::Endpoints::default()
            })),
        }),
    });
    let resources = resources.collect();
    v1::WatchResponse {
        resources,
        ..v1::WatchResponse::default()
    }
    .encode_to_vec()
}

/// The bytes that a resource left behind.
pub(crate) enum Kept<'a> {
    Content(&'a [u8]),
    Members(Box<dyn Iterator<Item = &'a [u8]> + 'a>),
}

fn resource(key: Key, wire: v1::Resource) -> Resource {
    let version = wire.version;
    let is_delta = matches!(wire.body, Some(v1::resource::Body::Endpoints(_)));
    let content = if is_delta {
        Box::default()
    } else {
        wire.encode_to_vec().into()
    };
    Resource {
        body: body(&key, wire.body),
        key,
        version,
        content,
    }
}

fn body(key: &Key, wire: Option<v1::resource::Body>) -> Result<Body, Invalid> {
    use v1::resource::Body as Wire;
    match (key, wire) {
        (Key::Mesh, Some(Wire::Mesh(mesh))) => {
            let range = |text: &String| text.parse().map_err(|e| Invalid::new("mesh.ranges", e));
            let ranges = mesh.ranges.iter().map(range).collect::<Result<_, _>>()?;
            Ok(Body::Mesh { ranges })
        }
        (Key::TrustBundle, Some(Wire::TrustBundle(bundle))) => {
            let roots = bundle
                .roots
                .iter()
                .map(|root| CertificateDer::from(root.to_vec()))
                .collect();
            let bundle = Bundle::new(roots).map_err(|e| Invalid::new("trust_bundle.roots", e))?;
            Ok(Body::TrustBundle(bundle))
        }
        (Key::Workload(_), Some(Wire::Workload(workload))) => {
            let workload = access::workload(workload).map_err(|e| e.within("workload"))?;
            Ok(Body::Workload(Arc::new(workload)))
        }
        (Key::Address(at), Some(Wire::Address(address))) => {
            let meaning = meaning(*at, address).map_err(|e| e.within("address"))?;
            Ok(Body::Address(meaning))
        }
        (Key::Service(name), Some(Wire::Service(service))) => {
            let service = service::service(name, service).map_err(|e| e.within("service"))?;
            Ok(Body::Service(service))
        }
        (Key::Endpoints(_, _), Some(Wire::Endpoints(endpoints))) => {
            let change = endpoint::change(endpoints).map_err(|e| e.within("endpoints"))?;
            Ok(Body::Endpoints(change))
        }
        (_, Some(_)) => Err(Invalid::new("body", "of another kind than the name")),
        (_, None) => Err(Invalid::new("body", "missing, or newer than this proxy")),
    }
}

fn meaning(at: SocketAddr, wire: v1::Address) -> Result<Meaning, Invalid> {
    use v1::address::Meaning as Wire;
    match wire.meaning {
        Some(Wire::Service(service)) => {
            let target = service::target(&service).map_err(|e| e.within("service"))?;
            Ok(Meaning::Service(target))
        }
        Some(Wire::Workload(endpoint)) => {
            let member = endpoint::member(endpoint).map_err(|e| e.within("workload"))?;
            if member.address != at {
                let wrong = format_args!("{} is not the address itself", member.address);
                return Err(Invalid::new("workload.address", wrong));
            }
            Ok(Meaning::Workload(Box::new(member)))
        }
        Some(Wire::Unmeshed(_)) => Ok(Meaning::Unmeshed),
        Some(Wire::Unknown(_)) => Ok(Meaning::Unknown),
        None => Err(Invalid::new("meaning", "missing, or newer than this proxy")),
    }
}

/// 0 is none.
fn milliseconds(value: u64) -> Option<Duration> {
    (value > 0).then(|| Duration::from_millis(value))
}

fn port(field: &str, value: u32) -> Result<u16, Invalid> {
    u16::try_from(value)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Invalid::new(field, format_args!("{value} is no port")))
}

/// An unknown one is detected: whatever the bytes are, policy judges them.
fn protocol(value: i32) -> crate::discovery::Protocol {
    use crate::discovery::Protocol;
    match v1::Protocol::try_from(value) {
        Ok(v1::Protocol::Http1) => Protocol::Http1,
        Ok(v1::Protocol::Http2) => Protocol::Http2,
        Ok(v1::Protocol::Opaque) => Protocol::Opaque,
        Ok(v1::Protocol::Tls) => Protocol::Tls,
        Ok(v1::Protocol::Detect) | Err(_) => Protocol::Detect,
    }
}

#[cfg(test)]
mod tests;
