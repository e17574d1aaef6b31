//! Names of resources, versions of their content, and their bytes on the wire.
//!
//! A resource is encoded once, as the field of a `WatchResponse` that it is
//! going to be, and those bytes are shared by all who get it. Knows the wire
//! format, not what resources mean.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use weft_proto::v1;

use crate::model::{BackendName, Name};

/// The order is the one of a response: what others refer to comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum ResourceName {
    Mesh,
    TrustBundle,
    Workload(Name),
    Endpoints(BackendName),
    Service(Name),
    Address(SocketAddr),
}

/// A proxy asked for something that has no such name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not the name of a resource")]
pub(crate) struct NotAName;

/// Longer than two DNS labels and a port; a bound for what strangers send.
const LONGEST: usize = 600;

impl ResourceName {
    pub(crate) fn parse(name: &v1::Name) -> Result<Self, NotAName> {
        let text = name.name.as_str();
        if text.len() > LONGEST {
            return Err(NotAName);
        }
        match name.kind() {
            v1::Kind::Mesh => Ok(Self::Mesh),
            v1::Kind::TrustBundle => Ok(Self::TrustBundle),
            v1::Kind::Workload => Ok(Self::Workload(qualified(text)?)),
            v1::Kind::Service => Ok(Self::Service(qualified(text)?)),
            v1::Kind::Address => {
                let address: SocketAddr = text.parse().map_err(|_| NotAName)?;
                Ok(Self::Address(SocketAddr::new(
                    address.ip().to_canonical(),
                    address.port(),
                )))
            }
            v1::Kind::Endpoints => {
                let (service, port) = text.rsplit_once(':').ok_or(NotAName)?;
                let port = port.parse().map_err(|_| NotAName)?;
                Ok(Self::Endpoints(BackendName {
                    service: qualified(service)?,
                    port,
                }))
            }
            v1::Kind::Unspecified => Err(NotAName),
        }
    }

    pub(crate) fn to_proto(&self) -> v1::Name {
        let (kind, name) = match self {
            Self::Mesh => (v1::Kind::Mesh, String::new()),
            Self::TrustBundle => (v1::Kind::TrustBundle, String::new()),
            Self::Workload(name) => (v1::Kind::Workload, name.to_string()),
            Self::Endpoints(name) => (v1::Kind::Endpoints, name.to_string()),
            Self::Service(name) => (v1::Kind::Service, name.to_string()),
            Self::Address(address) => (v1::Kind::Address, address.to_string()),
        };
        v1::Name {
            kind: kind.into(),
            name,
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::TrustBundle => "trust-bundle",
            Self::Workload(_) => "workload",
            Self::Endpoints(_) => "endpoints",
            Self::Service(_) => "service",
            Self::Address(_) => "address",
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_proto().name;
        if name.is_empty() {
            f.write_str(self.kind())
        } else {
            write!(f, "{} {name}", self.kind())
        }
    }
}

fn qualified(text: &str) -> Result<Name, NotAName> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(Name::new(namespace, name))
        }
        _ => Err(NotAName),
    }
}

/// Of content. Never 0, which stands for holding nothing.
pub(crate) type Version = u64;

/// FNV-1a with a finalizer that spreads it over all bits, so that sums of
/// hashes are as good as hashes. Ours, because it must be the same in every
/// release and on every replica; not for what an adversary may choose.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(state)
}

/// The finalizer of SplitMix64.
pub(crate) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// One resource as field 2 of a `WatchResponse`, and the version of its content.
pub(crate) fn encode(name: &ResourceName, body: v1::resource::Body) -> (Version, Bytes) {
    let mut resource = v1::Resource {
        name: Some(name.to_proto()),
        version: 0,
        body: Some(body),
    };
    resource.version = hash(&resource.encode_to_vec()).max(1);
    let version = resource.version;
    (version, field(2, &resource.encode_to_vec()))
}

/// The same for `Endpoints`, of which each endpoint is already encoded.
pub(crate) fn encode_endpoints<'a>(
    name: &ResourceName,
    version: Version,
    base: Option<Version>,
    endpoints: impl Iterator<Item = &'a Bytes>,
    removed: &[&str],
) -> Bytes {
    let mut body = v1::Endpoints {
        whole: base.is_none(),
        base: base.unwrap_or(0),
        ..v1::Endpoints::default()
    }
    .encode_to_vec();
    for endpoint in endpoints {
        body.extend_from_slice(endpoint);
    }
    for uid in removed {
        body.extend_from_slice(&field(4, uid.as_bytes()));
    }
    let mut resource = v1::Resource {
        name: Some(name.to_proto()),
        version,
        body: None,
    }
    .encode_to_vec();
    resource.extend_from_slice(&field(8, &body));
    field(2, &resource)
}

/// One endpoint as field 3 of `Endpoints`, and its share of the set's version.
pub(crate) fn encode_endpoint(endpoint: &v1::Endpoint) -> (u64, Bytes) {
    let bytes = endpoint.encode_to_vec();
    (hash(&bytes), field(3, &bytes))
}

pub(crate) fn encode_removed(name: &ResourceName) -> Bytes {
    field(3, &name.to_proto().encode_to_vec())
}

pub(crate) fn encode_heartbeat(heartbeat: &v1::Heartbeat) -> Bytes {
    field(4, &heartbeat.encode_to_vec())
}

fn field(tag: u32, bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    encode_key(tag, WireType::LengthDelimited, &mut out);
    encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> ResourceName {
        ResourceName::Endpoints(BackendName {
            service: Name::new("shop", "cart"),
            port: 80,
        })
    }

    #[test]
    fn a_name_survives_the_wire() {
        let names = [
            ResourceName::Mesh,
            ResourceName::TrustBundle,
            ResourceName::Workload(Name::new("shop", "cart-0")),
            backend(),
            ResourceName::Service(Name::new("shop", "cart")),
            ResourceName::Address("[fd00::1]:80".parse().unwrap()),
        ];
        for name in names {
            assert_eq!(ResourceName::parse(&name.to_proto()), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (kind, name) in [
            (v1::Kind::Unspecified, ""),
            (v1::Kind::Service, "cart"),
            (v1::Kind::Service, "shop/cart/x"),
            (v1::Kind::Service, "/cart"),
            (v1::Kind::Endpoints, "shop/cart"),
            (v1::Kind::Endpoints, "shop/cart:99999"),
            (v1::Kind::Address, "cart:80"),
        ] {
            let name = v1::Name {
                kind: kind.into(),
                name: name.to_owned(),
            };
            assert_eq!(ResourceName::parse(&name), Err(NotAName), "{name:?}");
        }
    }

    #[test]
    fn pieces_put_together_decode_as_the_message_they_stand_for() {
        let (_, cart) = encode_endpoint(&v1::Endpoint {
            uid: "cart-0".into(),
            ..Default::default()
        });
        let mut bytes =
            encode_endpoints(&backend(), 7, Some(3), [&cart].into_iter(), &["gone"]).to_vec();
        let (version, mesh) = encode(
            &ResourceName::Mesh,
            v1::resource::Body::Mesh(v1::Mesh {
                trust_domain: "d".into(),
                ranges: vec![],
            }),
        );
        bytes.extend_from_slice(&mesh);
        bytes.extend_from_slice(&encode_removed(&ResourceName::TrustBundle));
        bytes.extend_from_slice(&encode_heartbeat(&v1::Heartbeat {
            newest: vec![],
            interval_milliseconds: 5,
        }));
        let message = v1::WatchResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(message.resources.len(), 2);
        assert_eq!(message.resources[0].version, 7);
        let Some(v1::resource::Body::Endpoints(endpoints)) = &message.resources[0].body else {
            panic!()
        };
        assert!(!endpoints.whole);
        assert_eq!(
            (
                endpoints.base,
                endpoints.added_or_updated.len(),
                endpoints.removed.len()
            ),
            (3, 1, 1)
        );
        assert_eq!(message.resources[1].version, version);
        assert_eq!(message.removed.len(), 1);
        assert_eq!(message.heartbeat.unwrap().interval_milliseconds, 5);
    }
}
