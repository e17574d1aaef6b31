//! The endpoints of one backend over its life: what changes, and what stays.
//!
//! Part of `store`. A member that did not change keeps its `Arc`, and its cells
//! for as long as it is a member. Keys are never re-used: pools, averages and
//! breakers of a workload that left can't meet another one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    control::decode::{Change, Member},
    discovery::{
        Backend, BackendCells, BackendPolicy, Endpoint, EndpointCells, EndpointKey, Here,
        ServiceName,
    },
};

/// Numbers workloads' ports. One workload has one key in all its groups.
#[derive(Debug, Default)]
pub(super) struct Keys {
    next: u64,
    /// With the number of groups that hold it.
    known: HashMap<(Arc<str>, u16), (EndpointKey, usize)>,
}

impl Keys {
    fn take(&mut self, uid: &Arc<str>, port: u16) -> EndpointKey {
        let next = &mut self.next;
        let entry = self.known.entry((uid.clone(), port)).or_insert_with(|| {
            *next += 1;
            (EndpointKey(*next), 0)
        });
        entry.1 += 1;
        entry.0
    }

    fn give_back(&mut self, uid: &Arc<str>, port: u16) {
        let id = (uid.clone(), port);
        if let Some((_, holders)) = self.known.get_mut(&id) {
            *holders -= 1;
            if *holders == 0 {
                self.known.remove(&id);
            }
        }
    }
}

/// The change is to a version that is not held: the whole set is needed.
#[derive(Debug)]
pub(super) struct WrongBase;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// `None` until the control plane has told of its endpoints.
    pub(super) version: Option<u64>,
    /// By UID, so that turns go on in the same order after a change.
    members: BTreeMap<Arc<str>, (Member, Arc<Endpoint>)>,
    cells: Arc<BackendCells>,
}

impl Group {
    pub(super) fn apply(
        &mut self,
        change: Change,
        version: u64,
        keys: &mut Keys,
    ) -> Result<(), WrongBase> {
        match change.base {
            Some(base) if self.version != Some(base) => return Err(WrongBase),
            Some(_) => {}
            None => {
                let members = change.added_or_updated.iter();
                let stays: HashSet<_> = members.map(|member| member.uid.clone()).collect();
                let gone = self
                    .members
                    .keys()
                    .filter(|uid| !stays.contains(*uid))
                    .cloned();
                for uid in gone.collect::<Vec<_>>() {
                    self.remove(&uid, keys);
                }
            }
        }
        for uid in &change.removed {
            self.remove(uid, keys);
        }
        for member in change.added_or_updated {
            self.put(member, keys);
        }
        self.version = Some(version);
        Ok(())
    }

    pub(super) fn put(&mut self, member: Member, keys: &mut Keys) {
        let old = self.members.get(&member.uid);
        if old.is_some_and(|(old, _)| *old == member) {
            return;
        }
        // The same workload on another port is another endpoint.
        let port = member.address.port();
        let kept = old.filter(|(old, _)| old.address.port() == port);
        let kept = kept.map(|(_, endpoint)| (endpoint.key, endpoint.cells.clone()));
        let (key, cells) = kept.unwrap_or_else(|| {
            self.remove(&member.uid, keys);
            let cells = EndpointCells::new(&self.cells);
            (keys.take(&member.uid, port), cells)
        });
        let endpoint = Endpoint {
            key,
            uid: member.uid.clone(),
            address: member.address,
            namespace: member.namespace.clone(),
            pod: member.pod.clone(),
            security: member.security.clone(),
            protocol: member.protocol,
            node: member.node.clone(),
            zone: member.zone.clone(),
            hints: member.hints.clone(),
            weight: member.weight,
            state: member.state,
            cells,
        };
        self.members
            .insert(member.uid.clone(), (member, Arc::new(endpoint)));
    }

    fn remove(&mut self, uid: &str, keys: &mut Keys) {
        if let Some((member, _)) = self.members.remove(uid) {
            keys.give_back(&member.uid, member.address.port());
        }
    }

    /// It has no endpoints that the control plane vouches for.
    pub(super) fn clear(&mut self, keys: &mut Keys) {
        for (member, _) in self.members.values() {
            keys.give_back(&member.uid, member.address.port());
        }
        self.members.clear();
        self.version = None;
    }

    pub(super) fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.members.values().map(|(member, _)| &*member.content)
    }

    /// For a caller that runs `here`.
    pub(super) fn build(
        &self,
        here: &Here,
        service: ServiceName,
        port: u16,
        policy: Arc<BackendPolicy>,
    ) -> Backend {
        let endpoints = self.members.values();
        let endpoints = endpoints.map(|(_, endpoint)| endpoint.clone()).collect();
        let cells = self.cells.clone();
        Backend::seen_from(here, service, port, policy, endpoints, cells)
    }
}
