//! What `cluster` measures, under `weft_authority_` and `weft_cluster_`.
//!
//! Registered in `app`. Labels are the cluster's own objects, bounded.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::ca::signing::Signing;

#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) signer_ends: Gauge,
    pub(crate) roots: Gauge,
    pub(crate) secret_unusable: Gauge,
    pub(crate) holder: Gauge,
    pub(crate) silent_replicas: Gauge,
    pub(crate) unmeshed: Family<InNamespace, Gauge>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub(crate) struct InNamespace {
    pub(crate) namespace: String,
}

/// Of `unmeshed`; all others are one.
const MOST_NAMESPACES: usize = 100;

impl Metrics {
    pub(crate) fn trust(&self, signing: &Signing, roots: usize) {
        let ends = i64::try_from(signing.ends().as_secs());
        self.signer_ends.set(ends.unwrap_or(i64::MAX));
        self.roots.set(i64::try_from(roots).unwrap_or(i64::MAX));
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let authority = registry.sub_registry_with_prefix("weft_authority");
        authority.register(
            "signer_ends_timestamp_seconds",
            "When what signs, or a certificate above it, expires",
            self.signer_ends.clone(),
        );
        authority.register("roots", "Roots that the mesh trusts", self.roots.clone());
        authority.register(
            "secret_unusable",
            "1 while the authority's Secret is gone or can't be used; the loaded one stays in force",
            self.secret_unusable.clone(),
        );
        let cluster = registry.sub_registry_with_prefix("weft_cluster");
        cluster.register(
            "holder",
            "1 in the replica that holds the Lease",
            self.holder.clone(),
        );
        cluster.register(
            "silent_replicas",
            "In the replica that holds the Lease: others that have not told of their proxies",
            self.silent_replicas.clone(),
        );
        cluster.register(
            "unmeshed_pods",
            "Pods that ask for a proxy and have none, by namespace; told by the replica that holds the Lease, (others) beyond 100 namespaces",
            self.unmeshed.clone(),
        );
    }

    /// In place of what was told before.
    pub(crate) fn tell_unmeshed(&self, by_namespace: impl Iterator<Item = (String, usize)>) {
        self.unmeshed.clear();
        for (at, (namespace, count)) in by_namespace.enumerate() {
            let namespace = match at < MOST_NAMESPACES {
                true => namespace,
                false => "(others)".to_owned(),
            };
            let gauge = self.unmeshed.get_or_create(&InNamespace { namespace });
            gauge.inc_by(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
