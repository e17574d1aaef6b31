//! One resource for one view: its version, its bytes, and what it brings along.
//!
//! `shelf` keeps entries and asks for them anew when their name has changed.
//! Rendered through `render`; never decides who gets it.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use weft_proto::v1::{self, resource::Body};

use crate::{
    index::Index,
    model::{BackendName, BackendPolicy, Meaning, Name, ResolvedService, Route},
    serve::{
        render::{self as wire, View},
        resource::{self, ResourceName, Version},
        stream::StreamId,
    },
};

use super::set::Set;

/// Where content comes from.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) index: &'a Index,
    pub(crate) roots: &'a [CertificateDer<'static>],
    pub(crate) trust_domain: &'a str,
}

/// What brings a subscription along, itself included.
pub(crate) type Closure = Arc<[ResourceName]>;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) view: View,
    pub(crate) version: Version,
    pub(super) content: Content,
    pub(crate) closure: Closure,
    /// Policy that this view's features can't express.
    pub(crate) denied: Vec<String>,
    pub(crate) subscribers: BTreeSet<StreamId>,
}

#[derive(Debug)]
pub(super) enum Content {
    Plain(Bytes),
    Set(Box<Set>),
}

impl Entry {
    pub(super) fn is_for(&self, name: &ResourceName, view: &View) -> bool {
        match name {
            ResourceName::Service(_) | ResourceName::Address(_) => self.view == *view,
            ResourceName::Workload(_) => self.view.features == view.features,
            ResourceName::Mesh | ResourceName::TrustBundle | ResourceName::Endpoints(_) => true,
        }
    }

    /// What an address's closure is about.
    pub(super) fn service(&self) -> Option<&Name> {
        match self.closure.first() {
            Some(ResourceName::Address(_)) => self.closure.iter().find_map(|it| match it {
                ResourceName::Service(name) => Some(name),
                _ => None,
            }),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, fresh: Self) {
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

pub(crate) fn render(world: World<'_>, name: &ResourceName, view: &View) -> Entry {
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
                .map(|it| wire::workload(&it, view.features, &mut denied))
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
                Body::Address(wire::meaning(&meaning, world.trust_domain)),
                closure,
            )
        }
        ResourceName::Service(it) => {
            let resolved = service(world, it);
            (
                Body::Service(wire::service(&resolved, view, &mut denied)),
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
    set.forget_changes();
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
        own_node_only: false,
        affinity_seconds: 0,
    };
    world.index.service(name).unwrap_or_else(gone)
}

/// A service, its own endpoints, and its routes' backends and mirrors with theirs. Not
/// the backends' routes: a request is routed once (GEP-1294).
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
    let routes = service
        .ports
        .iter()
        .flat_map(|port| port.routes_for(&service.name, &view.namespace));
    let mut more = BTreeSet::new();
    for it in routes
        .flat_map(Route::destinations)
        .filter(|it| it.invalid.is_none())
    {
        more.insert(ResourceName::Service(it.backend.service.clone()));
        more.insert(ResourceName::Endpoints(it.backend.clone()));
    }
    closure.extend(
        more.into_iter()
            .filter(|it| !closure.contains(it))
            .collect::<Vec<_>>(),
    );
    closure
}
