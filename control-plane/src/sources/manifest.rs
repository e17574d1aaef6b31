//! From the text of a manifest, or a typed object, to the model.
//!
//! `read` is for files: text → documents → typed objects of the `k8s-openapi`
//! and `gateway-api` crates → model. A source that has typed objects already
//! calls the `convert` of their kind. What the mesh doesn't carry is refused by
//! field, never left out in silence.
//!
//! Pure: text in, values out.

pub(crate) mod access_policy;
pub(crate) mod backend_policy;
pub(crate) mod definition;
pub(crate) mod document;
pub(crate) mod endpoint_slice;
pub(crate) mod grpc_route;
pub(crate) mod http_route;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod service_range;

mod check;
mod refusal;
#[cfg(test)]
mod tests;
mod typed;

use serde_json::Value;

pub(crate) use refusal::Refusal;

use crate::model::{Key, Kind, Name, Object};

/// One document of a file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Document {
    /// From 0, counting documents that hold something.
    pub(crate) index: usize,
    /// Where it begins, from 1.
    pub(crate) line: u64,
    pub(crate) content: Content,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Content {
    Object(Object),
    /// A good document of a kind that is none of the mesh's.
    Foreign {
        kind: String,
        refusal: Refusal,
    },
    /// An object that can't be taken; `Err` with the name, as far as it has
    /// one, where not even its kind is known.
    Refused {
        key: Result<Key, Option<Name>>,
        refusal: Refusal,
    },
}

/// Not YAML: where, and why.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Unreadable {
    pub(crate) document: usize,
    pub(crate) line: u64,
    pub(crate) refusal: Refusal,
}

/// The documents of a file.
///
/// # Errors
/// When any of them is no YAML. Nothing of the file counts then: it may have
/// been cut off anywhere.
pub(crate) fn read(text: &str) -> Result<Vec<Document>, Unreadable> {
    let mut documents = Vec::new();
    for raw in document::split(text) {
        let index = documents.len();
        match document::parse(&raw) {
            Ok(Value::Null) => {}
            Ok(value) => documents.push(Document {
                index,
                line: raw.line,
                content: content(&value),
            }),
            Err((line, refusal)) => {
                return Err(Unreadable {
                    document: index,
                    line,
                    refusal,
                });
            }
        }
    }
    Ok(documents)
}

fn content(value: &Value) -> Content {
    let named = check::named(value);
    let refused = |key, refusal| Content::Refused { key, refusal };
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !value.is_object() {
        let remedy = "write apiVersion, kind, metadata";
        return refused(Err(None), Refusal::new("", "it is no mapping", remedy));
    }
    if kind.is_empty() || version.is_empty() {
        let field = if kind.is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        let remedy = format!(
            "say what it is, one of {}",
            KINDS.map(|it| it.0.as_str()).join(", ")
        );
        return refused(Err(named), Refusal::new(field, "is missing", remedy));
    }
    let Some((known, wanted)) = KINDS.into_iter().find(|it| it.0.as_str() == kind) else {
        return of_other_kind(version, kind, named);
    };
    let key = named.map(|name| Key {
        kind: known,
        name: match known {
            Kind::Namespace | Kind::Node | Kind::ServiceRange => Name::new("", &name.name),
            _ => name,
        },
    });
    let key = key.ok_or(None);
    if version != wanted {
        let message = format!("{kind} of {version} is not read");
        let remedy = format!("write apiVersion: {wanted}");
        return refused(key, Refusal::new("apiVersion", message, remedy));
    }
    match object(known, value) {
        Ok(object) => Content::Object(object),
        Err(refusal) => refused(key, refusal),
    }
}

/// Whether `value` is a policy of ours, if a good one: what the webhook asks
/// before an API server keeps it.
///
/// # Errors
/// What the policy says that can't be.
pub(crate) fn check_policy(value: &Value) -> Result<bool, Refusal> {
    match content(value) {
        Content::Object(Object::BackendPolicy(_) | Object::AccessPolicy(_)) => Ok(true),
        Content::Refused {
            key:
                Ok(Key {
                    kind: Kind::BackendPolicy | Kind::AccessPolicy,
                    ..
                }),
            refusal,
        } => Err(refusal),
        // Without a name the API server makes one, or refuses it itself.
        Content::Refused {
            key: Err(_),
            refusal,
        } => Err(refusal),
        _ => Ok(false),
    }
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::Namespace, "v1"),
    (Kind::Service, "v1"),
    (Kind::Pod, "v1"),
    (Kind::EndpointSlice, "discovery.k8s.io/v1"),
    (Kind::HttpRoute, "gateway.networking.k8s.io/v1"),
    (Kind::GrpcRoute, "gateway.networking.k8s.io/v1"),
    (Kind::BackendPolicy, "weft.dev/v1alpha1"),
    (Kind::AccessPolicy, "weft.dev/v1alpha1"),
    (Kind::Node, "v1"),
    (Kind::ServiceRange, "networking.k8s.io/v1"),
];

/// One object of this kind, strictly: a field that the kind doesn't have is
/// refused.
///
/// # Errors
/// What can't be taken of it.
pub(crate) fn object(kind: Kind, value: &Value) -> Result<Object, Refusal> {
    Ok(match kind {
        Kind::Namespace => Object::Namespace(namespace::convert(&typed::read(value)?)?),
        Kind::Service => Object::Service(service::convert(&typed::read(value)?)?),
        Kind::Pod => Object::Pod(pod::convert(&typed::read(value)?)?),
        Kind::EndpointSlice => {
            Object::EndpointSlice(endpoint_slice::convert(&typed::read(value)?)?)
        }
        Kind::HttpRoute => Object::Route(route::whole(http_route::convert(&typed::read(value)?)?)?),
        Kind::GrpcRoute => Object::Route(route::whole(grpc_route::convert(&typed::read(value)?)?)?),
        Kind::BackendPolicy => {
            Object::BackendPolicy(backend_policy::convert(&typed::read(value)?)?)
        }
        Kind::AccessPolicy => Object::AccessPolicy(access_policy::convert(&typed::read(value)?)?),
        Kind::Node => Object::Node(node::convert(&typed::read(value)?)?),
        Kind::ServiceRange => Object::ServiceRange(service_range::convert(&typed::read(value)?)?),
    })
}

/// Kinds that stand beside ours in everybody's manifests. Others of the API
/// groups that we read may be ours with a slip of the pen.
const FOREIGN: [&str; 5] = [
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "PersistentVolumeClaim",
    "ReplicationController",
];

fn of_other_kind(version: &str, kind: &str, named: Option<Name>) -> Content {
    let message = format!("{kind} of {version} is not read");
    let remedy = match kind {
        "List" => "write each item as a document of its own".to_owned(),
        _ => format!(
            "keep it elsewhere; read are {}",
            KINDS.map(|it| it.0.as_str()).join(", ")
        ),
    };
    let refusal = Refusal::new("kind", message, remedy);
    let ours = KINDS.iter().any(|(_, it)| *it == version);
    match ours && !FOREIGN.contains(&kind) {
        true => Content::Refused {
            key: Err(named),
            refusal,
        },
        false => Content::Foreign {
            kind: kind.to_owned(),
            refusal,
        },
    }
}
