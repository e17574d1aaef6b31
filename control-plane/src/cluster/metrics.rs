//! What `cluster` measures, under `weft_authority_` and `weft_cluster_`.
//!
//! Registered in `app`. Labels are enums.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::ca::signing::Signing;

#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) signer_ends: Gauge,
    pub(crate) roots: Gauge,
    pub(crate) secret_unusable: Gauge,
    pub(crate) holder: Gauge,
}

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
    }
}
