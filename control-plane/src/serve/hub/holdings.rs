//! Who holds which roots, and in which each pod's leaves end.
//!
//! Part of `hub`. Asked by who moves roots, of all replicas at once. A pod
//! without a stream to any is there too, so that nobody is forgotten, and so are
//! the replicas: each is a client and a server of the mesh itself.
//!
//! A certificate that was issued may never have arrived: what a pod shows on
//! its connection counts, and what was issued later beside it, never instead.

use crate::{
    model::Pod,
    roots::Fingerprint,
    serve::{
        hub::{Known, State, Summary, Watching},
        tls::Signed,
    },
};

/// Of one live pod of the mesh, or of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) name: String,
    /// That every stream of it has acknowledged.
    pub(crate) holds: Vec<Fingerprint>,
    /// In which leaves end that it may show; none: nobody knows.
    pub(crate) leaves: Vec<Fingerprint>,
}

/// Why there is no whole view.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unseen {
    #[error("the mesh has not been read yet")]
    NotRead,
    #[error("replica {0} has not told what its proxies hold")]
    Replica(String),
}

impl State {
    /// Over this replica, `me`, and the others that are there; at `now` in
    /// seconds since the epoch.
    pub(crate) fn holdings(
        &self,
        me: &str,
        others: &[String],
        now: u64,
    ) -> Result<Vec<Holding>, Unseen> {
        let own = self.summary(now).ok_or(Unseen::NotRead)?;
        let mut all = vec![(me, &own)];
        for name in others {
            let told = self.replicas.fresh(name);
            all.push((name, told.ok_or_else(|| Unseen::Replica(name.clone()))?));
        }
        let replicas = all.iter().map(|(name, it)| Holding {
            name: format!("replica {name}"),
            holds: it.bundle.clone(),
            leaves: it.signer.into_iter().collect(),
        });
        let pods = self.index.meshed_pods().map(|pod| holding(pod, &all));
        Ok(pods.chain(replicas).collect())
    }
}

fn holding(pod: &Pod, all: &[(&str, &Summary)]) -> Holding {
    let known: Vec<(&Summary, &Known)> = all
        .iter()
        .filter_map(|(_, it)| Some((*it, it.pods.get(&pod.name)?)))
        .filter(|(_, it)| it.uid.is_empty() || it.uid == pod.uid)
        .collect();
    let streams: Vec<(&Summary, &Watching)> = known
        .iter()
        .filter_map(|(of, it)| Some((*of, it.stream.as_ref()?)))
        .collect();
    Holding {
        name: pod.name.to_string(),
        holds: held_by_all(&streams),
        leaves: leaves(&known, &streams),
    }
}

fn held_by_all(streams: &[(&Summary, &Watching)]) -> Vec<Fingerprint> {
    let Some((first, _)) = streams.first() else {
        return Vec::new();
    };
    let all_hold = |root: &&Fingerprint| {
        let holds = |(of, it): &(&Summary, &Watching)| it.holds_newest && of.bundle.contains(root);
        streams.iter().all(holds)
    };
    first.bundle.iter().filter(all_hold).copied().collect()
}

fn leaves(known: &[(&Summary, &Known)], streams: &[(&Summary, &Watching)]) -> Vec<Fingerprint> {
    let shown = || streams.iter().map(|(_, it)| it.leaf);
    let Some(newest) = shown().max() else {
        return Vec::new();
    };
    let issued = known.iter().filter_map(|(_, it)| it.issued);
    let later = issued.filter(|it: &Signed| it.issued >= newest.issued);
    let mut roots: Vec<_> = shown().chain(later).map(|it| it.root).collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

#[cfg(test)]
mod tests;
