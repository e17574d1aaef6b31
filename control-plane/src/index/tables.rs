//! The objects, and who refers to whom: what makes one change cheap.
//!
//! Written by `Index::apply` alone, read by everything that joins. Every table
//! answers one question in time of its answer: which Services select this pod,
//! who claims this address, which slices list this pod. Never joins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

pub(super) use super::slice::{Reference, Slice};
use super::{accounts::Accounts, ranges::Ranges, sets::Sets};
use crate::model::{
    AccessPolicy, AccessTarget, BackendPolicyObject, EndpointSlice, Key, Kind, Labels, Name,
    Namespace, Node, Object, Pod, Route, Service, ServiceRange,
};

/// One label in one namespace.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Label {
    namespace: String,
    key: String,
    value: String,
}

impl Label {
    fn new(namespace: &str, (key, value): (&String, &String)) -> Self {
        Self {
            namespace: namespace.to_owned(),
            key: key.clone(),
            value: value.clone(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) namespaces: BTreeMap<String, Namespace>,
    pub(super) services: BTreeMap<Name, Service>,
    pub(super) pods: BTreeMap<Name, Pod>,
    pub(super) slices: BTreeMap<Name, Slice>,
    pub(super) routes: BTreeMap<Key, Route>,
    pub(super) backend_policies: BTreeMap<Name, BackendPolicyObject>,
    pub(super) access_policies: BTreeMap<Name, AccessPolicy>,
    nodes: BTreeMap<String, Node>,
    service_ranges: BTreeMap<String, ServiceRange>,
    pub(super) ranges: Ranges,

    pub(super) services_by_ip: Sets<IpAddr>,
    pub(super) pods_by_ip: Sets<IpAddr>,
    pub(super) pods_by_namespace: Sets<String>,
    pods_by_node: Sets<String>,
    pub(super) accounts: Accounts,
    pods_by_label: Sets<Label>,
    /// By one label of the selector, the rarest when it was entered.
    services_by_label: Sets<Label>,
    entered_under: HashMap<Name, Label>,
    pub(super) slices_by_service: Sets<Name>,
    pub(super) slices_by_reference: Sets<Reference>,
    pub(super) routes_by_parent: Sets<Name, Key>,
    pub(super) routes_by_backend: Sets<Name, Key>,
    pub(super) backend_policies_by_target: Sets<Name>,
    pub(super) access_policies_by_namespace: Sets<String>,
}

impl Tables {
    pub(super) fn object(&self, key: &Key) -> Option<Object> {
        let name = &key.name;
        match key.kind {
            Kind::Namespace => self
                .namespaces
                .get(&name.name)
                .cloned()
                .map(Object::Namespace),
            Kind::Service => self.services.get(name).cloned().map(Object::Service),
            Kind::EndpointSlice => self
                .slices
                .get(name)
                .map(|it| Object::EndpointSlice(it.slice.clone())),
            Kind::Pod => self.pods.get(name).cloned().map(Object::Pod),
            Kind::HttpRoute | Kind::GrpcRoute => self.routes.get(key).cloned().map(Object::Route),
            Kind::BackendPolicy => self
                .backend_policies
                .get(name)
                .cloned()
                .map(Object::BackendPolicy),
            Kind::AccessPolicy => self
                .access_policies
                .get(name)
                .cloned()
                .map(Object::AccessPolicy),
            Kind::Node => self.nodes.get(&name.name).cloned().map(Object::Node),
            Kind::ServiceRange => self
                .service_ranges
                .get(&name.name)
                .cloned()
                .map(Object::ServiceRange),
        }
    }

    pub(super) fn insert(&mut self, object: Object) {
        match object {
            Object::Namespace(it) => {
                self.namespaces.insert(it.name.clone(), it);
            }
            Object::Service(it) => self.insert_service(it),
            Object::Pod(it) => self.insert_pod(it),
            Object::EndpointSlice(it) => {
                self.insert_slice(it);
            }
            Object::Route(it) => {
                let key = it.key();
                for parent in &it.parents {
                    self.routes_by_parent.insert(parent.service.clone(), &key);
                }
                for it in it.destinations() {
                    self.routes_by_backend
                        .insert(it.backend.service.clone(), &key);
                }
                self.routes.insert(key, it);
            }
            Object::BackendPolicy(it) => {
                for target in &it.targets {
                    let target = Name::new(&it.name.namespace, target);
                    self.backend_policies_by_target.insert(target, &it.name);
                }
                self.backend_policies.insert(it.name.clone(), it);
            }
            Object::AccessPolicy(it) => {
                self.access_policies_by_namespace
                    .insert(it.name.namespace.clone(), &it.name);
                self.access_policies.insert(it.name.clone(), it);
            }
            Object::Node(it) => {
                for range in &it.pod_ranges {
                    self.ranges.claim_pods(*range);
                }
                self.nodes.insert(it.name.clone(), it);
            }
            Object::ServiceRange(it) => {
                for range in &it.ranges {
                    self.ranges.claim_range(*range);
                }
                self.service_ranges.insert(it.name.clone(), it);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let name = &key.name;
        match key.kind {
            Kind::Namespace => {
                self.namespaces.remove(&name.name);
            }
            Kind::Service => self.remove_service(name),
            Kind::Pod => self.remove_pod(name),
            Kind::EndpointSlice => self.remove_slice(name),
            Kind::HttpRoute | Kind::GrpcRoute => {
                let Some(it) = self.routes.remove(key) else {
                    return;
                };
                for parent in &it.parents {
                    self.routes_by_parent.remove(&parent.service, key);
                }
                for it in it.destinations() {
                    self.routes_by_backend.remove(&it.backend.service, key);
                }
            }
            Kind::BackendPolicy => {
                let Some(it) = self.backend_policies.remove(name) else {
                    return;
                };
                for target in &it.targets {
                    let target = Name::new(&name.namespace, target);
                    self.backend_policies_by_target.remove(&target, name);
                }
            }
            Kind::AccessPolicy => {
                self.access_policies.remove(name);
                self.access_policies_by_namespace
                    .remove(&name.namespace, name);
            }
            Kind::Node => {
                let node = self.nodes.remove(&name.name);
                for range in node.into_iter().flat_map(|it| it.pod_ranges) {
                    self.ranges.release_pods(range);
                }
            }
            Kind::ServiceRange => {
                let range = self.service_ranges.remove(&name.name);
                for range in range.into_iter().flat_map(|it| it.ranges) {
                    self.ranges.release_range(range);
                }
            }
        }
    }

    fn insert_service(&mut self, it: Service) {
        for ip in &it.addresses {
            self.services_by_ip.insert(*ip, &it.name);
            self.ranges.claim(*ip);
        }
        let rarest = it
            .selector
            .iter()
            .map(|label| Label::new(&it.name.namespace, label))
            .min_by_key(|label| self.services_by_label.len(label));
        if let Some(label) = rarest {
            self.services_by_label.insert(label.clone(), &it.name);
            self.entered_under.insert(it.name.clone(), label);
        }
        self.services.insert(it.name.clone(), it);
    }

    fn remove_service(&mut self, name: &Name) {
        let Some(it) = self.services.remove(name) else {
            return;
        };
        for ip in &it.addresses {
            self.services_by_ip.remove(ip, name);
            self.ranges.release(*ip);
        }
        if let Some(label) = self.entered_under.remove(name) {
            self.services_by_label.remove(&label, name);
        }
    }

    fn insert_pod(&mut self, it: Pod) {
        for ip in owned_addresses(&it) {
            self.pods_by_ip.insert(ip, &it.name);
            self.ranges.claim(ip);
        }
        for label in it.labels.iter() {
            self.pods_by_label
                .insert(Label::new(&it.name.namespace, label), &it.name);
        }
        self.pods_by_namespace
            .insert(it.name.namespace.clone(), &it.name);
        if !it.node.is_empty() {
            self.pods_by_node.insert(it.node.clone(), &it.name);
        }
        self.accounts.claim(&it);
        self.pods.insert(it.name.clone(), it);
    }

    fn remove_pod(&mut self, name: &Name) {
        let Some(it) = self.pods.remove(name) else {
            return;
        };
        for ip in owned_addresses(&it) {
            self.pods_by_ip.remove(&ip, name);
            self.ranges.release(ip);
        }
        for label in it.labels.iter() {
            self.pods_by_label
                .remove(&Label::new(&name.namespace, label), name);
        }
        self.pods_by_namespace.remove(&name.namespace, name);
        self.pods_by_node.remove(&it.node, name);
        self.accounts.release(&it);
    }

    fn insert_slice(&mut self, it: EndpointSlice) {
        let known = |name: Name| match self.pods.get(&name) {
            Some(pod) => pod.name.clone(),
            None => name,
        };
        let it = Slice::new(it, known);
        let name = it.slice.name.clone();
        self.slices_by_service.insert(it.service(), &name);
        for reference in it.references() {
            self.slices_by_reference.insert(reference.clone(), &name);
        }
        self.slices.insert(name, it);
    }

    fn remove_slice(&mut self, name: &Name) {
        let Some(it) = self.slices.remove(name) else {
            return;
        };
        self.slices_by_service.remove(&it.service(), name);
        for reference in it.references() {
            self.slices_by_reference.remove(reference, name);
        }
    }

    /// Services whose selector this pod has.
    pub(super) fn services_selecting<'a>(
        &'a self,
        pod: &'a Pod,
    ) -> impl Iterator<Item = &'a Service> {
        pod.labels
            .iter()
            .flat_map(|label| {
                let label = Label::new(&pod.name.namespace, label);
                self.services_by_label.of(&label).collect::<Vec<_>>()
            })
            .filter_map(|name| self.services.get(name))
            .filter(|service| is_selected(&service.selector, &pod.labels))
    }

    /// Pods of a namespace that have all of these labels; none for none.
    pub(super) fn pods_selected<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Pod> {
        selector
            .iter()
            .map(|label| Label::new(namespace, label))
            .min_by_key(|label| self.pods_by_label.len(label))
            .into_iter()
            .flat_map(|label| self.pods_by_label.of(&label).collect::<Vec<_>>())
            .filter_map(|name| self.pods.get(name))
            .filter(|pod| is_selected(selector, &pod.labels))
    }

    /// The pods that an AccessPolicy is about.
    pub(super) fn pods_targeted<'a>(&'a self, policy: &'a AccessPolicy) -> BTreeSet<&'a Name> {
        let namespace = &policy.name.namespace;
        let mut pods = BTreeSet::new();
        for target in &policy.targets {
            match target {
                AccessTarget::Namespace => pods.extend(self.pods_by_namespace.of(namespace)),
                AccessTarget::Selected(labels) => {
                    pods.extend(self.pods_selected(namespace, labels).map(|pod| &pod.name));
                }
            }
        }
        pods
    }

    pub(super) fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let names = self.pods_by_node.of(node);
        names.filter_map(|name| self.pods.get(name))
    }

    /// The pod's own word, else its node's.
    pub(super) fn zone_of<'a>(&'a self, pod: &'a Pod) -> &'a str {
        match pod.zone.as_str() {
            "" => self.nodes.get(&pod.node).map_or("", |node| &node.zone),
            own => own,
        }
    }

    /// Which Service an address is, where several claim it: the oldest, then
    /// the first by name.
    pub(super) fn service_of(&self, ip: IpAddr) -> Option<&Service> {
        self.services_by_ip
            .of(&ip)
            .filter_map(|name| self.services.get(name))
            .min_by(|one, other| {
                (one.created_milliseconds, &one.name)
                    .cmp(&(other.created_milliseconds, &other.name))
            })
    }

    /// Which pod an address is: one that lives before one that is going, since
    /// addresses are re-used; then the first by name.
    pub(super) fn pod_of(&self, ip: IpAddr) -> Option<&Pod> {
        self.pods_by_ip
            .of(&ip)
            .filter_map(|name| self.pods.get(name))
            .min_by_key(|pod| (pod.terminating, &pod.name))
    }

    /// Services whose slices list this.
    pub(super) fn services_listing<'a>(
        &'a self,
        reference: &'a Reference,
    ) -> impl Iterator<Item = Name> + 'a {
        self.slices_by_reference
            .of(reference)
            .filter_map(|slice| self.slices.get(slice))
            .map(Slice::service)
    }
}

/// Those that are the pod's alone.
pub(super) fn owned_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    match pod.host_network {
        true => BTreeSet::new(),
        false => pod.addresses.iter().copied().collect(),
    }
}

/// A Service without a selector selects nothing.
pub(super) fn is_selected(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty()
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}
