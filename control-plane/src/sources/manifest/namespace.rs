//! Namespace (v1): whether the pods in it have a proxy.

use k8s_openapi::api::core::v1::Namespace;

use super::{Refusal, check, pod};
use crate::model;

/// # Errors
/// What the namespace says that can't be.
pub(crate) fn convert(it: &Namespace) -> Result<model::Namespace, Refusal> {
    let name = it.metadata.name.clone().unwrap_or_default();
    check::label("metadata.name", &name)?;
    let labels = check::labels(&it.metadata);
    pod::inject(&labels)?;
    Ok(model::Namespace { name, labels })
}
