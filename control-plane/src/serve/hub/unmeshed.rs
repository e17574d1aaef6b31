//! Pods that ask for a proxy and have none: who may be one, and what was found
//! of them.
//!
//! Part of `hub`. The index knows metadata alone of such pods; who may read them
//! whole asks here, and tells here what `report` then says.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    report::{Unmeshed, UnmeshedPod},
    serve::hub::State,
};

/// What was found, and when.
#[derive(Debug)]
pub(super) struct Told {
    at: Instant,
    pods: Vec<UnmeshedPod>,
    left_out: usize,
}

/// By namespace, the names and UIDs of pods.
pub(crate) type Candidates = BTreeMap<String, Vec<(String, String)>>;

impl State {
    /// At most `most`, and how many there are beyond them. `None`: the source
    /// has not been read, so nobody knows.
    pub(crate) fn unmeshed_candidates(
        &self,
        spared: &[&str],
        most: usize,
    ) -> Option<(Candidates, usize)> {
        if !self.synced {
            return None;
        }
        let mut found = Candidates::new();
        let mut pods = self.index.left_out_pods(spared);
        for pod in pods.by_ref().take(most) {
            let of_namespace = found.entry(pod.name.namespace.clone()).or_default();
            of_namespace.push((pod.name.name.clone(), pod.uid.clone()));
        }
        Some((found, pods.count()))
    }

    /// Of a namespace whose Pod Security Standard refuses a proxy, its name.
    pub(crate) fn refused_in(&self, namespace: &str) -> Option<String> {
        let mut refusing = self.index.refusing_namespaces();
        let found = refusing.find(|(name, _)| *name == namespace);
        found.map(|(_, level)| level.to_owned())
    }

    /// `None`: somebody else looks from now on.
    pub(crate) fn tell_unmeshed(&mut self, found: Option<(Vec<UnmeshedPod>, usize)>) {
        self.unmeshed = found.map(|(pods, left_out)| Told {
            at: Instant::now(),
            pods,
            left_out,
        });
    }

    pub(super) fn unmeshed(&self) -> Option<Unmeshed> {
        let told = self.unmeshed.as_ref()?;
        Some(Unmeshed {
            seconds_ago: told.at.elapsed().as_secs_f64(),
            pods: told.pods.clone(),
            left_out: told.left_out,
        })
    }
}
