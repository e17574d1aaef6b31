//! Which endpoints a Service has: one candidate at a time.
//!
//! After `tables`, before `Index` compares with what it held. A candidate comes
//! from the Service's EndpointSlices where it has any, otherwise from its
//! selector and the live pods. Whether an endpoint has a proxy is its pod's
//! word, never a guess; an endpoint whose pod is not known is left out, since
//! calling it without its identity would be calling it in plaintext.
//!
//! Pure: reads tables, returns values.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::tables::{Reference, Slice, Tables, is_selected};
use crate::model::{
    Distribution, Endpoint, Hints, Name, Pod, Protocol, Service, ServicePort, SliceEndpoint,
    TargetPort, wants_proxy,
};

/// Who may be endpoints of this Service, in slices or by its selector.
pub(super) fn candidates(tables: &Tables, service: &Name) -> BTreeSet<Reference> {
    let mut all: BTreeSet<Reference> = tables
        .slices_by_service
        .of(service)
        .filter_map(|slice| tables.slices.get(slice))
        .flat_map(Slice::references)
        .map(|reference| canonical(tables, reference))
        .collect();
    if let Some(service) = tables.services.get(service) {
        let pods = tables.pods_selected(&service.name.namespace, &service.selector);
        all.extend(pods.map(|pod| Reference::Pod(pod.name.clone())));
    }
    all
}

/// A listed address that a pod owns means that pod.
pub(super) fn canonical(tables: &Tables, reference: &Reference) -> Reference {
    match reference {
        Reference::Address(ip) => tables
            .pod_of(*ip)
            .map_or_else(|| reference.clone(), |pod| Reference::Pod(pod.name.clone())),
        Reference::Pod(_) => reference.clone(),
    }
}

/// What the candidate serves, by the Service's port.
pub(super) fn of_candidate(
    tables: &Tables,
    service: &Service,
    candidate: &Reference,
) -> BTreeMap<u16, Endpoint> {
    let has_slices = !tables.slices_by_service.is_empty(&service.name);
    let found: Vec<(&ServicePort, Option<Endpoint>)> = match (candidate, has_slices) {
        (Reference::Pod(name), true) => {
            let Some(pod) = tables.pods.get(name) else {
                return BTreeMap::new();
            };
            let listings = listings_of_pod(tables, service, pod);
            let of = |port| {
                listed(&listings, port).and_then(|it| from_listing(tables, it, port, Some(pod)))
            };
            service.ports.iter().map(|port| (port, of(port))).collect()
        }
        (Reference::Address(ip), true) if tables.pod_of(*ip).is_none() => {
            let listings = listings_of(tables, service, candidate);
            let of =
                |port| listed(&listings, port).and_then(|it| from_listing(tables, it, port, None));
            service.ports.iter().map(|port| (port, of(port))).collect()
        }
        (Reference::Pod(name), false) => {
            let Some(pod) = tables.pods.get(name) else {
                return BTreeMap::new();
            };
            if !is_selected(&service.selector, &pod.labels)
                || pod.name.namespace != service.name.namespace
            {
                return BTreeMap::new();
            }
            let of = |port| from_pod(tables, service, port, pod);
            service.ports.iter().map(|port| (port, of(port))).collect()
        }
        (Reference::Address(_), _) => Vec::new(),
    };
    found
        .into_iter()
        .filter_map(|(port, endpoint)| Some((port.port, endpoint?)))
        .collect()
}

/// Ports of this pod that Services send to, ready or not, with the protocol
/// that they declare; two that disagree declare none.
pub(super) fn declared_ports(tables: &Tables, pod: &Pod) -> BTreeMap<u16, Protocol> {
    let mut declared: BTreeMap<u16, BTreeSet<Protocol>> = BTreeMap::new();
    let mut declare = |port: u16, protocol: Protocol| {
        declared.entry(port).or_default().insert(protocol);
    };
    for service in tables.services_selecting(pod) {
        for port in &service.ports {
            if let Some(number) = target_of(port, pod) {
                declare(number, port.protocol);
            }
        }
    }
    for service in services_listing_pod(tables, pod) {
        let Some(service) = tables.services.get(&service) else {
            continue;
        };
        for (slice, _) in listings_of_pod(tables, service, pod) {
            for port in &service.ports {
                if let Some(number) = slice.slice.ports.get(&port.name) {
                    declare(*number, port.protocol);
                }
            }
        }
    }
    let agreed = |said: BTreeSet<Protocol>| {
        let mut said = said.into_iter().filter(|it| *it != Protocol::Detect);
        match (said.next(), said.next()) {
            (Some(only), None) => only,
            _ => Protocol::Detect,
        }
    };
    declared
        .into_iter()
        .map(|(port, said)| (port, agreed(said)))
        .collect()
}

/// Services whose slices list this pod, by its name or an address of its own.
pub(super) fn services_listing_pod(tables: &Tables, pod: &Pod) -> BTreeSet<Name> {
    let mut services: BTreeSet<Name> = tables
        .services_listing(&Reference::Pod(pod.name.clone()))
        .collect();
    for ip in super::tables::owned_addresses(pod) {
        services.extend(tables.services_listing(&Reference::Address(ip)));
    }
    services
}

/// The pod as the destination of a connection to its own address.
pub(super) fn of_pod(
    tables: &Tables,
    pod: &Pod,
    address: SocketAddr,
    protocol: Protocol,
) -> Endpoint {
    let meshed = is_meshed(tables, pod);
    let name = &pod.name;
    Endpoint {
        uid: format!("{name}/{}:{}", pod.uid, address.port()).into(),
        address,
        pod: name.clone(),
        identity: meshed.then(|| tables.accounts.of(pod)),
        mesh: meshed && !pod.excluded_ports.contains(&address.port()),
        protocol,
        node: pod.node.clone(),
        zone: tables.zone_of(pod).to_owned(),
        hints: None,
        weight: pod.weight.max(1),
        draining: pod.terminating,
    }
}

pub(super) fn is_meshed(tables: &Tables, pod: &Pod) -> bool {
    let namespace = tables.namespaces.get(&pod.name.namespace);
    let is_to_be = || wants_proxy(namespace, pod.asked);
    !pod.host_network && pod.injected.unwrap_or_else(is_to_be)
}

type Listing<'a> = (&'a Slice, &'a SliceEndpoint);

fn listings_of<'a>(
    tables: &'a Tables,
    service: &Service,
    reference: &Reference,
) -> Vec<Listing<'a>> {
    tables
        .slices_by_reference
        .of(reference)
        .filter_map(|slice| tables.slices.get(slice))
        .filter(|slice| slice.service() == service.name)
        .filter_map(|slice| Some((slice, slice.entry(reference)?)))
        .collect()
}

fn listings_of_pod<'a>(tables: &'a Tables, service: &Service, pod: &Pod) -> Vec<Listing<'a>> {
    let mut all = Vec::new();
    if pod.name.namespace == service.name.namespace {
        all = listings_of(tables, service, &Reference::Pod(pod.name.clone()));
    }
    for ip in super::tables::owned_addresses(pod) {
        if tables
            .pod_of(ip)
            .is_some_and(|owner| owner.name == pod.name)
        {
            all.extend(listings_of(tables, service, &Reference::Address(ip)));
        }
    }
    all
}

/// While endpoints move between slices two may list one: the livelier holds,
/// then the first by name.
fn listed<'a>(listings: &[Listing<'a>], port: &ServicePort) -> Option<Listing<'a>> {
    listings
        .iter()
        .filter(|(slice, _)| slice.slice.ports.contains_key(&port.name))
        .min_by_key(|(slice, entry)| {
            let dead = !(entry.ready || (entry.serving && entry.terminating));
            (
                dead,
                entry.terminating,
                &slice.slice.name,
                entry.addresses.first(),
            )
        })
        .copied()
}

fn from_listing(
    tables: &Tables,
    (slice, entry): Listing<'_>,
    port: &ServicePort,
    pod: Option<&Pod>,
) -> Option<Endpoint> {
    let number = *slice.slice.ports.get(&port.name)?;
    let draining = entry.terminating || pod.is_some_and(|pod| pod.terminating);
    if !(entry.ready || draining) {
        return None;
    }
    // Of a pod without a proxy a source need not know where it runs.
    let listed = |listed: &String, own: &str| match listed.is_empty() {
        true => own.to_owned(),
        false => listed.clone(),
    };
    match pod {
        Some(pod) => {
            let ip = address_listed(tables, entry, pod)?;
            let endpoint = of_pod(tables, pod, SocketAddr::new(ip, number), port.protocol);
            Some(Endpoint {
                draining,
                node: listed(&entry.node, &endpoint.node),
                zone: listed(&entry.zone, &endpoint.zone),
                hints: entry.hints.clone(),
                ..endpoint
            })
        }
        None => {
            let address = SocketAddr::new(*entry.addresses.first()?, number);
            Some(Endpoint {
                uid: address.to_string().into(),
                address,
                pod: Name::default(),
                identity: None,
                mesh: false,
                protocol: port.protocol,
                node: entry.node.clone(),
                zone: entry.zone.clone(),
                hints: entry.hints.clone(),
                weight: 1,
                draining,
            })
        }
    }
}

/// `None`: what the slice lists is not this pod. A pod that was replaced under
/// its name has another UID, another identity and maybe no proxy; an address
/// that it has no longer may be another's by now.
pub(super) fn address_listed(tables: &Tables, entry: &SliceEndpoint, pod: &Pod) -> Option<IpAddr> {
    if !(entry.pod_uid.is_empty() || entry.pod_uid == pod.uid) {
        return None;
    }
    let mut listed = entry.addresses.iter().copied();
    // Of a pod without a proxy a source need not know more than that it has none.
    if pod.addresses.is_empty() && !is_meshed(tables, pod) {
        return listed.next();
    }
    listed.find(|ip| pod.addresses.contains(ip))
}

fn from_pod(tables: &Tables, service: &Service, port: &ServicePort, pod: &Pod) -> Option<Endpoint> {
    if !(pod.ready || pod.terminating || service.publish_not_ready) {
        return None;
    }
    let number = target_of(port, pod)?;
    let address = SocketAddr::new(address_for(service, pod)?, number);
    let endpoint = of_pod(tables, pod, address, port.protocol);
    let hints = hints(service.distribution, &endpoint);
    Some(Endpoint { hints, ..endpoint })
}

/// What a cluster's controller would hint: to each node and zone its own.
fn hints(distribution: Distribution, of: &Endpoint) -> Option<Box<Hints>> {
    let known = |text: &String| (!text.is_empty()).then(|| text.clone());
    let node = match distribution {
        Distribution::SameNode => known(&of.node),
        Distribution::Anywhere | Distribution::SameZone => None,
    };
    let zone = match distribution {
        Distribution::Anywhere => None,
        Distribution::SameZone | Distribution::SameNode => known(&of.zone),
    };
    let hints = Hints {
        nodes: node.into_iter().collect(),
        zones: zone.into_iter().collect(),
    };
    (hints != Hints::default()).then(|| Box::new(hints))
}

/// Of a family that the Service has, IPv4 first; any where it has none.
fn address_for(service: &Service, pod: &Pod) -> Option<IpAddr> {
    let has_family = |ip: &&IpAddr| {
        service
            .addresses
            .iter()
            .any(|it| it.is_ipv4() == ip.is_ipv4())
    };
    let fitting = pod.addresses.iter().filter(has_family).min();
    fitting.or_else(|| pod.addresses.first()).copied()
}

fn target_of(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Named(name) => pod.ports.get(name).copied(),
    }
}
