//! What the proxies that one request concerns would be told: the caller's, and
//! those of the pods that may be called.
//!
//! For `weft explain`, which hands it to the proxy's own code. `hub` answers
//! with it over its index, the CLI over a directory. Rendered as for a stream;
//! subscribes nobody.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use weft_proto::v1::{self, resource::Body};

use crate::{
    identity::spiffe,
    index::Index,
    model::{BackendName, Meaning, Name},
    report::{Called, Explained},
    serve::{
        render::{Features, View},
        resource::{self, ResourceName},
        shelf::{World, render},
    },
};

/// More pods than this have the same policy, or the reader has no use for them.
const MOST_CALLED: usize = 32;

/// Stands for a service without an address (RFC 5737 §3): a manifest leaves it
/// to the cluster.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unexplained {
    #[error("--from: no pod {0} in the mesh")]
    From(Name),
    #[error("--to: no service {0}; names are read as NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc")]
    Service(Name),
    #[error("--to: {service} has no port {port}; it has {ports}")]
    Port {
        service: Name,
        port: u16,
        ports: String,
    },
}

/// The same over an index that no proxy subscribes to.
///
/// # Errors
/// When `from` or `host` is nothing that the index knows.
pub(crate) fn offline(
    index: &Index,
    trust_domain: &str,
    from: &Name,
    host: &str,
    port: u16,
) -> Result<Explained, Unexplained> {
    let roots: &[CertificateDer<'static>] = &[];
    let world = World {
        index,
        roots,
        trust_domain,
    };
    explain(world, from, host, port)
}

/// # Errors
/// When `from` or `host` is nothing that the index knows.
pub(crate) fn explain(
    world: World<'_>,
    from: &Name,
    host: &str,
    port: u16,
) -> Result<Explained, Unexplained> {
    let Some(caller) = world.index.workload(from) else {
        return Err(Unexplained::From(from.clone()));
    };
    let view = View {
        features: Features::ALL,
        namespace: from.namespace.as_str().into(),
    };
    let (address, service) = destination(world, from, host, port)?;
    let mut state = Vec::new();
    let mut put = |name: &ResourceName| {
        let mut entry = render(world, name, &view);
        state.extend_from_slice(&entry.bytes(name, 0));
        entry.closure
    };
    put(&ResourceName::Mesh);
    put(&ResourceName::Workload(from.clone()));
    let closure = match &service {
        Some(service) => put(&ResourceName::Service(service.service.clone())),
        None => put(&ResourceName::Address(address)),
    };
    for name in closure.iter() {
        if !matches!(name, ResourceName::Address(_))
            && service
                .as_ref()
                .is_none_or(|it| *name != ResourceName::Service(it.service.clone()))
        {
            put(name);
        }
    }
    if let Some(service) = &service {
        state.extend_from_slice(&means(address, service));
    }
    let (called, left_out) = called(world, &closure, address, &view);
    let account = Name::new(&from.namespace, &caller.pod.service_account);
    Ok(Explained {
        from: from.to_string(),
        identity: caller.meshed.then(|| spiffe(world.trust_domain, &account)),
        address,
        state: STANDARD.encode(state),
        called,
        left_out,
    })
}

/// The address that the caller's program would connect to, and its service.
fn destination(
    world: World<'_>,
    from: &Name,
    host: &str,
    port: u16,
) -> Result<(SocketAddr, Option<BackendName>), Unexplained> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = literal.parse::<IpAddr>() {
        return Ok((SocketAddr::new(ip, port), None));
    }
    let mut parts = host.split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or(&from.namespace);
    let service = Name::new(namespace, name);
    let Some(found) = world.index.service(&service) else {
        return Err(Unexplained::Service(service));
    };
    if !found.ports.iter().any(|it| it.port == port) {
        let ports: Vec<String> = found.ports.iter().map(|it| it.port.to_string()).collect();
        let ports = match ports.is_empty() {
            true => "none".to_owned(),
            false => ports.join(", "),
        };
        return Err(Unexplained::Port {
            service,
            port,
            ports,
        });
    }
    let ip = world.index.addresses(&service).next().unwrap_or(NO_ADDRESS);
    Ok((
        SocketAddr::new(ip, port),
        Some(BackendName { service, port }),
    ))
}

fn means(address: SocketAddr, to: &BackendName) -> bytes::Bytes {
    let service = v1::ServiceRef {
        namespace: to.service.namespace.clone(),
        name: to.service.name.clone(),
        port: to.port.into(),
    };
    let meaning = Some(v1::address::Meaning::Service(service));
    let body = Body::Address(v1::Address { meaning });
    resource::encode(&ResourceName::Address(address), body).1
}

/// The pods behind the closure's endpoints, each with what its own proxy holds.
fn called(
    world: World<'_>,
    closure: &[ResourceName],
    address: SocketAddr,
    view: &View,
) -> (Vec<Called>, usize) {
    let mut pods: BTreeSet<(Name, u16)> = BTreeSet::new();
    for name in closure {
        if let ResourceName::Endpoints(backend) = name {
            let endpoints = world.index.endpoints(backend).into_iter().flatten();
            let meshed = endpoints.filter(|it| it.mesh && !it.pod.name.is_empty());
            pods.extend(meshed.map(|it| (it.pod.clone(), it.address.port())));
        }
    }
    if let Meaning::Workload(endpoint) = world.index.meaning(address) {
        pods.insert((endpoint.pod, address.port()));
    }
    let left_out = pods.len().saturating_sub(MOST_CALLED);
    let called = pods.into_iter().take(MOST_CALLED).map(|(pod, port)| {
        let name = ResourceName::Workload(pod.clone());
        let mut state = render(world, &ResourceName::Mesh, view)
            .bytes(&ResourceName::Mesh, 0)
            .to_vec();
        state.extend_from_slice(&render(world, &name, view).bytes(&name, 0));
        Called {
            pod: pod.to_string(),
            port,
            state: STANDARD.encode(state),
        }
    });
    (called.collect(), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Object, Pod, Service, ServicePort};

    fn index() -> Index {
        let mut index = Index::new(&[]);
        let web = Pod {
            name: Name::new("shop", "web-0"),
            service_account: "web".into(),
            injected: Some(true),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..Pod::default()
        };
        let cart = Service {
            name: Name::new("shop", "cart"),
            addresses: ["10.96.0.1".parse().unwrap()].into(),
            ports: vec![ServicePort {
                port: 80,
                ..ServicePort::default()
            }],
            ..Service::default()
        };
        index.apply(Event::Apply(Object::Pod(web)));
        index.apply(Event::Apply(Object::Service(cart)));
        index
    }

    fn ask(from: &str, host: &str, port: u16) -> Result<Explained, Unexplained> {
        offline(
            &index(),
            "cluster.local",
            &Name::new("shop", from),
            host,
            port,
        )
    }

    #[test]
    fn a_name_is_read_as_the_callers_resolver_would() {
        for host in [
            "cart",
            "cart.shop",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "10.96.0.1",
        ] {
            let explained = ask("web-0", host, 80).unwrap();
            assert_eq!(explained.address, "10.96.0.1:80".parse().unwrap(), "{host}");
            assert_eq!(
                explained.identity.as_deref(),
                Some("spiffe://cluster.local/ns/shop/sa/web")
            );
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(
            ask("web-9", "cart", 80),
            Err(Unexplained::From(Name::new("shop", "web-9")))
        );
        assert_eq!(
            ask("web-0", "cart.other", 80),
            Err(Unexplained::Service(Name::new("other", "cart")))
        );
        let port = ask("web-0", "cart", 81).unwrap_err();
        assert_eq!(
            port.to_string(),
            "--to: shop/cart has no port 81; it has 80"
        );
    }
}
