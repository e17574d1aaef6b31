//! The roots that whoever launched us pinned, in a file that may change.
//!
//! `start` chooses between it and what the state directory holds; `client` and
//! `identity` look again before they dial. The control plane's own word is the
//! newer one while it is in touch. A pin that has been changed is the newest
//! there is while it is not: that is how a mesh with another authority is found
//! again without a restart.
//!
//! Newer is a matter of content, never of dates: beside what was learned the
//! state directory keeps the pin under which it was.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    StartError,
    state::{self, State},
};
use crate::{
    discovery::{Health, Stream},
    tls::certs::{Bundle, Store},
};

/// Shared by those who dial.
#[derive(Clone, Debug)]
pub(super) struct Pin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: State,
    /// The file as it was read last, right or wrong; none while it can't be.
    seen: Mutex<Option<Vec<u8>>>,
}

impl Pin {
    /// The pin, and the roots to begin with.
    ///
    /// # Errors
    /// Without a pin that can be read, unless an earlier life learned roots.
    pub(super) fn open(path: &Path, state: &State) -> Result<(Self, Bundle), StartError> {
        let wrong = |error: String| StartError::Bundle {
            path: path.to_owned(),
            error,
        };
        let file = fs::read(path).map_err(|error| error.to_string());
        let pinned = file
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|pem| parse(pem));
        let learned = state.bundle().and_then(|roots| Bundle::new(roots).ok());
        let bundle = match (pinned, learned) {
            (Ok(pinned), Some(learned)) if state.pinned().as_deref() == Some(pinned.roots()) => {
                learned
            }
            (Ok(pinned), _) => {
                state.keep_bundle(pinned.roots());
                state.keep_pinned(pinned.roots());
                pinned
            }
            (Err(error), Some(learned)) => {
                let path = path.display();
                tracing::warn!(%path, error, "pinned roots can't be read: those of an earlier life hold");
                learned
            }
            (Err(error), None) => return Err(wrong(error)),
        };
        let inner = Inner {
            path: path.to_owned(),
            state: state.clone(),
            seen: Mutex::new(file.ok()),
        };
        Ok((Self(Arc::new(inner)), bundle))
    }

    /// Takes note of a change, and trusts it alone where the control plane is
    /// out of touch.
    pub(super) fn look(&self, certificates: &Store, health: &Health) {
        let Inner { path, state, seen } = &*self.0;
        let file = fs::read(path).ok();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() || *seen == file {
            return;
        }
        seen.clone_from(&file);
        let path = path.display();
        let pinned = match parse(file.as_deref().unwrap_or_default()) {
            Ok(pinned) => pinned,
            Err(error) => {
                tracing::warn!(%path, error, "pinned roots can't be read: those held stay");
                return;
            }
        };
        state.keep_pinned(pinned.roots());
        let roots = pinned.roots().len();
        if health.update(|status| status.stream == Stream::Open) {
            tracing::debug!(%path, roots, "pinned roots changed; the control plane's hold");
            return;
        }
        tracing::info!(%path, roots, "pinned roots changed, and no control plane says otherwise: they hold");
        state.keep_bundle(pinned.roots());
        health.update(|status| status.roots = roots);
        certificates.publish_bundle(pinned);
    }
}

fn parse(pem: &[u8]) -> Result<Bundle, String> {
    let roots: Vec<CertificateDer<'static>> =
        state::certificates(pem).ok_or_else(|| "no certificates".to_owned())?;
    Bundle::new(roots).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Wall,
        tls::authority::{Authority, NOW},
    };

    struct Life {
        directory: tempfile::TempDir,
        first: Authority,
        second: Authority,
    }

    impl Life {
        fn new() -> Self {
            let life = Self {
                directory: tempfile::tempdir().unwrap(),
                first: Authority::new("first"),
                second: Authority::new("second"),
            };
            life.first.write_bundle(&life.file());
            life
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("roots.pem")
        }

        fn state(&self) -> State {
            State::new(Some(self.directory.path().join("state")))
        }

        fn open(&self) -> Result<(Pin, Bundle), StartError> {
            Pin::open(&self.file(), &self.state())
        }
    }

    #[test]
    fn what_was_learned_under_a_pin_replaces_it_whole_at_a_restart() {
        let life = Life::new();
        assert_eq!(life.open().unwrap().1, life.first.bundle());
        let both = life.first.bundle_with(&life.second);
        life.state().keep_bundle(both.roots());
        assert_eq!(life.open().unwrap().1, both);
        // A root that was removed does not come back with the old pin.
        life.state().keep_bundle(life.second.bundle().roots());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
    }

    #[test]
    fn a_pin_that_was_changed_meanwhile_is_newer_than_what_was_learned() {
        let life = Life::new();
        life.open().unwrap();
        let both = life.first.bundle_with(&life.second);
        life.state().keep_bundle(both.roots());
        life.second.write_bundle(&life.file());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
    }

    #[test]
    fn a_pin_that_can_not_be_read_leaves_what_was_learned() {
        let life = Life::new();
        fs::write(life.file(), "no certificate").unwrap();
        let error = life.open().unwrap_err();
        assert!(matches!(error, StartError::Bundle { .. }), "{error}");
        life.state().keep_bundle(life.second.bundle().roots());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
        fs::remove_file(life.file()).unwrap();
        assert_eq!(life.open().unwrap().1, life.second.bundle());
    }

    #[test]
    fn a_change_counts_once_and_only_where_nobody_knows_better() {
        let life = Life::new();
        let (pin, bundle) = life.open().unwrap();
        let store = Store::new("cluster.local", bundle, Wall::fixed(NOW));
        let health = Health::default();
        let held = || Bundle::clone(&store.current().bundle);
        fs::write(life.file(), "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
        pin.look(&store, &health);
        assert_eq!(held(), life.first.bundle());
        life.second.write_bundle(&life.file());
        health.update(|status| status.stream = Stream::Open);
        pin.look(&store, &health);
        // Old news by the time that the stream is lost.
        health.update(|status| status.stream = Stream::Idle);
        pin.look(&store, &health);
        assert_eq!(held(), life.first.bundle());
        assert_eq!(life.open().unwrap().1, life.first.bundle());
        life.first.write_bundle(&life.file());
        pin.look(&store, &health);
        life.second.write_bundle(&life.file());
        pin.look(&store, &health);
        assert_eq!(held(), life.second.bundle());
        assert_eq!(life.open().unwrap().1, life.second.bundle());
    }
}
