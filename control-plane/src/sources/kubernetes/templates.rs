//! What pods of one template have in common, kept once: their labels, ports and
//! probes are most of what is known of a pod, and there may be a hundred
//! thousand.
//!
//! Asked by `told` for every pod that it tells of.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use crate::model::{Labels, Pod, Probe};

#[derive(Debug, Default)]
pub(super) struct Templates {
    labels: Shared<Labels>,
    ports: Shared<BTreeMap<String, u16>>,
    probes: Shared<Vec<Probe>>,
}

impl Templates {
    pub(super) fn share(&mut self, pod: &mut Pod) {
        self.labels.share(&mut pod.labels);
        self.ports.share(&mut pod.ports);
        self.probes.share(&mut pod.probes);
    }
}

#[derive(Debug)]
struct Shared<T> {
    all: HashSet<Arc<T>>,
    /// As many as there may be before those that nobody has are left out.
    most: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            all: HashSet::new(),
            most: FEW,
        }
    }
}

/// Fewer are not looked through.
const FEW: usize = 1_024;

impl<T: Eq + Hash> Shared<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.all.get(value) {
            *value = known.clone();
            return;
        }
        if self.all.len() >= self.most {
            self.all.retain(|it| Arc::strong_count(it) > 1);
            self.most = FEW.max(2 * self.all.len());
        }
        self.all.insert(value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(app: &str) -> Pod {
        Pod {
            labels: Labels::from([("app".to_owned(), app.to_owned())]).into(),
            ..Pod::default()
        }
    }

    #[test]
    fn replicas_share_what_their_template_says() {
        let mut templates = Templates::default();
        let (mut one, mut other) = (pod("cart"), pod("cart"));
        templates.share(&mut one);
        templates.share(&mut other);
        assert_eq!(one, pod("cart"));
        assert!(Arc::ptr_eq(&one.labels, &other.labels));
        let mut another = pod("web");
        templates.share(&mut another);
        assert_eq!(another, pod("web"));
    }

    #[test]
    fn what_no_pod_says_any_more_is_not_kept() {
        let mut templates = Templates::default();
        let mut stays = pod("stays");
        templates.share(&mut stays);
        for round in 0..10 * FEW {
            templates.share(&mut pod(&round.to_string()));
            assert!(templates.labels.all.len() <= FEW + 1);
        }
        let mut same = pod("stays");
        templates.share(&mut same);
        assert!(Arc::ptr_eq(&same.labels, &stays.labels));
    }
}
