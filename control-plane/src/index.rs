//! Joins objects into what proxies need to know, one change at a time.
//!
//! Between `sources`, whose events it takes, and `serve`, which reads it and
//! streams what `apply` says has changed. A change marks what may depend on the
//! object, as it was and as it is; only the marked is joined anew. What comes
//! out depends on the objects that there are, never on the order in which they
//! came.
//!
//! Synchronous: no I/O, no clock, no rebuild of the world.

mod accounts;
mod dirty;
mod endpoints;
mod left_out;
mod problems;
mod ranges;
mod routes;
mod services;
mod sets;
mod slice;
mod tables;
#[cfg(test)]
mod tests;
mod verdicts;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::model::{
    BackendName, Change, Endpoint, Event, Key, Meaning, Name, Pod, Problem, ResolvedService,
    ResolvedWorkload, Verdict,
};
use dirty::Dirty;
use ranges::Ranges;
use tables::{Reference, Tables};

/// Everything that the sources said, joined.
#[derive(Debug, Default)]
pub struct Index {
    tables: Tables,
    joined: HashMap<Name, Joined>,
    problems: BTreeMap<Key, Vec<Problem>>,
    verdicts: BTreeMap<Key, Verdict>,
}

/// A Service's endpoints, and which candidate brought which.
#[derive(Debug, Default)]
struct Joined {
    ports: BTreeMap<u16, BTreeMap<Arc<str>, Endpoint>>,
    candidates: BTreeMap<Reference, Vec<(u16, Arc<str>)>>,
}

impl Index {
    /// With `ranges`, the mesh's addresses as configured; without, they follow
    /// from the addresses that there are.
    pub fn new(ranges: &[(IpAddr, u8)]) -> Self {
        let mut index = Self::default();
        index.tables.ranges = Ranges::new(ranges);
        index
    }

    /// What is different for whom, each once; a Service comes before its endpoints.
    pub fn apply(&mut self, event: Event) -> Vec<Change> {
        let (key, after) = match event {
            Event::Apply(object) => (object.key(), Some(object)),
            Event::Delete(key) => (key, None),
        };
        let before = self.tables.object(&key);
        if before == after {
            return Vec::new();
        }
        let mut dirty = Dirty::default();
        if let Some(object) = &before {
            dirty.mark(&self.tables, object, after.as_ref());
        }
        self.tables.remove(&key);
        if let Some(object) = after {
            self.tables.insert(object.clone());
            dirty.mark(&self.tables, &object, before.as_ref());
        }
        let mut changes = self.settle(dirty);
        if self.tables.ranges.differ() {
            changes.push(Change::Mesh);
        }
        changes
    }

    pub fn service(&self, name: &Name) -> Option<ResolvedService> {
        services::resolve(&self.tables, name)
    }

    /// By UID. `None`: no Service has such a port.
    pub fn endpoints(&self, backend: &BackendName) -> Option<impl Iterator<Item = &Endpoint>> {
        let port = self
            .joined
            .get(&backend.service)?
            .ports
            .get(&backend.port)?;
        Some(port.values())
    }

    pub fn endpoint(&self, backend: &BackendName, uid: &str) -> Option<&Endpoint> {
        self.joined
            .get(&backend.service)?
            .ports
            .get(&backend.port)?
            .get(uid)
    }

    pub fn meaning(&self, address: SocketAddr) -> Meaning {
        let (ip, port) = (address.ip(), address.port());
        if let Some(service) = self.tables.service_of(ip) {
            return match service.ports.iter().any(|it| it.port == port) {
                true => Meaning::Service(BackendName {
                    service: service.name.clone(),
                    port,
                }),
                false => Meaning::Unknown,
            };
        }
        if let Some(pod) = self.tables.pod_of(ip) {
            let declared = endpoints::declared_ports(&self.tables, pod);
            let protocol = declared.get(&port).copied().unwrap_or_default();
            let endpoint = endpoints::of_pod(&self.tables, pod, address, protocol);
            return match endpoint.mesh {
                true => Meaning::Workload(endpoint),
                false => Meaning::Unmeshed,
            };
        }
        match self.tables.services_listing(&Reference::Address(ip)).next() {
            Some(_) => Meaning::Unmeshed,
            None => Meaning::Unknown,
        }
    }

    pub fn workload(&self, pod: &Name) -> Option<ResolvedWorkload> {
        workloads::resolve(&self.tables, pod)
    }

    /// Base address and prefix length, ascending; those of a configuration first.
    pub fn ranges(&self) -> Vec<(IpAddr, u8)> {
        self.tables.ranges.all()
    }

    /// All of them, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    pub fn problems_of(&self, object: &Key) -> &[Problem] {
        self.problems.get(object).map_or(&[], Vec::as_slice)
    }

    /// What is answered to a route or a policy. `None`: it is gone, or not ours
    /// to answer.
    pub fn verdict(&self, object: &Key) -> Option<&Verdict> {
        self.verdicts.get(object)
    }

    /// The pods that an AccessPolicy is about.
    pub fn pods_of_policy(&self, policy: &Name) -> Vec<Name> {
        let policy = self.tables.access_policies.get(policy);
        let pods = policy.map(|it| self.tables.pods_targeted(it));
        pods.into_iter().flatten().cloned().collect()
    }

    /// All of them.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Key, &Verdict)> {
        self.verdicts.iter()
    }

    pub fn services(&self) -> impl Iterator<Item = &Name> {
        self.tables.services.keys()
    }

    /// ClusterIPs; none for headless services and those that don't exist.
    pub fn addresses(&self, service: &Name) -> impl Iterator<Item = IpAddr> {
        let service = self.tables.services.get(service);
        service
            .into_iter()
            .flat_map(|it| it.addresses.iter().copied())
    }

    /// Pods that have a proxy of theirs, or had one a moment ago.
    pub fn meshed_pods(&self) -> impl Iterator<Item = &Pod> {
        let pods = self.tables.pods.values();
        pods.filter(|it| !it.finished && endpoints::is_meshed(&self.tables, it))
    }

    /// Pods that have no proxy though they or their namespaces ask for one, as
    /// far as their metadata tells; by namespace. None of `spared`.
    pub fn left_out_pods(&self, spared: &[&str]) -> impl Iterator<Item = &Pod> {
        let namespaces = self.tables.namespaces.values();
        let asking = namespaces.filter(move |it| !spared.contains(&it.name.as_str()));
        asking.flat_map(|namespace| {
            let pods = self.tables.pods_by_namespace.of(&namespace.name);
            let pods = pods.filter_map(|name| self.tables.pods.get(name));
            pods.filter(|pod| left_out::is_left_out(namespace, pod))
        })
    }

    /// Namespaces whose pods ask for what their Pod Security Standard refuses,
    /// with its name.
    pub fn refusing_namespaces(&self) -> impl Iterator<Item = (&str, &str)> {
        let namespaces = self.tables.namespaces.values();
        namespaces.filter_map(left_out::refusing)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Name> {
        self.tables.pods.keys()
    }

    /// Joins the marked anew and tells what differs.
    fn settle(&mut self, mut dirty: Dirty) -> Vec<Change> {
        let mut changes: Vec<_> = dirty.services.into_iter().map(Change::Service).collect();
        for service in &dirty.shapes {
            self.reshape(service, &mut dirty.candidates);
        }
        for (service, candidate) in dirty.candidates {
            self.rejoin(&service, &candidate, &mut changes);
        }
        for key in dirty.judged {
            self.judge(key, &mut changes);
        }
        changes.extend(dirty.addresses.into_iter().map(Change::Address));
        changes.extend(dirty.ips.into_iter().map(Change::Ip));
        changes.extend(dirty.workloads.into_iter().map(Change::Workload));
        changes
    }

    fn judge(&mut self, key: Key, changes: &mut Vec<Change>) {
        let problems = problems::of(&self.tables, &key);
        if problems.as_slice() != self.problems_of(&key) {
            match problems.is_empty() {
                true => self.problems.remove(&key),
                false => self.problems.insert(key.clone(), problems),
            };
            changes.push(Change::Problems(key.clone()));
        }
        let verdict = verdicts::of(&self.tables, &key);
        if verdict.as_ref() != self.verdicts.get(&key) {
            match verdict {
                None => self.verdicts.remove(&key),
                Some(verdict) => self.verdicts.insert(key.clone(), verdict),
            };
            changes.push(Change::Verdict(key));
        }
    }

    /// The Service has other ports, or its candidates are others altogether.
    fn reshape(&mut self, name: &Name, candidates: &mut BTreeSet<(Name, Reference)>) {
        let Some(service) = self.tables.services.get(name) else {
            self.joined.remove(name);
            return;
        };
        let joined = self.joined.entry(name.clone()).or_default();
        let ports: BTreeSet<u16> = service.ports.iter().map(|it| it.port).collect();
        joined.ports.retain(|port, _| ports.contains(port));
        for port in &ports {
            joined.ports.entry(*port).or_default();
        }
        candidates.extend(
            joined
                .candidates
                .keys()
                .map(|it| (name.clone(), it.clone())),
        );
        let found = endpoints::candidates(&self.tables, name);
        candidates.extend(found.into_iter().map(|it| (name.clone(), it)));
    }

    fn rejoin(&mut self, name: &Name, candidate: &Reference, changes: &mut Vec<Change>) {
        let Some(service) = self.tables.services.get(name) else {
            return;
        };
        let Some(joined) = self.joined.get_mut(name) else {
            return;
        };
        let now = endpoints::of_candidate(&self.tables, service, candidate);
        let change = |port: u16, uid: Arc<str>| Change::Endpoints {
            backend: BackendName {
                service: name.clone(),
                port,
            },
            uid,
        };
        for (port, uid) in joined.candidates.remove(candidate).unwrap_or_default() {
            if now.get(&port).is_some_and(|it| it.uid == uid) {
                continue;
            }
            let held = joined
                .ports
                .get_mut(&port)
                .and_then(|endpoints| endpoints.remove(&uid));
            if held.is_some() {
                changes.push(change(port, uid));
            }
        }
        if now.is_empty() {
            return;
        }
        let brought = now
            .iter()
            .map(|(port, it)| (*port, it.uid.clone()))
            .collect();
        joined.candidates.insert(candidate.clone(), brought);
        for (port, endpoint) in now {
            let Some(endpoints) = joined.ports.get_mut(&port) else {
                continue;
            };
            let uid = endpoint.uid.clone();
            if endpoints.get(&uid) != Some(&endpoint) {
                endpoints.insert(uid.clone(), endpoint);
                changes.push(change(port, uid));
            }
        }
    }
}
