//! Every subscribed resource, encoded once per version and view.
//!
//! `hub` asks for entries, tells which names changed, and keeps here who
//! subscribes to each. An entry lives as long as it has subscribers, so cost
//! follows what is asked for, not what there is. An endpoint's change costs
//! that endpoint: a set's version is a sum, and a delta holds what changed.
//!
//! Synchronous; `entry` renders, `set` holds the endpoints of a port.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use crate::{
    model::{BackendName, Name},
    serve::{render::View, resource::ResourceName, stream::StreamId},
};

mod entry;
mod set;

use entry::Content;
pub(crate) use entry::{Closure, Entry, World, render};

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Few views per name: those of the subscribers' namespaces.
    entries: BTreeMap<ResourceName, Vec<Entry>>,
    /// Which subscribed addresses mean a service: their closure is its.
    addresses: HashMap<Name, BTreeSet<SocketAddr>>,
}

impl Shelf {
    /// The entry, rendered when nobody had it yet.
    pub(crate) fn obtain(
        &mut self,
        world: World<'_>,
        name: &ResourceName,
        view: &View,
    ) -> &mut Entry {
        let views = self.entries.entry(name.clone()).or_default();
        if let Some(at) = views.iter().position(|it| it.is_for(name, view)) {
            return &mut views[at];
        }
        let entry = render(world, name, view);
        if let (ResourceName::Address(address), Some(service)) = (name, entry.service()) {
            self.addresses
                .entry(service.clone())
                .or_default()
                .insert(*address);
        }
        views.push(entry);
        views.last_mut().expect("just pushed")
    }

    pub(crate) fn find(&self, name: &ResourceName, view: &View) -> Option<&Entry> {
        self.entries
            .get(name)?
            .iter()
            .find(|it| it.is_for(name, view))
    }

    pub(crate) fn find_mut(&mut self, name: &ResourceName, view: &View) -> Option<&mut Entry> {
        self.entries
            .get_mut(name)?
            .iter_mut()
            .find(|it| it.is_for(name, view))
    }

    /// Forgets a subscriber, and the entry with its last one.
    pub(crate) fn release(&mut self, name: &ResourceName, view: &View, stream: StreamId) {
        let Some(views) = self.entries.get_mut(name) else {
            return;
        };
        if let Some(entry) = views.iter_mut().find(|it| it.is_for(name, view)) {
            entry.subscribers.remove(&stream);
        }
        let service = views.iter().find_map(Entry::service).cloned();
        views.retain(|it| !it.subscribers.is_empty());
        if views.is_empty() {
            self.entries.remove(name);
            if let (ResourceName::Address(address), Some(service)) = (name, service) {
                self.forget_address(&service, *address);
            }
        }
    }

    /// Renders a changed name again. `tell` hears of each entry whose content
    /// or closure (then with the former one) is another.
    pub(crate) fn refresh(
        &mut self,
        world: World<'_>,
        name: &ResourceName,
        tell: &mut dyn FnMut(&Entry, bool, Option<Closure>),
    ) {
        let Some(views) = self.entries.get_mut(name) else {
            return;
        };
        let before = views.iter().find_map(Entry::service).cloned();
        for entry in views.iter_mut() {
            let fresh = render(world, name, &entry.view);
            let differs = fresh.version != entry.version;
            let former = (fresh.closure != entry.closure).then(|| entry.closure.clone());
            if differs || former.is_some() {
                // Subscribers stay; so does a set's log, which deltas need.
                entry.take(fresh);
                tell(entry, differs, former);
            }
        }
        let after = views.iter().find_map(Entry::service).cloned();
        if let ResourceName::Address(address) = name
            && before != after
        {
            if let Some(service) = before {
                self.forget_address(&service, *address);
            }
            if let Some(service) = after {
                self.addresses.entry(service).or_default().insert(*address);
            }
        }
    }

    /// One endpoint is another, or gone.
    pub(crate) fn refresh_endpoint(
        &mut self,
        world: World<'_>,
        backend: &BackendName,
        uid: &str,
        tell: &mut dyn FnMut(&Entry, bool, Option<Closure>),
    ) {
        let name = ResourceName::Endpoints(backend.clone());
        for entry in self.entries.get_mut(&name).into_iter().flatten() {
            let Content::Set(set) = &mut entry.content else {
                continue;
            };
            if set.update(uid, world.index.endpoint(backend, uid), world.trust_domain) {
                entry.version = set.version();
                tell(entry, true, None);
            }
        }
    }

    /// Subscribed addresses that mean this service.
    pub(crate) fn addresses_of(&self, service: &Name) -> Vec<ResourceName> {
        self.addresses
            .get(service)
            .into_iter()
            .flatten()
            .copied()
            .map(ResourceName::Address)
            .collect()
    }

    /// Subscribed addresses with this IP.
    pub(crate) fn addresses_at(&self, ip: IpAddr) -> Vec<ResourceName> {
        let port = |port| ResourceName::Address(SocketAddr::new(ip, port));
        self.entries
            .range(port(0)..=port(u16::MAX))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Subscribed sets of this service.
    pub(crate) fn endpoints_of(&self, service: &Name) -> Vec<ResourceName> {
        let port = |port| {
            ResourceName::Endpoints(BackendName {
                service: service.clone(),
                port,
            })
        };
        self.entries
            .range(port(0)..=port(u16::MAX))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn forget_address(&mut self, service: &Name, address: SocketAddr) {
        if let Some(addresses) = self.addresses.get_mut(service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.addresses.remove(service);
            }
        }
    }
}
