//! Names that the mesh gives to parts of a pod, and walks over its containers.
//!
//! Ground of `admission`. Pure.

use k8s_openapi::api::core::v1::{Container, PodSpec};

pub(super) use crate::sources::manifest::pod::PROXY;

pub(super) const REDIRECT: &str = "weft-redirect";

/// Is this init container one that we add?
pub(super) fn is_ours(name: &str) -> bool {
    matches!(name, PROXY | REDIRECT)
}

/// Every container of the application, with where it stands in the pod.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.filter(|(_, it)| !is_ours(&it.name));
    let init = init.map(|(index, it)| (format!("spec.initContainers[{index}]"), it));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, it)| (format!("spec.containers[{index}]"), it));
    init.chain(main)
}
