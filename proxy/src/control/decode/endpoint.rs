//! Endpoints: who they are, how they are reached, what changed.
//!
//! Part of `decode`. An identity that can't be read must not become plaintext,
//! so it rejects the resource.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use prost::Message;
use weft_proto::v1;

use super::{Invalid, port, protocol};
use crate::{
    addr::canonical,
    discovery::{EndpointState, Hints, Protocol, Security},
};

/// One endpoint; `store` gives it its key and cells.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Member {
    pub(crate) uid: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) namespace: Arc<str>,
    pub(crate) pod: Arc<str>,
    pub(crate) security: Security,
    pub(crate) protocol: Protocol,
    pub(crate) node: Arc<str>,
    pub(crate) zone: Arc<str>,
    pub(crate) hints: Hints,
    pub(crate) weight: u32,
    pub(crate) state: EndpointState,
    /// To be kept over a restart.
    pub(crate) content: Box<[u8]>,
}

/// To the endpoints of one service port.
#[derive(Debug)]
pub(crate) struct Change {
    /// The version that it changes; `None` replaces the set.
    pub(crate) base: Option<u64>,
    pub(crate) added_or_updated: Vec<Member>,
    pub(crate) removed: Vec<Box<str>>,
}

pub(super) fn change(wire: v1::Endpoints) -> Result<Change, Invalid> {
    let mut added_or_updated = Vec::with_capacity(wire.added_or_updated.len());
    for (at, endpoint) in wire.added_or_updated.into_iter().enumerate() {
        let at = format_args!("added_or_updated[{at}]").to_string();
        added_or_updated.push(member(endpoint).map_err(|e| e.within(at))?);
    }
    Ok(Change {
        base: (!wire.whole).then_some(wire.base),
        added_or_updated,
        removed: wire.removed.into_iter().map(Into::into).collect(),
    })
}

pub(super) fn member(wire: v1::Endpoint) -> Result<Member, Invalid> {
    let content = wire.encode_to_vec().into();
    if wire.uid.is_empty() {
        return Err(Invalid::new("uid", "empty"));
    }
    let ip: IpAddr = wire
        .address
        .parse()
        .map_err(|_| Invalid::new("address", format_args!("{:?} is no address", wire.address)))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Invalid::new(
            "address",
            format_args!("{ip} is nobody's own"),
        ));
    }
    if !(1..=65_535).contains(&wire.weight) {
        return Err(Invalid::new("weight", wire.weight));
    }
    let hints = |wire: Vec<String>| wire.into_iter().map(Into::into).collect();
    Ok(Member {
        address: canonical(SocketAddr::new(ip, port("port", wire.port)?)),
        security: security(&wire)?,
        protocol: protocol(wire.protocol),
        state: match v1::EndpointState::try_from(wire.state) {
            Ok(v1::EndpointState::Ready) => EndpointState::Ready,
            Ok(v1::EndpointState::Draining) | Err(_) => EndpointState::Draining,
        },
        weight: wire.weight,
        uid: wire.uid.into(),
        namespace: wire.namespace.into(),
        pod: wire.pod.into(),
        node: wire.node.into(),
        zone: wire.zone.into(),
        hints: Hints {
            nodes: hints(wire.hint_nodes),
            zones: hints(wire.hint_zones),
        },
        content,
    })
}

/// Plaintext only where the control plane says that nothing else is spoken:
/// protocols newer than this proxy leave a mesh endpoint that it can't reach.
fn security(wire: &v1::Endpoint) -> Result<Security, Invalid> {
    if wire.mesh_protocols.is_empty() {
        return Ok(Security::Unmeshed);
    }
    let identity = wire
        .identity
        .parse()
        .map_err(|e| Invalid::new("identity", format_args!("{:?} is {e}", wire.identity)))?;
    let speaks = |name| wire.mesh_protocols.iter().any(|protocol| protocol == name);
    Ok(Security::Mesh {
        identity,
        http: speaks("weft1-h2"),
        tcp: speaks("weft1-tcp"),
    })
}
