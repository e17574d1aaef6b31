//! What is read of a cluster, and what becomes of each object: a row per watch.
//!
//! Before `told`. The types are `manifest`'s; here is only what differs from a
//! file: fields that a newer API server has and we don't know are no slips of
//! the pen, and of what is not the mesh's nothing is kept.
//!
//! Pods are two rows. Those that the webhook has given a proxy are read whole;
//! of all others it matters only that they have none: an endpoint whose pod is
//! unknown is left out, since it may be one that must not be called in plaintext.

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::ServiceCIDR,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pruned::Pruned;
use crate::{
    model::{self, Kind, Name, Object, RouteKind},
    sources::manifest::{
        self, Refusal, endpoint_slice, namespace, node, pod, route, service, service_range,
    },
};

/// One watch.
#[derive(Debug)]
pub(super) struct Watched {
    /// In metrics and logs.
    pub(super) label: &'static str,
    pub(super) kind: Kind,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// By labels; empty: all of them.
    pub(super) selector: &'static str,
    pub(super) metadata_only: bool,
    /// Not of every cluster: asked for, and waited for, before it is read.
    pub(super) is_optional: bool,
}

/// In the order in which the first read is told: what others refer to comes
/// first, so that little is joined twice.
pub(super) const WATCHED: [Watched; 11] = [
    row("namespaces", Kind::Namespace, "", "v1"),
    row("nodes", Kind::Node, "", "v1"),
    Watched {
        is_optional: true,
        ..row(
            "servicecidrs",
            Kind::ServiceRange,
            "networking.k8s.io",
            "v1",
        )
    },
    Watched {
        selector: "weft.dev/injected=true",
        ..row("pods", Kind::Pod, "", "v1")
    },
    Watched {
        label: "unmeshed-pods",
        selector: "weft.dev/injected!=true",
        metadata_only: true,
        ..row("pods", Kind::Pod, "", "v1")
    },
    row("services", Kind::Service, "", "v1"),
    row(
        "endpointslices",
        Kind::EndpointSlice,
        "discovery.k8s.io",
        "v1",
    ),
    custom("httproutes", Kind::HttpRoute, GATEWAY, "v1"),
    custom("grpcroutes", Kind::GrpcRoute, GATEWAY, "v1"),
    custom(
        "backendpolicies",
        Kind::BackendPolicy,
        "weft.dev",
        "v1alpha1",
    ),
    custom("accesspolicies", Kind::AccessPolicy, "weft.dev", "v1alpha1"),
];

const GATEWAY: &str = "gateway.networking.k8s.io";

const fn row(
    plural: &'static str,
    kind: Kind,
    group: &'static str,
    version: &'static str,
) -> Watched {
    Watched {
        label: plural,
        kind,
        group,
        version,
        plural,
        selector: "",
        metadata_only: false,
        is_optional: false,
    }
}

/// Of a CRD, which may not be there yet.
const fn custom(
    plural: &'static str,
    kind: Kind,
    group: &'static str,
    version: &'static str,
) -> Watched {
    Watched {
        is_optional: true,
        ..row(plural, kind, group, version)
    }
}

impl Watched {
    /// Of the group and version, where the API server says what it has.
    pub(super) fn group_path(&self) -> String {
        match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.group_path(), self.plural)
    }

    pub(super) const fn plural(&self) -> &'static str {
        self.plural
    }

    /// How its objects are read.
    pub(super) const fn pruned(&self) -> Pruned {
        Pruned {
            is_pod: matches!(self.kind, Kind::Pod),
        }
    }

    /// The object, or nothing where it is not the mesh's.
    pub(super) fn decode(&self, value: Value) -> Result<Option<Object>, Refusal> {
        Ok(Some(match self.kind {
            Kind::Namespace => Object::Namespace(namespace::convert(&typed::<Namespace>(value)?)?),
            Kind::Node => Object::Node(node::convert(&typed::<Node>(value)?)?),
            Kind::ServiceRange => {
                Object::ServiceRange(service_range::convert(&typed::<ServiceCIDR>(value)?)?)
            }
            Kind::Service => Object::Service(service::convert(&typed::<Service>(value)?)?),
            Kind::Pod if self.metadata_only || !has_proxy(&value) => {
                Object::Pod(without_proxy(&value))
            }
            Kind::Pod => Object::Pod(model::Pod {
                // The webhook's label selected it and the proxy is there:
                // whatever other labels say by now, this pod was given it.
                injected: Some(true),
                ..pod::convert(&typed::<Pod>(value)?)?
            }),
            Kind::EndpointSlice if !has_addresses(&value) => return Ok(None),
            Kind::EndpointSlice => {
                Object::EndpointSlice(endpoint_slice::convert(&typed::<EndpointSlice>(value)?)?)
            }
            Kind::HttpRoute => return Ok(of_a_service(RouteKind::Http, &as_written(value))),
            Kind::GrpcRoute => return Ok(of_a_service(RouteKind::Grpc, &as_written(value))),
            // Strict, as in a file: half of a policy would be another policy.
            Kind::BackendPolicy | Kind::AccessPolicy => {
                manifest::object(self.kind, &as_written(value))?
            }
        }))
    }
}

/// Without what the API server and controllers add, which may be newer than we
/// are.
fn as_written(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| METADATA.contains(&field.as_str()));
    }
    value
}

const METADATA: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "generation",
    "creationTimestamp",
    "labels",
    "annotations",
];

/// Fields that we don't know are left out: they are newer than we are. Nearly
/// all objects are good: where one went wrong is looked for only then.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    if let Ok(good) = T::deserialize(&value) {
        return Ok(good);
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "" } else { path.as_str() };
        Refusal::new(field, error.inner().to_string(), "correct the field")
    })
}

/// A name is no address, and a slice that is no Service's is somebody else's.
fn has_addresses(value: &Value) -> bool {
    let is_of_service = value
        .pointer("/metadata/labels")
        .and_then(|it| it.get("kubernetes.io/service-name"))
        .is_some();
    is_of_service && text(value, "/addressType") != "FQDN"
}

/// Routes of gateways are not ours to judge. Whatever is wrong with ours, it is
/// answered in its status.
fn of_a_service(kind: RouteKind, value: &Value) -> Option<Object> {
    let route = route::of_cluster(kind, value)?;
    (!route.parents.is_empty()).then_some(Object::Route(route))
}

/// Anybody can write the label; callers that expect mTLS from a pod without a
/// proxy would reach nobody.
fn has_proxy(pod: &Value) -> bool {
    let containers = pod
        .pointer("/spec/initContainers")
        .and_then(Value::as_array);
    containers.is_some_and(|all| all.iter().any(|it| text(it, "/name") == pod::PROXY))
}

/// That it has none is all that is kept: its addresses are its slices' word.
fn without_proxy(value: &Value) -> model::Pod {
    model::Pod {
        name: name(value),
        uid: text(value, "/metadata/uid").to_owned(),
        injected: Some(false),
        asked: asked(value),
        terminating: value.pointer("/metadata/deletionTimestamp").is_some(),
        weight: 1,
        ..model::Pod::default()
    }
}

/// A mirror of a node's static pod passes no webhook, whatever it says.
fn asked(value: &Value) -> Option<bool> {
    let metadata = |map: &str, key: &str| value.get("metadata")?.get(map)?.get(key)?.as_str();
    if metadata("annotations", "kubernetes.io/config.mirror").is_some() {
        return Some(false);
    }
    match metadata("labels", model::INJECT) {
        Some("enabled") => Some(true),
        Some("disabled") => Some(false),
        _ => None,
    }
}

pub(super) fn name(value: &Value) -> Name {
    Name::new(
        text(value, "/metadata/namespace"),
        text(value, "/metadata/name"),
    )
}

/// `pointer` names fields alone, none of them with a tilde or a slash.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let mut fields = pointer.split('/').skip(1);
    let found = fields.try_fold(value, |it, field| it.get(field));
    found.and_then(Value::as_str).unwrap_or_default()
}
