//! Streams from the control plane, turned into snapshots and certificates.
//!
//! `app` starts it on the side runtime and hands what it gives to everyone
//! else; nothing in the path can tell where a snapshot came from. `identity`
//! keeps the certificate fresh, `client` keeps the discovery stream, `decode`
//! validates what arrives, `store` assembles and keeps it.
//!
//! Losing the control plane changes nothing here but the age of what is known.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    clock::Wall,
    discovery::{Asker, Health, Snapshot},
    runtime::Tasks,
    tls::certs,
};

/// How to reach the control plane, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `ip:port`, `name:port` or `unix:PATH`.
    pub(crate) address: String,
    pub(crate) trust_domain: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) pod: Arc<str>,
    /// Empty where the source of the mesh knows none.
    pub(crate) pod_uid: Arc<str>,
    /// Read again for each certificate: the kubelet rotates it.
    pub(crate) token_file: PathBuf,
    /// PEM: the roots that the control plane's certificate may chain to.
    pub(crate) bundle_file: PathBuf,
    /// Kept over restarts; `None` forgets.
    pub(crate) state_directory: Option<PathBuf>,
    /// Addresses that are kept up to date at once.
    pub(crate) max_subscriptions: usize,
    /// An address that nobody looked up for so long is forgotten.
    pub(crate) idle_subscription: Duration,
}

/// What the rest of the proxy gets of it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) asker: Asker,
    /// Workers copy on change: `changed().await`, then send the `Arc` to them.
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) certificates: Arc<certs::Store>,
    pub(crate) health: Arc<Health>,
}

/// Why it can't begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{0:?} is not a control plane's address: ip:port, name:port or unix:PATH")]
    Address(String),
    #[error("{}: {error}", path.display())]
    Bundle { path: PathBuf, error: String },
    #[error("not a name of a workload in this mesh: {0}")]
    Identity(String),
}

/// Begins on this thread's runtime (the side runtime) with what the state
/// directory holds. Its tasks end with `tasks`.
///
/// # Errors
/// When the configuration can't be right: nothing is retried then.
pub(crate) fn start(
    _config: Config,
    _wall: Wall,
    _tasks: &mut Tasks,
) -> Result<Handle, StartError> {
    unimplemented!()
}
