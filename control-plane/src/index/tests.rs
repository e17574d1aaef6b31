//! Any order of events ends in the same state, and changes name all that differs.

mod cost;
mod joins;
mod orders;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::*;
use crate::model::{Kind, Labels, Object, Pod, Service, ServicePort, TargetPort};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn backend(service: &str, port: u16) -> BackendName {
    BackendName {
        service: name(service),
        port,
    }
}

/// "namespace/name".
fn name(text: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    Name::new(namespace, name)
}

fn service(service: &str, ip: &str, app: &str) -> Service {
    Service {
        name: name(service),
        addresses: [ip.parse().unwrap()].into(),
        selector: labels(&[("app", app)]),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            target: TargetPort::Number(8080),
            ..ServicePort::default()
        }],
        ..Service::default()
    }
}

fn pod(pod: &str, ip: &str, app: &str) -> Pod {
    Pod {
        name: name(pod),
        uid: format!("uid-of-{ip}"),
        labels: labels(&[("app", app)]).into(),
        service_account: "default".to_owned(),
        addresses: vec![ip.parse().unwrap()],
        injected: Some(true),
        ready: true,
        ..Pod::default()
    }
}

/// All that one can ask, over everything that the tests ever name.
#[derive(Clone, PartialEq, Debug, Default)]
struct View {
    services: BTreeMap<Name, Option<ResolvedService>>,
    endpoints: BTreeMap<BackendName, Option<BTreeMap<Arc<str>, Endpoint>>>,
    meanings: BTreeMap<SocketAddr, Meaning>,
    workloads: BTreeMap<Name, Option<ResolvedWorkload>>,
    problems: BTreeMap<Key, Vec<Problem>>,
    verdicts: BTreeMap<Key, Verdict>,
    ranges: Vec<(IpAddr, u8)>,
}

/// What a test ever names.
struct Universe {
    names: Vec<Name>,
    ports: Vec<u16>,
    ips: Vec<IpAddr>,
}

impl Universe {
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let ports = self.ports.iter();
        ports.flat_map(|port| self.ips.iter().map(|ip| SocketAddr::new(*ip, *port)))
    }

    fn backends(&self, service: &Name) -> impl Iterator<Item = BackendName> {
        self.ports.iter().map(|port| BackendName {
            service: service.clone(),
            port: *port,
        })
    }
}

impl View {
    fn of(index: &Index, universe: &Universe) -> Self {
        let mut view = Self::default();
        for name in &universe.names {
            view.services.insert(name.clone(), index.service(name));
            view.workloads.insert(name.clone(), index.workload(name));
            for backend in universe.backends(name) {
                let endpoints = endpoints_of(index, &backend);
                view.endpoints.insert(backend, endpoints);
            }
        }
        for address in universe.addresses() {
            view.meanings.insert(address, index.meaning(address));
        }
        for problem in index.problems() {
            view.problems
                .entry(problem.object.clone())
                .or_default()
                .push(problem.clone());
        }
        let verdicts = index.verdicts();
        view.verdicts = verdicts
            .map(|(key, it)| (key.clone(), it.clone()))
            .collect();
        view.ranges = index.ranges();
        view
    }

    /// As a subscriber to everything would, by what the changes name alone.
    fn follow(&mut self, index: &Index, changes: &[Change], universe: &Universe) {
        for change in changes {
            match change {
                Change::Mesh => self.ranges = index.ranges(),
                Change::Service(name) => {
                    let service = index.service(name);
                    let ports: BTreeSet<u16> = service
                        .iter()
                        .flat_map(|it| &it.ports)
                        .map(|it| it.port)
                        .collect();
                    for backend in universe.backends(name) {
                        let held = self.endpoints.entry(backend.clone()).or_default();
                        match ports.contains(&backend.port) {
                            true => held.get_or_insert_default(),
                            false => {
                                *held = None;
                                continue;
                            }
                        };
                    }
                    self.services.insert(name.clone(), service);
                }
                Change::Endpoints { backend, uid } => {
                    let Some(held) = self.endpoints.entry(backend.clone()).or_default() else {
                        continue;
                    };
                    match index.endpoint(backend, uid) {
                        Some(endpoint) => held.insert(uid.clone(), endpoint.clone()),
                        None => held.remove(uid),
                    };
                }
                Change::Address(address) => {
                    self.meanings.insert(*address, index.meaning(*address));
                }
                Change::Ip(ip) => {
                    for address in universe.addresses().filter(|it| it.ip() == *ip) {
                        self.meanings.insert(address, index.meaning(address));
                    }
                }
                Change::Workload(name) => {
                    self.workloads.insert(name.clone(), index.workload(name));
                }
                Change::Verdict(key) => {
                    match index.verdict(key) {
                        None => self.verdicts.remove(key),
                        Some(it) => self.verdicts.insert(key.clone(), it.clone()),
                    };
                }
                Change::Problems(key) => {
                    match index.problems_of(key) {
                        [] => self.problems.remove(key),
                        found => self.problems.insert(key.clone(), found.to_vec()),
                    };
                }
            }
        }
        // Ports outside the universe are asked for by nobody.
        let asked: BTreeSet<_> = universe.addresses().collect();
        self.meanings.retain(|address, _| asked.contains(address));
    }
}

fn endpoints_of(index: &Index, backend: &BackendName) -> Option<BTreeMap<Arc<str>, Endpoint>> {
    let endpoints = index.endpoints(backend)?;
    Some(endpoints.map(|it| (it.uid.clone(), it.clone())).collect())
}

fn applied(objects: impl IntoIterator<Item = Object>) -> Index {
    let mut index = Index::default();
    for object in objects {
        index.apply(Event::Apply(object));
    }
    index
}

fn key(kind: Kind, text: &str) -> Key {
    Key {
        kind,
        name: name(text),
    }
}
