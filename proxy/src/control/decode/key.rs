//! Names of resources, as text on the wire and as keys here.
//!
//! Part of `decode`. One resource has one key: addresses are canonical.

use std::{fmt, net::SocketAddr};

use weft_proto::v1;

use super::Invalid;
use crate::{addr::canonical, discovery::ServiceName};

/// The name of a resource.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    Mesh,
    TrustBundle,
    Workload(Box<str>),
    Address(SocketAddr),
    Service(ServiceName),
    Endpoints(ServiceName, u16),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("Mesh"),
            Self::TrustBundle => f.write_str("TrustBundle"),
            Self::Workload(name) => write!(f, "Workload {name}"),
            Self::Address(address) => write!(f, "Address {address}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Endpoints(name, port) => write!(f, "Endpoints {name}:{port}"),
        }
    }
}

/// What `key` is called on the wire.
pub(super) fn name(key: &Key) -> v1::Name {
    let (kind, name) = match key {
        Key::Mesh => (v1::Kind::Mesh, String::new()),
        Key::TrustBundle => (v1::Kind::TrustBundle, String::new()),
        Key::Workload(name) => (v1::Kind::Workload, name.to_string()),
        Key::Address(address) => (v1::Kind::Address, address.to_string()),
        Key::Service(name) => (v1::Kind::Service, name.to_string()),
        Key::Endpoints(name, port) => (v1::Kind::Endpoints, format!("{name}:{port}")),
    };
    v1::Name {
        kind: kind.into(),
        name,
    }
}

pub(super) fn key(name: Option<&v1::Name>) -> Result<Key, Invalid> {
    let name = name.ok_or_else(|| Invalid::new("name", "missing"))?;
    let text = name.name.as_str();
    let wrong = || {
        Invalid::new(
            "name.name",
            format_args!("{text:?} is no name of this kind"),
        )
    };
    match name.kind() {
        v1::Kind::Unspecified => Err(Invalid::new("name.kind", name.kind)),
        v1::Kind::Mesh => Ok(Key::Mesh),
        v1::Kind::TrustBundle => Ok(Key::TrustBundle),
        v1::Kind::Workload => Ok(Key::Workload(text.into())),
        v1::Kind::Address => text
            .parse()
            .map(canonical)
            .map(Key::Address)
            .map_err(|_| wrong()),
        v1::Kind::Service => service_name(text).map(Key::Service).ok_or_else(wrong),
        v1::Kind::Endpoints => {
            let (service, port) = text.rsplit_once(':').ok_or_else(wrong)?;
            let service = service_name(service).ok_or_else(wrong)?;
            let port = port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(wrong)?;
            Ok(Key::Endpoints(service, port))
        }
    }
}

fn service_name(text: &str) -> Option<ServiceName> {
    let (namespace, name) = text.split_once('/')?;
    let is_whole = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    is_whole.then(|| ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    })
}
