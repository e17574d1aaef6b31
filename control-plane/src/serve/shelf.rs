//! Every subscribed resource, encoded once per version and view.
//!
//! `hub` asks for entries, tells which names changed, and keeps here who
//! subscribes to each. An entry lives as long as it has subscribers, so cost
//! follows what is asked for, not what there is. An endpoint's change costs
//! that endpoint: a set's version is a sum, and a delta holds what changed.
//!
//! Synchronous; renders through `render`, never decides who gets what.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use weft_proto::v1::{self, resource::Body};

use crate::{
    index::Index,
    model::{BackendName, BackendPolicy, Endpoint, Meaning, Name, ResolvedService},
    serve::{
        render::{self, View},
        resource::{self, ResourceName, Version},
        stream::StreamId,
    },
};

/// Where content comes from.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) index: &'a Index,
    pub(crate) roots: &'a [CertificateDer<'static>],
    pub(crate) trust_domain: &'a str,
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Few views per name: those of the subscribers' namespaces.
    entries: BTreeMap<ResourceName, Vec<Entry>>,
    /// Which subscribed addresses mean a service: their closure is its.
    addresses: HashMap<Name, BTreeSet<SocketAddr>>,
}

/// What brings a subscription along, itself included.
pub(crate) type Closure = Arc<[ResourceName]>;

#[derive(Debug)]
pub(crate) struct Entry {
    view: View,
    pub(crate) version: Version,
    content: Content,
    pub(crate) closure: Closure,
    /// Policy that this view's features can't express.
    pub(crate) denied: Vec<String>,
    pub(crate) subscribers: BTreeSet<StreamId>,
}

#[derive(Debug)]
enum Content {
    Plain(Bytes),
    Set(Box<Set>),
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
        let entry = render_entry(world, name, view);
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
            let fresh = render_entry(world, name, &entry.view);
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

impl Entry {
    fn is_for(&self, name: &ResourceName, view: &View) -> bool {
        match name {
            ResourceName::Service(_) | ResourceName::Address(_) => self.view == *view,
            ResourceName::Workload(_) => self.view.features == view.features,
            ResourceName::Mesh | ResourceName::TrustBundle | ResourceName::Endpoints(_) => true,
        }
    }

    /// What an address's closure is about.
    fn service(&self) -> Option<&Name> {
        match self.closure.first() {
            Some(ResourceName::Address(_)) => self.closure.iter().find_map(|it| match it {
                ResourceName::Service(name) => Some(name),
                _ => None,
            }),
            _ => None,
        }
    }

    fn take(&mut self, fresh: Self) {
        let Self {
            version,
            content,
            closure,
            denied,
            ..
        } = fresh;
        (self.version, self.closure, self.denied) = (version, closure, denied);
        match (&mut self.content, content) {
            (Content::Set(held), Content::Set(new)) => held.replace(*new),
            (held, new) => *held = new,
        }
    }

    /// What brings a proxy that holds `sent` (0: nothing) to this version.
    pub(crate) fn bytes(&mut self, name: &ResourceName, sent: Version) -> Bytes {
        match &mut self.content {
            Content::Plain(bytes) => bytes.clone(),
            Content::Set(set) => set.bytes(name, sent),
        }
    }
}

fn render_entry(world: World<'_>, name: &ResourceName, view: &View) -> Entry {
    let mut denied = Vec::new();
    let (body, closure) = match name {
        ResourceName::Mesh => (Body::Mesh(mesh(world)), vec![name.clone()]),
        ResourceName::TrustBundle => {
            let roots = world
                .roots
                .iter()
                .map(|root| Bytes::copy_from_slice(root))
                .collect();
            (
                Body::TrustBundle(v1::TrustBundle { roots }),
                vec![name.clone()],
            )
        }
        ResourceName::Workload(pod) => {
            let found = world.index.workload(pod);
            let body = found
                .map(|it| render::workload(&it, view.features, &mut denied))
                .unwrap_or_default();
            (Body::Workload(body), vec![name.clone()])
        }
        ResourceName::Address(address) => {
            let meaning = world.index.meaning(*address);
            let mut closure = vec![name.clone()];
            if let Meaning::Service(backend) = &meaning {
                closure.extend(closure_of(&service(world, &backend.service), view));
            }
            (
                Body::Address(render::meaning(&meaning, world.trust_domain)),
                closure,
            )
        }
        ResourceName::Service(it) => {
            let resolved = service(world, it);
            (
                Body::Service(render::service(&resolved, view, &mut denied)),
                closure_of(&resolved, view),
            )
        }
        ResourceName::Endpoints(backend) => return render_set(world, backend, view),
    };
    let (version, bytes) = resource::encode(name, body);
    denied.dedup();
    let subscribers = BTreeSet::new();
    Entry {
        view: view.clone(),
        version,
        content: Content::Plain(bytes),
        closure: closure.into(),
        denied,
        subscribers,
    }
}

fn render_set(world: World<'_>, backend: &BackendName, view: &View) -> Entry {
    let name = ResourceName::Endpoints(backend.clone());
    let mut set = Set::new(&name);
    for endpoint in world.index.endpoints(backend).into_iter().flatten() {
        set.update(&endpoint.uid, Some(endpoint), world.trust_domain);
    }
    set.log.clear();
    Entry {
        view: view.clone(),
        version: set.version(),
        content: Content::Set(Box::new(set)),
        closure: [name].into(),
        denied: Vec::new(),
        subscribers: BTreeSet::new(),
    }
}

fn mesh(world: World<'_>) -> v1::Mesh {
    let ranges = world
        .index
        .ranges()
        .iter()
        .map(|(base, length)| format!("{base}/{length}"))
        .collect();
    v1::Mesh {
        trust_domain: world.trust_domain.to_owned(),
        ranges,
    }
}

/// One that is gone has no ports: what it refused, nobody opens.
fn service(world: World<'_>, name: &Name) -> ResolvedService {
    let gone = || ResolvedService {
        name: name.clone(),
        ports: Vec::new(),
        policy: BackendPolicy::default(),
    };
    world.index.service(name).unwrap_or_else(gone)
}

/// A service, its own endpoints, and its routes' backends with theirs. Not the
/// backends' routes: a request is routed once (GEP-1294).
fn closure_of(service: &ResolvedService, view: &View) -> Vec<ResourceName> {
    let mut closure = vec![ResourceName::Service(service.name.clone())];
    let own = |port| BackendName {
        service: service.name.clone(),
        port,
    };
    closure.extend(
        service
            .ports
            .iter()
            .map(|it| ResourceName::Endpoints(own(it.port))),
    );
    let rules = service
        .ports
        .iter()
        .flat_map(|port| port.routes_for(&service.name, &view.namespace))
        .flat_map(|route| &route.rules);
    let mut more = BTreeSet::new();
    for backend in rules
        .flat_map(|rule| &rule.backends)
        .filter(|it| it.invalid.is_empty())
    {
        more.insert(ResourceName::Service(backend.backend.service.clone()));
        more.insert(ResourceName::Endpoints(backend.backend.clone()));
    }
    closure.extend(
        more.into_iter()
            .filter(|it| !closure.contains(it))
            .collect::<Vec<_>>(),
    );
    closure
}

/// How many changes a proxy may miss and still get them alone.
const LOG: usize = 256;

/// The endpoints of one service port.
#[derive(Debug)]
struct Set {
    seed: u64,
    sum: u64,
    endpoints: BTreeMap<String, (u64, Bytes)>,
    /// The version before each change, and which endpoint it was.
    log: VecDeque<(Version, String)>,
    whole: Option<Bytes>,
    /// The last delta: (from, to). Most proxies hold the same version.
    delta: Option<(Version, Version, Bytes)>,
}

impl Set {
    fn new(name: &ResourceName) -> Self {
        let seed = resource::hash(name.to_proto().name.as_bytes());
        Self {
            seed,
            sum: 0,
            endpoints: BTreeMap::new(),
            log: VecDeque::new(),
            whole: None,
            delta: None,
        }
    }

    fn version(&self) -> Version {
        resource::mix(self.sum ^ self.seed).max(1)
    }

    fn update(&mut self, uid: &str, now: Option<&Endpoint>, trust_domain: &str) -> bool {
        let now = now.map(|it| resource::encode_endpoint(&render::endpoint(it, trust_domain)));
        self.put(uid, now)
    }

    fn put(&mut self, uid: &str, now: Option<(u64, Bytes)>) -> bool {
        if self.endpoints.get(uid) == now.as_ref() {
            return false;
        }
        self.log.push_back((self.version(), uid.to_owned()));
        if self.log.len() > LOG {
            self.log.pop_front();
        }
        if let Some((hash, _)) = self.endpoints.remove(uid) {
            self.sum = self.sum.wrapping_sub(hash);
        }
        if let Some(it) = now {
            self.sum = self.sum.wrapping_add(it.0);
            self.endpoints.insert(uid.to_owned(), it);
        }
        self.whole = None;
        true
    }

    fn replace(&mut self, mut new: Self) {
        let gone: Vec<String> = self
            .endpoints
            .keys()
            .filter(|it| !new.endpoints.contains_key(*it))
            .cloned()
            .collect();
        for uid in gone {
            self.put(&uid, None);
        }
        for (uid, it) in std::mem::take(&mut new.endpoints) {
            self.put(&uid, Some(it));
        }
    }

    fn bytes(&mut self, name: &ResourceName, sent: Version) -> Bytes {
        let now = self.version();
        if let Some((from, to, bytes)) = &self.delta
            && (*from, *to) == (sent, now)
        {
            return bytes.clone();
        }
        // The latest occurrence: equal versions are equal content.
        let changed = self
            .log
            .iter()
            .rposition(|(before, _)| *before == sent)
            .map(|at| {
                let uids: BTreeSet<&str> = self
                    .log
                    .iter()
                    .skip(at)
                    .map(|(_, uid)| uid.as_str())
                    .collect();
                uids
            });
        match changed {
            Some(uids) if sent != 0 && uids.len() <= self.endpoints.len() => {
                let updated = uids
                    .iter()
                    .filter_map(|uid| self.endpoints.get(*uid))
                    .map(|(_, bytes)| bytes);
                let removed: Vec<&str> = uids
                    .iter()
                    .copied()
                    .filter(|uid| !self.endpoints.contains_key(*uid))
                    .collect();
                let bytes = resource::encode_endpoints(name, now, Some(sent), updated, &removed);
                self.delta = Some((sent, now, bytes.clone()));
                bytes
            }
            _ => {
                let endpoints = &self.endpoints;
                let whole = || {
                    resource::encode_endpoints(
                        name,
                        now,
                        None,
                        endpoints.values().map(|it| &it.1),
                        &[],
                    )
                };
                self.whole.get_or_insert_with(whole).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn name() -> ResourceName {
        ResourceName::Endpoints(BackendName {
            service: Name::new("shop", "cart"),
            port: 80,
        })
    }

    fn endpoint(uid: &str, weight: u32) -> (u64, Bytes) {
        resource::encode_endpoint(&v1::Endpoint {
            uid: uid.to_owned(),
            weight,
            ..v1::Endpoint::default()
        })
    }

    fn decode(bytes: &Bytes) -> (Version, v1::Endpoints) {
        let response = v1::WatchResponse::decode(bytes.clone()).unwrap();
        let resource = response.resources.into_iter().next().unwrap();
        let Some(Body::Endpoints(endpoints)) = resource.body else {
            panic!("no endpoints")
        };
        (resource.version, endpoints)
    }

    #[test]
    fn the_version_of_a_set_depends_on_its_content_alone() {
        let (mut a, mut b) = (Set::new(&name()), Set::new(&name()));
        a.put("x", Some(endpoint("x", 1)));
        a.put("y", Some(endpoint("y", 1)));
        b.put("y", Some(endpoint("y", 7)));
        b.put("z", Some(endpoint("z", 1)));
        b.put("x", Some(endpoint("x", 1)));
        assert_ne!(a.version(), b.version());
        b.put("z", None);
        b.put("y", Some(endpoint("y", 1)));
        assert_eq!(a.version(), b.version());
    }

    #[test]
    fn a_delta_holds_what_changed_since_the_version_that_was_sent() {
        let mut set = Set::new(&name());
        for uid in ["a", "b", "c", "d"] {
            set.put(uid, Some(endpoint(uid, 1)));
        }
        let sent = set.version();
        set.put("a", Some(endpoint("a", 2)));
        set.put("b", None);
        set.put("a", Some(endpoint("a", 3)));
        let (version, delta) = decode(&set.bytes(&name(), sent));
        assert_eq!(version, set.version());
        assert!(!delta.whole && delta.base == sent);
        assert_eq!(
            delta
                .added_or_updated
                .iter()
                .map(|it| (it.uid.as_str(), it.weight))
                .collect::<Vec<_>>(),
            [("a", 3)]
        );
        assert_eq!(delta.removed, ["b"]);
    }

    #[test]
    fn a_proxy_that_missed_more_than_the_log_gets_the_whole_set() {
        let mut set = Set::new(&name());
        for at in 0..10 {
            set.put(&at.to_string(), Some(endpoint("x", at)));
        }
        let sent = set.version();
        for weight in 0..300 {
            set.put("0", Some(endpoint("0", weight + 100)));
        }
        let (_, whole) = decode(&set.bytes(&name(), sent));
        assert!(whole.whole && whole.added_or_updated.len() == 10);
        assert!(set.log.len() <= LOG);
    }
}
