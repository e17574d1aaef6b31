//! What an operator is told about the mesh: proxies, certificates, problems.
//!
//! Ground: plain values that `serve` and `app` fill, `status` serves as JSON
//! and `weft status` prints. The JSON is an interface: fields are only added.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) trust_domain: String,
    /// The source has been read once; before that nothing is served.
    pub(crate) synced: bool,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) problems: Vec<Problem>,
    /// Who says this, or was asked and did not answer.
    #[serde(default)]
    pub(crate) replicas: Vec<Replica>,
    /// Pods of the mesh whose proxies are connected to no replica that answered.
    #[serde(default)]
    pub(crate) not_connected: Vec<Disconnected>,
    #[serde(default)]
    pub(crate) authority: Authority,
    /// `None`: nobody has looked. A replica that holds the Lease does.
    #[serde(default)]
    pub(crate) unmeshed: Option<Unmeshed>,
    #[serde(default)]
    pub(crate) refusing: Vec<Refusing>,
}

/// A replica of the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Why it did not answer; empty: it did.
    pub(crate) error: String,
}

/// A pod of the mesh whose proxy is not connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Disconnected {
    /// "namespace/pod".
    pub(crate) pod: String,
    /// It serves, by what it has received before.
    pub(crate) ready: bool,
}

/// Who signs, and whom the mesh trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    /// Until what signs, or a certificate above it, ends; `None`: not known.
    pub(crate) ends_seconds: Option<i64>,
    pub(crate) roots: Vec<Root>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    /// Its SHA-256.
    pub(crate) root: String,
    /// Negative once it has expired.
    pub(crate) ends_seconds: i64,
}

/// Pods that ask for a proxy and have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unmeshed {
    /// Since somebody looked.
    pub(crate) seconds_ago: f64,
    pub(crate) pods: Vec<UnmeshedPod>,
    /// Further ones.
    pub(crate) left_out: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnmeshedPod {
    /// "namespace/pod".
    pub(crate) pod: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// A namespace that asks for the mesh and enforces what refuses its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Refusing {
    pub(crate) namespace: String,
    /// The Pod Security Standard.
    pub(crate) level: String,
}

/// A connected proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proxy {
    /// "namespace/pod".
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) identity: String,
    pub(crate) version: String,
    pub(crate) features: Vec<String>,
    pub(crate) connected_seconds: f64,
    /// Since it last acknowledged anything, heartbeats included.
    pub(crate) silent_seconds: f64,
    pub(crate) resources: Vec<Resource>,
    pub(crate) rejects: Vec<Reject>,
    /// Policy that it can't express and that it received as deny.
    pub(crate) denied: Vec<String>,
    /// Of the certificate that it connected with.
    #[serde(default)]
    pub(crate) certificate_expires_seconds: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Resource {
    /// "Service shop/cart".
    pub(crate) name: String,
    /// What it acknowledged last, in hexadecimal; empty when nothing.
    pub(crate) held: String,
    pub(crate) newest: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reject {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) reason: String,
    pub(crate) seconds_ago: f64,
}

/// The newest certificate that a pod was issued.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) pod: String,
    pub(crate) identity: String,
    pub(crate) age_seconds: i64,
    /// Negative once it has expired.
    pub(crate) expires_seconds: i64,
    /// SHA-256 of the root in which it ends.
    #[serde(default)]
    pub(crate) root: String,
}

/// Something that can't hold; what it names keeps its last good state.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) file: String,
    /// Number of the document in its file, from 1; 0 where no file is known.
    pub(crate) document: u32,
    /// "HTTPRoute shop/cart"; empty where it could not be read that far.
    pub(crate) object: String,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// What the proxies that a request concerns are told: the wire protocol's
/// `WatchResponse` in base64, for a proxy's own code to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// "namespace/pod" of the caller.
    pub(crate) from: String,
    /// What the caller proves; `None` where it has no proxy.
    pub(crate) identity: Option<String>,
    /// Where its program would connect to.
    pub(crate) address: SocketAddr,
    pub(crate) state: String,
    pub(crate) called: Vec<Called>,
    /// Pods that may be called beyond those in `called`.
    pub(crate) left_out: usize,
}

/// A pod that the request may reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Called {
    /// "namespace/pod".
    pub(crate) pod: String,
    pub(crate) port: u16,
    pub(crate) state: String,
}
