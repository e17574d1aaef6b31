//! What a change of one object may make different.
//!
//! `Index::apply` marks twice: with the object as it was in the tables and as
//! it is in them. Marking too much costs work, too little loses a change: the
//! property test in `tests` holds every accessor against it.
//!
//! Pure: reads tables, collects names.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    endpoints,
    tables::{Reference, Slice, Tables, owned_addresses},
};
use crate::model::{
    AccessPolicy, AccessTarget, BackendPolicyObject, EndpointSlice, Key, Kind, Name, Namespace,
    Node, Object, Pod, Route, Service,
};

#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// To be announced.
    pub(super) services: BTreeSet<Name>,
    pub(super) addresses: BTreeSet<SocketAddr>,
    pub(super) ips: BTreeSet<IpAddr>,
    pub(super) workloads: BTreeSet<Name>,
    /// To be joined anew, and announced where that differs.
    pub(super) shapes: BTreeSet<Name>,
    pub(super) candidates: BTreeSet<(Name, Reference)>,
    /// What can't hold of these, and what is answered to them.
    pub(super) judged: BTreeSet<Key>,
}

impl Dirty {
    /// `object` is in the tables; `counterpart` is what it was or will be.
    pub(super) fn mark(&mut self, tables: &Tables, object: &Object, counterpart: Option<&Object>) {
        self.problem(object.key().kind, &object.key().name);
        match (object, counterpart) {
            (Object::Namespace(it), _) => self.namespace(tables, it),
            (Object::Service(it), Some(Object::Service(other))) => {
                self.service(tables, it, Some(other))
            }
            (Object::Service(it), _) => self.service(tables, it, None),
            (Object::EndpointSlice(it), Some(Object::EndpointSlice(other))) => {
                self.slice(tables, it, Some(other));
            }
            (Object::EndpointSlice(it), _) => self.slice(tables, it, None),
            (Object::Pod(it), _) => self.pod(tables, it),
            (Object::Route(it), _) => self.route(tables, it),
            (Object::BackendPolicy(it), _) => self.backend_policy(tables, it),
            (Object::AccessPolicy(it), _) => self.access_policy(tables, it),
            (Object::Node(it), Some(Object::Node(other))) if it.zone == other.zone => {}
            (Object::Node(it), _) => self.node(tables, it),
            // Ranges tell themselves whether they differ.
            (Object::ServiceRange(_), _) => {}
        }
    }

    fn problem(&mut self, kind: Kind, name: &Name) {
        self.judged.insert(Key {
            kind,
            name: name.clone(),
        });
    }

    fn problems_of<'a>(&mut self, kind: Kind, names: impl Iterator<Item = &'a Name>) {
        for name in names {
            self.problem(kind, name);
        }
    }

    /// Its pods that don't say their zone themselves.
    fn node(&mut self, tables: &Tables, it: &Node) {
        for pod in tables.pods_on(&it.name).filter(|pod| pod.zone.is_empty()) {
            self.pod(tables, pod);
        }
    }

    /// Its pods of which nobody says whether they have a proxy, and that don't
    /// decline one.
    fn namespace(&mut self, tables: &Tables, it: &Namespace) {
        let silent = |pod: &&Pod| pod.injected.is_none() && pod.asked != Some(false);
        let pods = tables
            .pods_by_namespace
            .of(&it.name)
            .filter_map(|pod| tables.pods.get(pod));
        for pod in pods.filter(silent) {
            self.pod(tables, pod);
        }
    }

    fn service(&mut self, tables: &Tables, it: &Service, other: Option<&Service>) {
        self.services.insert(it.name.clone());
        for ip in &it.addresses {
            self.problems_of(Kind::Service, tables.services_by_ip.of(ip));
            self.problems_of(Kind::Pod, tables.pods_by_ip.of(ip));
            match other {
                Some(other) if keeps_addresses(it, other) => {
                    let ports = it.ports.iter().chain(&other.ports).map(|port| port.port);
                    self.addresses
                        .extend(ports.map(|port| SocketAddr::new(*ip, port)));
                }
                _ => {
                    self.ips.insert(*ip);
                }
            }
        }
        // Who refers to it: a reference may lead nowhere now, or somewhere.
        self.judged
            .extend(tables.routes_by_parent.of(&it.name).cloned());
        self.problems_of(
            Kind::BackendPolicy,
            tables.backend_policies_by_target.of(&it.name),
        );
        self.problems_of(Kind::EndpointSlice, tables.slices_by_service.of(&it.name));
        for route in tables.routes_by_backend.of(&it.name) {
            self.judged.insert(route.clone());
            let parents = tables
                .routes
                .get(route)
                .into_iter()
                .flat_map(|route| &route.parents);
            self.services
                .extend(parents.map(|parent| parent.service.clone()));
        }
        if other.is_some_and(|other| keeps_endpoints(it, other)) {
            return;
        }
        self.shapes.insert(it.name.clone());
        for candidate in endpoints::candidates(tables, &it.name) {
            if let Reference::Pod(pod) = candidate {
                self.declared(tables, &pod);
            }
        }
    }

    fn slice(&mut self, tables: &Tables, it: &EndpointSlice, other: Option<&EndpointSlice>) {
        let service = Name::new(&it.name.namespace, &it.service);
        // With the first slice, and after the last, the endpoints are others altogether.
        if tables.slices_by_service.of(&service).count() == 1 {
            self.shapes.insert(service.clone());
        }
        let Some(slice) = tables.slices.get(&it.name) else {
            return;
        };
        let kept = other.filter(|other| other.service == it.service && other.ports == it.ports);
        let kept = kept.map(|other| Slice::new(other.clone(), |name| name));
        for reference in slice.references() {
            let same = kept
                .as_ref()
                .is_some_and(|kept| kept.entry(reference) == slice.entry(reference));
            if same {
                continue;
            }
            if let Reference::Address(ip) = reference {
                self.ips.insert(*ip);
                self.candidates.insert((service.clone(), reference.clone()));
            }
            let candidate = endpoints::canonical(tables, reference);
            if let Reference::Pod(pod) = &candidate {
                self.declared(tables, pod);
            }
            self.candidates.insert((service.clone(), candidate));
        }
    }

    fn pod(&mut self, tables: &Tables, it: &Pod) {
        self.workloads.insert(it.name.clone());
        let this = Reference::Pod(it.name.clone());
        for service in tables.services_selecting(it) {
            self.candidates.insert((service.name.clone(), this.clone()));
        }
        for service in tables.services_listing(&this) {
            self.candidates.insert((service, this.clone()));
        }
        for ip in owned_addresses(it) {
            self.ips.insert(ip);
            self.problems_of(Kind::Pod, tables.pods_by_ip.of(&ip));
            // Whose an address is that slices list decides who is listed.
            let listed = Reference::Address(ip);
            for service in tables.services_listing(&listed) {
                self.candidates.insert((service.clone(), listed.clone()));
                for pod in tables.pods_by_ip.of(&ip) {
                    self.candidates
                        .insert((service.clone(), Reference::Pod(pod.clone())));
                    self.workloads.insert(pod.clone());
                    self.ips
                        .extend(tables.pods.get(pod).into_iter().flat_map(owned_addresses));
                }
            }
        }
        self.problems_of(Kind::EndpointSlice, tables.slices_by_reference.of(&this));
        let policies = tables.access_policies_by_namespace.of(&it.name.namespace);
        for policy in policies.filter_map(|policy| tables.access_policies.get(policy)) {
            let selects = |target: &AccessTarget| match target {
                AccessTarget::Namespace => false,
                AccessTarget::Selected(labels) => super::tables::is_selected(labels, &it.labels),
            };
            if policy.targets.iter().any(selects) {
                self.problem(Kind::AccessPolicy, &policy.name);
            }
        }
    }

    fn route(&mut self, tables: &Tables, it: &Route) {
        for parent in &it.parents {
            // Those on the same port may win or lose it.
            let others = tables.routes_by_parent.of(&parent.service);
            self.judged.extend(others.cloned());
            self.services.insert(parent.service.clone());
        }
    }

    fn backend_policy(&mut self, tables: &Tables, it: &BackendPolicyObject) {
        for target in &it.targets {
            let target = Name::new(&it.name.namespace, target);
            self.problems_of(
                Kind::BackendPolicy,
                tables.backend_policies_by_target.of(&target),
            );
            self.services.insert(target);
        }
    }

    fn access_policy(&mut self, tables: &Tables, it: &AccessPolicy) {
        self.workloads
            .extend(tables.pods_targeted(it).into_iter().cloned());
    }

    /// What Services declare of a pod's ports may be different.
    fn declared(&mut self, tables: &Tables, pod: &Name) {
        self.workloads.insert(pod.clone());
        self.ips
            .extend(tables.pods.get(pod).into_iter().flat_map(owned_addresses));
    }
}

/// Whose its addresses are doesn't change with this.
fn keeps_addresses(one: &Service, other: &Service) -> bool {
    one.addresses == other.addresses && one.created_milliseconds == other.created_milliseconds
}

fn keeps_endpoints(one: &Service, other: &Service) -> bool {
    // Which family an endpoint is called by follows from the Service's addresses.
    one.ports == other.ports
        && one.selector == other.selector
        && one.publish_not_ready == other.publish_not_ready
        && one.distribution == other.distribution
        && one.addresses == other.addresses
}
