//! Small values for tests of decisions.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    Access, Backend, BackendCells, BackendPolicy, Endpoint, EndpointCells, EndpointKey,
    EndpointState, Here, Hints, Protocol, Security, ServiceName, Workload, WorkloadPort,
};

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

pub(crate) fn endpoint(
    key: u64,
    weight: u32,
    state: EndpointState,
    cells: &Arc<BackendCells>,
) -> Arc<Endpoint> {
    let weigh = |endpoint: &mut Endpoint| endpoint.weight = weight;
    placed(key, state, cells, weigh)
}

/// With what else is asked for.
pub(crate) fn placed(
    key: u64,
    state: EndpointState,
    cells: &Arc<BackendCells>,
    change: impl FnOnce(&mut Endpoint),
) -> Arc<Endpoint> {
    let mut endpoint = Endpoint {
        key: EndpointKey(key),
        uid: format!("uid-{key}").into(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000 + key as u16)),
        namespace: "shop".into(),
        pod: format!("cart-{key}").into(),
        security: Security::Unmeshed,
        protocol: Protocol::Detect,
        node: "".into(),
        zone: "".into(),
        hints: Hints::default(),
        weight: 1,
        state,
        cells: EndpointCells::new(cells),
    };
    change(&mut endpoint);
    Arc::new(endpoint)
}

/// Ready endpoints with these weights; their keys count from 0.
pub(crate) fn backend(policy: BackendPolicy, weights: &[u32]) -> Arc<Backend> {
    let cells = Arc::new(BackendCells::default());
    let endpoints = weights
        .iter()
        .zip(0..)
        .map(|(weight, key)| endpoint(key, *weight, EndpointState::Ready, &cells));
    let endpoints = endpoints.collect();
    Arc::new(Backend::new(
        service("cart"),
        80,
        Arc::new(policy),
        endpoints,
        cells,
    ))
}

/// A workload whose port 80 has this access.
pub(crate) fn workload(access: Access) -> Workload {
    Workload {
        namespace: "shop".into(),
        pod: "cart-0".into(),
        uid: "uid-0".into(),
        service_account: "cart".into(),
        addresses: Vec::new(),
        here: Here::default(),
        ports: HashMap::from([(
            80,
            WorkloadPort {
                protocol: Protocol::Detect,
                access,
            },
        )]),
        default_access: Access {
            default_deny: true,
            ..Access::default()
        },
    }
}
