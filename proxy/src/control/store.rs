//! Joins what the control plane sent into snapshots.
//!
//! `client` hands in validated resources of `decode`; every change is one new
//! snapshot for the workers. Only backends and service ports that a change
//! touches are built again; cells stay with what they count. What refers to
//! something that is not held is left out: no answer is not "pass".
//!
//! Owned by one task; never waits, never does I/O.

mod assemble;
mod group;
mod rules;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
};

use tokio::sync::watch;

use self::group::{Group, Keys};
use super::decode::{
    self, Body, Change, Invalid, Kept, Key, Meaning as Named, Resource, Service, Target,
};
use crate::{
    addr::Range,
    discovery::{Backend, BackendPolicy, Here, ServiceName, ServicePort, Snapshot, Workload},
    tls::certs::Bundle,
};

/// What came of a message.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) rejected: Vec<(Key, u64, Invalid)>,
    /// Changes to versions that are not held.
    pub(crate) incomplete: Vec<Key>,
    pub(crate) bundle: Option<Bundle>,
    /// There is a new snapshot.
    pub(crate) is_new: bool,
}

#[derive(Debug)]
struct Held<T> {
    version: u64,
    content: Box<[u8]>,
    value: T,
}

#[derive(Debug)]
struct Address {
    meaning: Named,
    used: Arc<AtomicBool>,
}

/// Must be built again.
#[derive(Debug, Default)]
struct Touched {
    services: HashSet<ServiceName>,
    backends: HashSet<Target>,
    /// All of them: we are elsewhere.
    is_whole: bool,
    is_any: bool,
}

#[derive(Debug)]
pub(crate) struct Store {
    mesh: Option<Held<Arc<[Range]>>>,
    bundle_version: Option<u64>,
    workload: Option<(Key, Held<Arc<Workload>>)>,
    addresses: HashMap<SocketAddr, Held<Address>>,
    services: HashMap<ServiceName, Held<Service>>,
    groups: HashMap<Target, Group>,
    pods: HashMap<SocketAddr, Group>,
    keys: Keys,
    /// Where our workload ran when it was last told.
    here: Here,
    backends: HashMap<Target, Arc<Backend>>,
    ports: HashMap<Target, Arc<ServicePort>>,
    default_policy: Arc<BackendPolicy>,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            mesh: None,
            bundle_version: None,
            workload: None,
            addresses: HashMap::new(),
            services: HashMap::new(),
            groups: HashMap::new(),
            pods: HashMap::new(),
            keys: Keys::default(),
            here: Here::default(),
            backends: HashMap::new(),
            ports: HashMap::new(),
            default_policy: Arc::default(),
            snapshots: watch::Sender::new(Arc::default()),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Enough is known to serve.
    pub(crate) fn is_configured(&self) -> bool {
        self.mesh.is_some() && self.workload.is_some()
    }

    /// Everything of one message together.
    pub(crate) fn apply(&mut self, resources: Vec<Resource>, removed: &[Key]) -> Applied {
        let mut applied = Applied::default();
        let mut touched = Touched::default();
        for resource in resources {
            self.put(resource, &mut applied, &mut touched);
        }
        for key in removed {
            self.remove(key, &mut touched);
        }
        applied.is_new = touched.is_any;
        if touched.is_any {
            self.rebuild(&touched);
            self.publish();
        }
        applied
    }

    /// Ends what nobody subscribes to any more.
    pub(crate) fn forget(&mut self, keys: &[Key]) {
        self.apply(Vec::new(), keys);
    }

    fn put(&mut self, resource: Resource, applied: &mut Applied, touched: &mut Touched) {
        let Resource {
            key,
            version,
            body,
            content,
        } = resource;
        let body = match body {
            Ok(body) => body,
            Err(invalid) => return applied.rejected.push((key, version, invalid)),
        };
        touched.is_any = true;
        match (key, body) {
            (Key::Mesh, Body::Mesh { ranges }) => {
                self.mesh = Some(Held {
                    version,
                    content,
                    value: ranges,
                });
            }
            (Key::TrustBundle, Body::TrustBundle(bundle)) => {
                self.bundle_version = Some(version);
                applied.bundle = Some(bundle);
            }
            (key @ Key::Workload(_), Body::Workload(value)) => {
                touched.is_whole |= self.here != value.here;
                self.here = value.here.clone();
                self.workload = Some((
                    key,
                    Held {
                        version,
                        content,
                        value,
                    },
                ));
            }
            (Key::Address(address), Body::Address(meaning)) => {
                self.put_address(address, version, content, meaning);
            }
            (Key::Service(name), Body::Service(value)) => {
                touched.services.insert(name.clone());
                self.services.insert(
                    name,
                    Held {
                        version,
                        content,
                        value,
                    },
                );
            }
            (Key::Endpoints(service, port), Body::Endpoints(change)) => {
                let target = Target { service, port };
                if self.put_endpoints(&target, version, change) {
                    touched.backends.insert(target);
                } else {
                    applied
                        .incomplete
                        .push(Key::Endpoints(target.service, port));
                }
            }
            // `decode` lets no body of another kind through.
            (_, _) => {}
        }
    }

    fn put_address(&mut self, at: SocketAddr, version: u64, content: Box<[u8]>, meaning: Named) {
        match &meaning {
            Named::Workload(member) => {
                let group = self.pods.entry(at).or_default();
                let change = Change {
                    base: None,
                    added_or_updated: vec![(**member).clone()],
                    removed: Vec::new(),
                };
                // A whole set has no base that could be wrong.
                let _ = group.apply(change, version, &mut self.keys);
            }
            Named::Service(_) | Named::Unmeshed | Named::Unknown => self.remove_pod(at),
        }
        let used = match self.addresses.get(&at) {
            Some(held) => held.value.used.clone(),
            None => Arc::new(AtomicBool::new(true)),
        };
        let value = Address { meaning, used };
        self.addresses.insert(
            at,
            Held {
                version,
                content,
                value,
            },
        );
    }

    fn put_endpoints(&mut self, target: &Target, version: u64, change: Change) -> bool {
        let group = self.groups.entry(target.clone()).or_default();
        group.apply(change, version, &mut self.keys).is_ok()
    }

    fn remove_pod(&mut self, at: SocketAddr) {
        if let Some(mut group) = self.pods.remove(&at) {
            group.clear(&mut self.keys);
        }
    }

    fn remove(&mut self, key: &Key, touched: &mut Touched) {
        touched.is_any = true;
        match key {
            Key::Mesh => self.mesh = None,
            // Trusting nobody would end every connection: a bundle is only ever replaced.
            Key::TrustBundle => self.bundle_version = None,
            Key::Workload(_) => {
                if self.workload.as_ref().is_some_and(|(held, _)| held == key) {
                    self.workload = None;
                }
            }
            Key::Address(address) => {
                self.addresses.remove(address);
                self.remove_pod(*address);
            }
            Key::Service(name) => {
                self.services.remove(name);
                touched.services.insert(name.clone());
            }
            Key::Endpoints(service, port) => {
                let target = Target {
                    service: service.clone(),
                    port: *port,
                };
                if let Some(group) = self.groups.get_mut(&target) {
                    group.clear(&mut self.keys);
                    touched.backends.insert(target);
                }
            }
        }
    }

    /// Takes note of who was looked up since the last time.
    pub(crate) fn take_used(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses
            .iter()
            .filter(|(_, held)| held.value.used.swap(false, Ordering::Relaxed))
            .map(|(address, _)| *address)
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.keys().copied()
    }

    #[cfg(test)]
    pub(crate) fn version(&self, key: &Key) -> Option<u64> {
        match key {
            Key::Mesh => self.mesh.as_ref().map(|held| held.version),
            Key::TrustBundle => self.bundle_version,
            Key::Workload(_) => {
                let held = self.workload.as_ref().filter(|(held, _)| held == key);
                held.map(|(_, held)| held.version)
            }
            Key::Address(address) => self.addresses.get(address).map(|held| held.version),
            Key::Service(name) => self.services.get(name).map(|held| held.version),
            Key::Endpoints(service, port) => {
                let target = Target {
                    service: service.clone(),
                    port: *port,
                };
                self.groups.get(&target).and_then(|group| group.version)
            }
        }
    }

    /// Name and version of all that is held.
    pub(crate) fn held(&self) -> Vec<(Key, u64)> {
        let mut held = Vec::new();
        held.extend(
            self.bundle_version
                .map(|version| (Key::TrustBundle, version)),
        );
        let kept = self.kept().map(|(key, version, _)| (key, version));
        held.extend(kept);
        held
    }

    /// What a restart without a control plane needs. Roots are kept elsewhere.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        decode::keep(self.kept())
    }

    fn kept(&self) -> impl Iterator<Item = (Key, u64, Kept<'_>)> {
        let mesh = self
            .mesh
            .iter()
            .map(|held| (Key::Mesh, held.version, &held.content));
        let workload = self.workload.iter();
        let workload = workload.map(|(key, held)| (key.clone(), held.version, &held.content));
        let services = self.services.iter();
        let services =
            services.map(|(name, held)| (Key::Service(name.clone()), held.version, &held.content));
        let addresses = self.addresses.iter();
        let addresses =
            addresses.map(|(at, held)| (Key::Address(*at), held.version, &held.content));
        let groups = self.groups.iter().filter_map(|(target, group)| {
            let key = Key::Endpoints(target.service.clone(), target.port);
            Some((
                key,
                group.version?,
                Kept::Members(Box::new(group.contents())),
            ))
        });
        let contents = mesh.chain(workload).chain(services).chain(addresses);
        contents
            .map(|(key, version, content)| (key, version, Kept::Content(content)))
            .chain(groups)
    }
}

#[cfg(test)]
mod tests;
