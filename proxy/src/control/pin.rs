//! The roots that whoever launched us pinned, in a file that may change.
//!
//! `start` chooses between it and what the state directory holds; `client` and
//! `identity` dial with it. What certificates of the mesh may chain to is the
//! control plane's word alone: a pin never adds a root to that and never takes
//! one away. A pin that has changed since is one more thing by which a control
//! plane may prove itself, until one has: that is how a mesh with another
//! authority is found again without a restart, and without a cut.
//!
//! Newer is a matter of content, never of dates: beside what was learned the
//! state directory keeps the pin whose control plane said it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    StartError,
    state::{self, State},
};
use crate::tls::certs::{Bundle, Session, Store};

/// Shared by those who dial.
#[derive(Clone, Debug)]
pub(super) struct Pin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: State,
    seen: Mutex<Seen>,
    wanted: Notify,
}

#[derive(Debug)]
struct Seen {
    /// The file as it was read last, right or wrong; none while it can't be.
    file: Option<Vec<u8>>,
    /// What it says, until a control plane has proved itself by it.
    unmet: Option<Bundle>,
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
        let (bundle, unmet) = match (pinned, learned) {
            (Ok(pinned), Some(learned)) if is_met(state, &pinned) => (learned, None),
            (Ok(pinned), Some(learned)) => (learned, Some(pinned)),
            (Ok(pinned), None) => (pinned.clone(), Some(pinned)),
            (Err(error), Some(learned)) => {
                let path = path.display();
                tracing::warn!(%path, error, "pinned roots can't be read: those of an earlier life hold");
                (learned, None)
            }
            (Err(error), None) => return Err(wrong(error)),
        };
        let seen = Seen {
            file: file.ok(),
            unmet,
        };
        let inner = Inner {
            path: path.to_owned(),
            state: state.clone(),
            seen: Mutex::new(seen),
            wanted: Notify::new(),
        };
        Ok((Self(Arc::new(inner)), bundle))
    }

    /// Takes note of a change.
    pub(super) fn look(&self) {
        let file = fs::read(&self.0.path).ok();
        let mut seen = self.seen();
        if file.is_none() || seen.file == file {
            return;
        }
        let path = self.0.path.display();
        match parse(file.as_deref().unwrap_or_default()) {
            Ok(pinned) => {
                let roots = pinned.roots().len();
                tracing::info!(%path, roots, "pinned roots changed: a control plane may prove itself by them");
                seen.unmet = (!is_met(&self.0.state, &pinned)).then_some(pinned);
            }
            Err(error) => {
                tracing::warn!(%path, error, "pinned roots can't be read: those held stay");
            }
        }
        seen.file = file;
    }

    /// By which roots a control plane that is dialled now may prove itself.
    pub(super) fn roots(&self, certificates: &Store) -> Arc<Bundle> {
        self.look();
        let learned = Arc::clone(&certificates.current().bundle);
        match &self.seen().unmet {
            Some(pinned) => Arc::new(learned.with(pinned)),
            None => learned,
        }
    }

    /// Keeps what the control plane said over this connection.
    pub(super) fn learned(&self, roots: &Bundle, session: &Session) {
        // Before the pin: cut off in between, both count at the next start.
        self.0.state.keep_bundle(roots.roots());
        self.met(session);
    }

    /// Takes note that what holds is the word of whoever this connection leads to.
    pub(super) fn met(&self, session: &Session) {
        let mut seen = self.seen();
        if let Some(pinned) = seen.unmet.take_if(|pinned| session.chains_to(pinned)) {
            self.0.state.keep_pinned(pinned.roots());
        }
    }

    /// No control plane takes our stream: it may be the pin's, and not know our
    /// certificate.
    pub(super) fn want_certificate(&self) {
        if self.is_unmet() {
            self.0.wanted.notify_one();
        }
    }

    /// Resolves when another certificate may help.
    pub(super) async fn wanted(&self) {
        loop {
            self.0.wanted.notified().await;
            // Others may have met it since.
            if self.is_unmet() {
                return;
            }
        }
    }

    fn is_unmet(&self) -> bool {
        self.seen().unmet.is_some()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is it the pin whose control plane said what is kept?
fn is_met(state: &State, pinned: &Bundle) -> bool {
    state.pinned().as_deref() == Some(pinned.roots())
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

    /// A connection to a control plane of this authority.
    fn session(authority: &Authority) -> Session {
        Session::of_root(authority)
    }

    /// What a control plane may prove itself by.
    fn dialled_with(pin: &Pin, learned: &Bundle) -> Vec<CertificateDer<'static>> {
        let store = Store::new("cluster.local", learned.clone(), Wall::fixed(NOW));
        let roots = pin.roots(&store);
        assert_eq!(*store.current().bundle, *learned, "a pin changes no trust");
        roots.roots().to_vec()
    }

    #[test]
    fn what_was_learned_under_a_pin_replaces_it_whole_at_a_restart() {
        let life = Life::new();
        let (pin, bundle) = life.open().unwrap();
        assert_eq!(bundle, life.first.bundle());
        let both = life.first.bundle_with(&life.second);
        pin.learned(&both, &session(&life.first));
        let (pin, bundle) = life.open().unwrap();
        assert_eq!(bundle, both);
        // A root that was removed does not come back with the old pin.
        let second = life.second.bundle();
        pin.learned(&second, &session(&life.second));
        for _ in 0..2 {
            let (pin, bundle) = life.open().unwrap();
            assert_eq!(bundle, second);
            assert_eq!(dialled_with(&pin, &bundle), second.roots());
        }
    }

    #[test]
    fn a_pin_that_was_changed_meanwhile_is_for_dialling_until_its_control_plane_is_met() {
        let life = Life::new();
        let first = life.first.bundle();
        life.open()
            .unwrap()
            .0
            .learned(&first, &session(&life.first));
        life.second.write_bundle(&life.file());
        let both = life.first.bundle_with(&life.second);
        for _ in 0..2 {
            let (pin, bundle) = life.open().unwrap();
            assert_eq!(bundle, first);
            assert_eq!(dialled_with(&pin, &bundle), both.roots());
            // Not by the word of another.
            pin.learned(&first, &session(&life.first));
        }
        let second = life.second.bundle();
        let (pin, _) = life.open().unwrap();
        pin.learned(&second, &session(&life.second));
        let (pin, bundle) = life.open().unwrap();
        assert_eq!(bundle, second);
        assert_eq!(dialled_with(&pin, &bundle), second.roots());
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
    fn a_change_counts_whenever_it_is_seen_and_half_a_file_never() {
        let life = Life::new();
        let (pin, bundle) = life.open().unwrap();
        pin.met(&session(&life.first));
        fs::write(life.file(), "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
        pin.look();
        assert_eq!(dialled_with(&pin, &bundle), bundle.roots());
        life.second.write_bundle(&life.file());
        // In touch with a control plane that the pin does not mean.
        pin.look();
        pin.met(&session(&life.first));
        let both = life.first.bundle_with(&life.second);
        assert_eq!(dialled_with(&pin, &bundle), both.roots());
        life.first.write_bundle(&life.file());
        assert_eq!(dialled_with(&pin, &bundle), bundle.roots());
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_wanted_while_the_pin_is_unmet() {
        use tokio::time::{Duration, timeout};
        let life = Life::new();
        let (pin, _) = life.open().unwrap();
        let wanted = async || {
            let patience = Duration::from_secs(3600);
            timeout(patience, pin.wanted()).await.is_ok()
        };
        pin.want_certificate();
        assert!(wanted().await);
        assert!(!wanted().await, "once");
        pin.want_certificate();
        pin.met(&session(&life.first));
        assert!(!wanted().await);
    }
}
