//! ServiceCIDR (networking.k8s.io/v1): where ClusterIPs come from.

use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::{Refusal, check};
use crate::model;

/// # Errors
/// What it says that can't be.
pub(crate) fn convert(it: &ServiceCIDR) -> Result<model::ServiceRange, Refusal> {
    let name = it.metadata.name.clone().unwrap_or_default();
    check::subdomain("metadata.name", &name)?;
    let listed = it.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    let ranges = listed
        .enumerate()
        .map(|(index, text)| check::range(&format!("spec.cidrs[{index}]"), text));
    Ok(model::ServiceRange {
        name,
        ranges: ranges.collect::<Result<_, _>>()?,
    })
}
