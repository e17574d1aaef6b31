//! Our own workload: its ports and who may call them.
//!
//! Part of `decode`. What is absent or unknown here is closed: no access at
//! all is deny, an unknown mTLS mode is strict, an unreadable rule rejects the
//! resource (the last good one keeps judging, or nobody gets in).

use weft_proto::v1;

use super::{Invalid, port, protocol};
use crate::{
    discovery::{Access, AccessRule, Here, Workload, WorkloadPort},
    request::path,
};

pub(super) fn workload(wire: v1::Workload) -> Result<Workload, Invalid> {
    let mut ports = std::collections::HashMap::with_capacity(wire.ports.len());
    for (at, wire) in wire.ports.into_iter().enumerate() {
        let (number, port) =
            workload_port(wire).map_err(|e| e.within(format_args!("ports[{at}]")))?;
        if ports.insert(number, port).is_some() {
            return Err(Invalid::new("ports", format_args!("{number} twice")));
        }
    }
    let address = |text: &String| {
        text.parse()
            .map_err(|_| Invalid::new("addresses", format_args!("{text:?} is no address")))
    };
    Ok(Workload {
        addresses: wire
            .addresses
            .iter()
            .map(address)
            .collect::<Result<_, _>>()?,
        default_access: access(wire.default_access).map_err(|e| e.within("default_access"))?,
        namespace: wire.namespace.into(),
        pod: wire.pod.into(),
        uid: wire.uid.into(),
        service_account: wire.service_account.into(),
        here: Here {
            node: wire.node.into(),
            zone: wire.zone.into(),
        },
        ports,
    })
}

fn workload_port(wire: v1::WorkloadPort) -> Result<(u16, WorkloadPort), Invalid> {
    let number = port("port", wire.port)?;
    let port = WorkloadPort {
        protocol: protocol(wire.protocol),
        access: access(wire.access).map_err(|e| e.within("access"))?,
    };
    Ok((number, port))
}

fn access(wire: Option<v1::Access>) -> Result<Access, Invalid> {
    let Some(wire) = wire else {
        return Ok(Access {
            strict: true,
            default_deny: true,
            ..Access::default()
        });
    };
    Ok(Access {
        strict: wire.mtls != i32::from(v1::Mtls::Permissive),
        deny: rules("deny", wire.deny)?,
        allow: rules("allow", wire.allow)?,
        default_deny: wire.default_deny,
    })
}

fn rules(field: &str, wire: Vec<v1::AccessRule>) -> Result<Vec<AccessRule>, Invalid> {
    let rule = |(at, wire)| rule(wire).map_err(|e| e.within(format_args!("{field}[{at}]")));
    wire.into_iter().enumerate().map(rule).collect()
}

fn rule(wire: v1::AccessRule) -> Result<AccessRule, Invalid> {
    let identity = |text: &String| {
        text.parse()
            .map_err(|e| Invalid::new("identities", format_args!("{text:?} is {e}")))
    };
    let method = |text: String| match http::Method::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.into()),
        Err(_) => Err(Invalid::new(
            "methods",
            format_args!("{text:?} is no token"),
        )),
    };
    let prefix = |text: String| match text.strip_prefix('/') {
        Some(_) => path::prefix(&text).map_err(|path::Ambiguous| {
            Invalid::new(
                "path_prefixes",
                format_args!("{text:?} has no canonical form"),
            )
        }),
        None => Err(Invalid::new(
            "path_prefixes",
            format_args!("{text:?} does not begin with a slash"),
        )),
    };
    Ok(AccessRule {
        policy: wire.policy.into(),
        identities: wire
            .identities
            .iter()
            .map(identity)
            .collect::<Result<_, _>>()?,
        namespaces: wire.namespaces.into_iter().map(Into::into).collect(),
        methods: wire
            .methods
            .into_iter()
            .map(method)
            .collect::<Result<_, _>>()?,
        path_prefixes: wire
            .path_prefixes
            .into_iter()
            .map(prefix)
            .collect::<Result<_, _>>()?,
    })
}
