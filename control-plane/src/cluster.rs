//! What a replica keeps in the Kubernetes API, beside reading the mesh from it:
//! the authority's Secret, who holds the Lease and what it is told, the webhooks'
//! keys, what is answered to routes and policies, which pods the mesh has missed.
//!
//! `app` starts these with one client. All that is durable is an object there,
//! so that replicas keep nothing and any of them may do anything; what only one
//! may do waits for `lease`. Decisions are pure functions over the objects, and
//! the calls around them have deadlines.

use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

pub(crate) mod authority;
mod expiry;
pub(crate) mod lease;
pub(crate) mod metrics;
pub(crate) mod namespace;
pub(crate) mod replicas;
pub(crate) mod review;
pub(crate) mod rotation;
pub(crate) mod status;
pub(crate) mod unmeshed;
mod warning;
pub(crate) mod webhook;

/// The control plane's Lease; its annotations outlive the authority's Secret.
pub(crate) const LEASE: &str = "weft-control-plane";
/// The Secret of an authority that was made here.
pub(crate) const AUTHORITY: &str = "weft-ca";

/// Labels of the control plane's own pods (charts/weft/templates/_helpers.tpl).
pub(crate) const REPLICAS: &str =
    "app.kubernetes.io/name=weft,app.kubernetes.io/component=control-plane";

/// No call of ours takes long; a hung connection must not hold a duty up.
const CALL: Duration = Duration::from_secs(5);

/// Where the control plane lives.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// This replica: the name of its pod.
    pub(crate) replica: String,
}

/// A call that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {} s", CALL.as_secs())]
    Timeout,
}

impl Failure {
    /// Somebody else was there before us.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_not_found())
    }
}

async fn call<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    // Boxed: a request's future is large, and these are rare.
    match timeout(CALL, Box::pin(asked)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Timeout),
    }
}

#[cfg(test)]
pub(crate) mod fake;
