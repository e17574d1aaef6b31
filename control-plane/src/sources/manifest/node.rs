//! Node (v1): where pods run, and where their addresses come from.
//!
//! Read for two things alone: the zone of pods that don't say theirs, and the
//! pods' ranges.

use k8s_openapi::api::core::v1::Node;

use super::{Refusal, check, pod};
use crate::model;

/// # Errors
/// What the node says that can't be.
pub(crate) fn convert(it: &Node) -> Result<model::Node, Refusal> {
    let name = it.metadata.name.clone().unwrap_or_default();
    check::subdomain("metadata.name", &name)?;
    let spec = it.spec.clone().unwrap_or_default();
    let listed = spec.pod_cidrs.iter().flatten().enumerate();
    let listed = listed.map(|(index, text)| (format!("spec.podCIDRs[{index}]"), text));
    let first = spec
        .pod_cidr
        .iter()
        .map(|text| ("spec.podCIDR".to_owned(), text));
    let mut pod_ranges = Vec::new();
    for (field, text) in first.chain(listed) {
        let range = check::range(&field, text)?;
        if !pod_ranges.contains(&range) {
            pod_ranges.push(range);
        }
    }
    let zone = check::labels(&it.metadata).remove(pod::ZONE);
    Ok(model::Node {
        name,
        zone: zone.unwrap_or_default(),
        pod_ranges,
    })
}
