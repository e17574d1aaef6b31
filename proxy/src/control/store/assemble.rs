//! Builds snapshots from what `store` holds.
//!
//! Part of `store`: backends first, then the service ports that refer to them,
//! then the snapshot; `rules` builds the rules of routes. What a change did not
//! touch keeps its `Arc`; a rule whose weights did not change goes on with its
//! turns.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    Store, Touched,
    rules::{Place, keep_turns},
};
use crate::{
    control::decode::{Meaning as Named, Target},
    discovery::{Backend, Known, Meaning, ServiceName, ServicePort, Snapshot},
    route,
};

impl Store {
    pub(super) fn rebuild(&mut self, touched: &Touched) {
        let is_touched = |target: &Target| {
            touched.is_whole
                || touched.backends.contains(target)
                || touched.services.contains(&target.service)
        };
        self.backends.retain(|target, _| !is_touched(target));
        let wanted: BTreeSet<Target> = self
            .addresses
            .values()
            .filter_map(|held| match &held.value.meaning {
                Named::Service(target) => Some(target.clone()),
                Named::Workload(_) | Named::Unmeshed | Named::Unknown => None,
            })
            .collect();
        let mut ports = HashMap::with_capacity(wanted.len());
        for target in wanted {
            let old = self.ports.get(&target).cloned();
            let stays = old
                .as_ref()
                .filter(|port| !is_touched(&target) && !refers(port, is_touched));
            let port = match stays {
                Some(port) => Some(port.clone()),
                None => self.build_port(&target, old.as_deref()),
            };
            ports.extend(port.map(|port| (target, port)));
        }
        self.ports = ports;
        self.sweep_groups();
    }

    /// Backends that no port refers to any more keep no cells.
    fn sweep_groups(&mut self) {
        let mut referred = HashSet::new();
        for port in self.ports.values() {
            refers(port, |target| {
                referred.insert(target.clone());
                false
            });
        }
        self.backends.retain(|target, _| referred.contains(target));
        self.groups
            .retain(|target, group| group.version.is_some() || referred.contains(target));
    }

    fn build_port(
        &mut self,
        target: &Target,
        old: Option<&ServicePort>,
    ) -> Option<Arc<ServicePort>> {
        let service = &self.services.get(&target.service)?.value;
        let port = service.ports.iter().find(|port| port.port == target.port)?;
        let protocol = port.protocol;
        // Rules are taken apart from `self`, which builds their backends.
        let routes: Vec<_> = port
            .routes
            .iter()
            .map(|route| {
                (
                    route.name.clone(),
                    route.created_milliseconds,
                    route.is_grpc,
                    route.rules.clone(),
                )
            })
            .collect();
        let default = self.backend(target);
        let mut attached = Vec::with_capacity(routes.len());
        for (name, created_milliseconds, is_grpc, rules) in routes {
            let mut built = Vec::with_capacity(rules.len());
            for (index, rule) in (0..).zip(rules) {
                let matches = rule.matches.clone();
                let place = Place {
                    route: &name,
                    index,
                    parent: target,
                    default: &default,
                };
                built.push((matches, keep_turns(self.build_rule(rule, &place), old)));
            }
            attached.push(route::Attached {
                created_milliseconds,
                is_grpc,
                rules: built,
            });
        }
        Some(Arc::new(ServicePort {
            service: target.service.clone(),
            port: target.port,
            protocol,
            routes: (!attached.is_empty()).then(|| route::table(attached)),
            default,
        }))
    }

    pub(super) fn backend(&mut self, target: &Target) -> Arc<Backend> {
        if let Some(backend) = self.backends.get(target) {
            return backend.clone();
        }
        let service = self.services.get(&target.service);
        let policy = service
            .map_or(&self.default_policy, |held| &held.value.policy)
            .clone();
        let group = self.groups.entry(target.clone()).or_default();
        let backend =
            Arc::new(group.build(&self.here, target.service.clone(), target.port, policy));
        self.backends.insert(target.clone(), backend.clone());
        backend
    }

    pub(super) fn publish(&mut self) {
        let mut addresses = HashMap::with_capacity(self.addresses.len());
        for (at, held) in &self.addresses {
            let used = held.value.used.clone();
            let meaning = self.meaning(*at, &held.value.meaning);
            addresses.extend(meaning.map(|meaning| (*at, Known { meaning, used })));
        }
        let workload = self.workload.as_ref().map(|(_, held)| held.value.clone());
        let ranges = self.mesh.as_ref().map(|held| held.value.clone());
        self.snapshots.send_modify(|snapshot| {
            *snapshot = Arc::new(Snapshot {
                revision: snapshot.revision + 1,
                ranges: ranges.unwrap_or_default(),
                addresses,
                workload,
            });
        });
    }

    fn meaning(&self, at: SocketAddr, named: &Named) -> Option<Meaning> {
        Some(match named {
            Named::Service(target) => Meaning::Service(self.ports.get(target)?.clone()),
            Named::Workload(member) => {
                let name = ServiceName {
                    namespace: member.namespace.clone(),
                    name: member.pod.clone(),
                };
                let policy = self.default_policy.clone();
                let backend = self.pods.get(&at)?;
                let backend = backend.build(&self.here, name, at.port(), policy);
                Meaning::Workload(Arc::new(backend.called_by_address()))
            }
            Named::Unmeshed => Meaning::Unmeshed,
            Named::Unknown => Meaning::Unknown,
        })
    }
}

/// Does `port` send anything to a backend that `is` it?
fn refers(port: &ServicePort, mut is: impl FnMut(&Target) -> bool) -> bool {
    let rules = port.routes.iter().flat_map(|table| &table.entries);
    let named = rules.flat_map(|(_, rule)| rule.destinations());
    std::iter::once(&port.default).chain(named).any(|backend| {
        is(&Target {
            service: backend.service.clone(),
            port: backend.port,
        })
    })
}
