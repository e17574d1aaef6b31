//! What the holder knows: pods, addresses, manifests; and what follows from it.
//!
//! Shared by the tasks of one holder, on one thread: the lock is never held
//! across an await. Every change renews what is written for others: the
//! generated manifests for the control plane, the hosts files for programs.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    Hold,
    capture::Capture,
    hosts::{self, Named},
    manifests::{self, Labels, Manifests, PodState, Service, Template},
    network::{PodNetwork, Switch},
    pod::make_private,
    proxy::write_secret,
    readiness::Readiness,
};
use crate::{
    ca::token::{Claimed, Key},
    clock::Wall,
    model::Name,
    run::{
        addresses::{Addresses, Book},
        mesh::{Mesh, write_atomically},
        protocol::Join,
        userns::Maps,
    },
};

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) mesh: Mesh,
    pub(crate) options: Hold,
    pub(crate) program_maps: Maps,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    switch: Switch,
    book: Book,
    manifests: Manifests,
    pods: BTreeMap<String, Live>,
}

/// Facts about a live pod.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) addresses: Addresses,
    labels: Labels,
    pub(crate) service_account: String,
    meshed: bool,
    pub(crate) ready: bool,
    /// When it was told to stop, RFC 3339.
    pub(crate) deleted: Option<String>,
    pub(crate) excluded_inbound: Option<String>,
    pub(crate) excluded_outbound: Option<String>,
    /// Its manifest, where there is one.
    template: Option<Template>,
}

impl Holder {
    pub(crate) fn new(
        mesh: Mesh,
        options: Hold,
        switch: Switch,
        program_maps: Maps,
    ) -> anyhow::Result<Self> {
        let book = match fs::read(mesh.allocations()) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{}: unreadable; remove it to give addresses anew",
                    mesh.allocations().display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Book::default(),
            Err(error) => return Err(error.into()),
        };
        let state = State {
            switch,
            book,
            manifests: Manifests::default(),
            pods: BTreeMap::new(),
        };
        Ok(Self {
            mesh,
            options,
            program_maps,
            state: Mutex::new(state),
        })
    }

    /// Nothing panics while it holds the lock; if something did, the rest still holds.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state().pods.is_empty()
    }

    pub(crate) fn facts(&self, name: &str) -> Option<Live> {
        self.state().pods.get(name).cloned()
    }

    /// Makes room for a pod: its name, addresses and directory.
    pub(crate) fn admit(&self, join: &Join) -> anyhow::Result<()> {
        let mut state = self.state();
        let State {
            switch,
            book,
            manifests,
            pods,
        } = &mut *state;
        if pods.contains_key(&join.pod) {
            bail!("pod {} is running already", join.pod);
        }
        // The watch may be a moment behind.
        manifests
            .read(&self.options.manifests)
            .context("manifests")?;
        let template = manifests.pod(&join.pod);
        let asks = template
            .as_ref()
            .map(Template::addresses)
            .unwrap_or_default();
        let addresses = book.pod(&join.pod, &asks, switch.has_ipv6(), |name| {
            pods.contains_key(name)
        })?;
        let labels = match &template {
            _ if !join.labels.is_empty() => join.labels.clone(),
            Some(template) => template.labels(),
            None => Labels::from([("app".to_owned(), app(&join.pod))]),
        };
        let account = join
            .service_account
            .clone()
            .or_else(|| template.as_ref()?.service_account());
        let annotation = |name: &str| template.as_ref().and_then(|it| it.annotation(name));
        let live = Live {
            uid: uid(),
            addresses,
            labels,
            service_account: account.unwrap_or_else(|| "default".to_owned()),
            meshed: join.mesh,
            ready: false,
            deleted: None,
            excluded_inbound: annotation("exclude-inbound-ports"),
            excluded_outbound: annotation("exclude-outbound-ports"),
            template,
        };
        make_private(&self.mesh.pod(&join.pod))?;
        pods.insert(join.pod.clone(), live);
        self.renew(&mut state);
        Ok(())
    }

    pub(crate) fn plug(&self, name: &str) -> anyhow::Result<PodNetwork> {
        let State { switch, pods, .. } = &mut *self.state();
        let live = pods.get(name).context("admitted before")?;
        switch.plug(&live.addresses)
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Live)) {
        let mut state = self.state();
        if let Some(live) = state.pods.get_mut(name) {
            change(live);
            self.renew(&mut state);
        }
    }

    pub(crate) fn remove(&self, name: &str, network: Option<&PodNetwork>) {
        let mut state = self.state();
        if let Some(network) = network {
            state.switch.unplug(network);
        }
        if let Some(live) = state.pods.remove(name) {
            let _ = fs::remove_file(self.mesh.admin_socket(live.addresses.index()));
        }
        if let Err(error) = fs::remove_dir_all(self.mesh.pod(name)) {
            tracing::warn!(%error, pod = name, "files of a pod stay");
        }
        self.renew(&mut state);
    }

    /// The user's manifests may be different now.
    pub(crate) fn reread(&self) {
        let mut state = self.state();
        if let Err(error) = state.manifests.read(&self.options.manifests) {
            tracing::error!(%error, directory = %self.options.manifests.display(), "manifests unreadable");
        }
        self.renew(&mut state);
    }

    pub(crate) fn write_token(&self, name: &str) -> anyhow::Result<()> {
        let live = self.facts(name).context("admitted before")?;
        let (namespace, pod) = name.split_once('/').context("checked before")?;
        let who = Claimed {
            pod: Name::new(namespace, pod),
            uid: live.uid,
            service_account: live.service_account,
        };
        let token = Key::read(&self.mesh.state())?.mint(&who, TOKEN_LIFETIME, Wall::System)?;
        write_secret(&self.mesh.pod(name).join("token"), &token).context("token")
    }

    /// Records a pod's packets for as long as the answer is kept.
    pub(crate) fn capture(&self, network: &PodNetwork, file: &Path) -> anyhow::Result<Capture> {
        let port = self.state().switch.index(network)?;
        Capture::start(port, file)
    }

    /// Writes all that follows from the state.
    fn renew(&self, state: &mut State) {
        if let Err(error) = self.try_renew(state) {
            tracing::error!(%error, "the mesh's directory can't be written");
        }
    }

    fn try_renew(&self, state: &mut State) -> anyhow::Result<()> {
        let services: Vec<Service> = state.manifests.services().collect();
        let taken: Vec<IpAddr> = services
            .iter()
            .flat_map(|it| it.cluster_ips.iter().copied())
            .collect();
        let mut files = BTreeMap::new();
        let mut named = Vec::new();
        for service in &services {
            if service.headless {
                continue;
            }
            let addresses = match service.cluster_ips.as_slice() {
                [] => {
                    let given =
                        state
                            .book
                            .service(&service.name, state.switch.has_ipv6(), &taken)?;
                    files.extend([manifests::service_file(service, &given)]);
                    given
                }
                named => named.to_vec(),
            };
            named.push(Named {
                service: service.name.clone(),
                addresses,
            });
        }
        for (name, template) in state.manifests.pods() {
            if !state.pods.contains_key(&name) {
                files.extend([manifests::absent_pod_file(&name, &template)]);
            }
        }
        for (name, live) in &state.pods {
            files.extend([manifests::pod_file(
                state.manifests.pod(name).as_ref(),
                &live.told(name),
            )]);
        }
        write_atomically(
            &self.mesh.allocations(),
            &serde_json::to_vec_pretty(&state.book)?,
        )?;
        manifests::write_generated(&self.mesh.generated(), &files)?;

        let by_pods: Vec<Named> = services.iter().map(|it| by_pods(it, &state.pods)).collect();
        let headless = by_pods
            .iter()
            .zip(&services)
            .filter(|(_, service)| service.headless)
            .map(|(it, _)| it.clone());
        named.extend(headless);
        for (name, live) in &state.pods {
            let services = if live.meshed { &named } else { &by_pods };
            hosts::write(
                &self.mesh.pod(name).join("hosts"),
                &hosts::render(name, live.addresses.all(), services),
            )?;
        }
        Ok(())
    }
}

impl Live {
    /// And what of it can't be had.
    /// # Errors
    /// Which probe can't be made, for people.
    pub(crate) fn readiness(&self) -> Result<Readiness, String> {
        let address = self.addresses.all().first();
        match (&self.template, address) {
            (Some(template), Some(address)) => template.readiness(*address),
            _ => Ok(Readiness::default()),
        }
    }

    fn told<'a>(&'a self, name: &'a str) -> PodState<'a> {
        PodState {
            name,
            uid: &self.uid,
            addresses: self.addresses.all(),
            labels: &self.labels,
            service_account: &self.service_account,
            meshed: self.meshed,
            ready: self.ready,
            deleted: self.deleted.as_deref(),
        }
    }
}

/// The pods that serve it, by name.
fn by_pods(service: &Service, pods: &BTreeMap<String, Live>) -> Named {
    let namespace = service
        .name
        .split_once('/')
        .map_or("", |(namespace, _)| namespace);
    let serving = pods.iter().filter(|(name, live)| {
        name.split_once('/').is_some_and(|(it, _)| it == namespace)
            && live.ready
            && live.deleted.is_none()
            && service.selects(&live.labels)
    });
    let addresses = serving
        .flat_map(|(_, live)| live.addresses.all().iter().copied())
        .collect();
    Named {
        service: service.name.clone(),
        addresses,
    }
}

/// "shop/cart-0" → "cart": what a workload controller would have been called.
fn app(pod: &str) -> String {
    let name = pod.split_once('/').map_or(pod, |(_, name)| name);
    match name.rsplit_once('-') {
        Some((app, ordinal)) if ordinal.bytes().all(|byte| byte.is_ascii_digit()) => app.to_owned(),
        _ => name.to_owned(),
    }
}

/// Of this run of a pod: random, in the form of a UUID (RFC 9562 §5.4).
fn uid() -> String {
    let random = fastrand::u128(..);
    let bits = (random & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_application_is_its_name_without_the_ordinal() {
        assert_eq!(app("shop/cart-0"), "cart");
        assert_eq!(app("shop/cart-v2"), "cart-v2");
        assert_eq!(app("shop/cart"), "cart");
        assert_eq!(app("shop/web-front-12"), "web-front");
    }

    #[test]
    fn a_uid_is_a_random_uuid() {
        let uid = uid();
        let parts: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uid.as_bytes()[19]), "{uid}");
        assert_ne!(uid, super::uid());
    }
}
