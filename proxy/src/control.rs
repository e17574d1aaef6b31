//! Streams from the control plane, turned into snapshots and certificates.
//!
//! `app` starts it on the side runtime and hands what it gives to everyone
//! else; nothing in the path can tell where a snapshot came from. `identity`
//! keeps the certificate fresh, `client` keeps the discovery stream, `decode`
//! validates what arrives, `store` assembles and keeps it, `pin` knows
//! whose roots are the newer ones.
//!
//! Losing the control plane changes nothing here but the age of what is known.

mod client;
mod decode;
mod dial;
pub(crate) mod explain;
#[cfg(test)]
mod fake;
mod identity;
mod pin;
mod state;
mod store;
mod subscriptions;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use self::{client::Client, dial::Dial, identity::Keeper, pin::Pin, state::State};
use crate::{
    clock::Wall,
    discovery::{Asker, Health, Snapshot},
    identity::SpiffeId,
    runtime::Tasks,
    sock::Liveness,
    tls::certs,
};

/// How to reach the control plane, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `ip:port`, `name:port` or `unix:PATH`.
    pub(crate) address: String,
    /// Of our connections to it, which redirection must let pass as ours.
    pub(crate) mark: Option<u32>,
    pub(crate) liveness: Liveness,
    pub(crate) trust_domain: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) pod: Arc<str>,
    /// Empty where the source of the mesh knows none.
    pub(crate) pod_uid: Arc<str>,
    /// Read again for each certificate: the kubelet rotates it.
    pub(crate) token_file: PathBuf,
    /// PEM: the roots that the control plane's certificate may chain to, until
    /// it says better, and beside its word once they change.
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

/// Questions that may wait for this task.
const MAX_QUESTIONS: usize = 1024;

/// Begins on this thread's runtime (the side runtime) with what the state
/// directory holds. Its tasks end with `tasks`.
///
/// # Errors
/// When the configuration can't be right: nothing is retried then.
pub(crate) fn start(config: Config, wall: Wall, tasks: &mut Tasks) -> Result<Handle, StartError> {
    let address: dial::Address = config
        .address
        .parse()
        .map_err(|_| StartError::Address(config.address.clone()))?;
    let dial = dial::dial(address, config.mark, config.liveness);
    start_with(config, dial, wall, tasks)
}

fn start_with(
    config: Config,
    dial: Dial,
    wall: Wall,
    tasks: &mut Tasks,
) -> Result<Handle, StartError> {
    let identity = SpiffeId::new(
        &config.trust_domain,
        &config.namespace,
        &config.service_account,
    );
    let identity = identity.map_err(|error| StartError::Identity(error.to_string()))?;
    let state = State::new(config.state_directory.clone());
    let (pin, bundle) = Pin::open(&config.bundle_file, &state)?;
    let roots = bundle.roots().len();
    let certificates = Arc::new(certs::Store::new(&config.trust_domain, bundle, wall));
    let health = Arc::new(Health::default());
    health.update(|status| {
        status.has_bundle = true;
        status.roots = roots;
    });
    let config = Arc::new(config);
    let keeper = Keeper {
        config: config.clone(),
        identity,
        dial: dial.clone(),
        certificates: certificates.clone(),
        health: health.clone(),
        pin: pin.clone(),
        state: state.clone(),
    };
    keeper.restore();
    let (asker, questions) = Asker::channel(MAX_QUESTIONS);
    let mut client = Client::new(client::Parts {
        config,
        dial,
        certificates: certificates.clone(),
        health: health.clone(),
        pin,
        state,
        questions,
    });
    client.restore();
    let snapshots = client.store.subscribe();
    tasks.spawn(keeper.run());
    tasks.spawn(client.run());
    Ok(Handle {
        asker,
        snapshots,
        certificates,
        health,
    })
}

#[cfg(test)]
mod tests;

/// Whether `bytes` are a discovery response, valid or not: for fuzzing.
pub(crate) fn reads(bytes: &[u8]) -> bool {
    decode::response_from_bytes(bytes).is_some()
}
