//! What outlives a restart: certificate with key, roots, configuration.
//!
//! `control::start` reads it before anything is asked of the control plane;
//! `identity`, `client` and `pin` write it. Every file is replaced whole by rename and
//! is our user's alone (0600). A file that can't be read is as good as none: it
//! is only ever a head start. Never holds a token.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Configurations beyond this are fetched again instead.
const LARGEST_CONFIGURATION: usize = 16 << 20;

#[derive(Clone, Debug)]
pub(crate) struct State {
    directory: Option<PathBuf>,
}

impl State {
    /// `None` keeps nothing.
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    pub(crate) fn identity(
        &self,
    ) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let pem = self.read("identity.pem")?;
        let key = PrivateKeyDer::from_pem_slice(&pem).ok()?;
        Some((certificates(&pem)?, key))
    }

    pub(crate) fn keep_identity(&self, chain: &[CertificateDer<'_>], key_pem: &str) {
        self.write(
            "identity.pem",
            (key_pem.to_owned() + "\n" + &to_pem(chain)).as_bytes(),
        );
    }

    pub(crate) fn bundle(&self) -> Option<Vec<CertificateDer<'static>>> {
        certificates(&self.read("bundle.pem")?)
    }

    pub(crate) fn keep_bundle(&self, roots: &[CertificateDer<'_>]) {
        self.write("bundle.pem", to_pem(roots).as_bytes());
    }

    /// The pin under which `bundle` was learned.
    pub(crate) fn pinned(&self) -> Option<Vec<CertificateDer<'static>>> {
        certificates(&self.read("pinned.pem")?)
    }

    pub(crate) fn keep_pinned(&self, roots: &[CertificateDer<'_>]) {
        self.write("pinned.pem", to_pem(roots).as_bytes());
    }

    pub(crate) fn configuration(&self) -> Option<Vec<u8>> {
        self.read("configuration.pb")
    }

    pub(crate) fn keep_configuration(&self, bytes: &[u8]) {
        if bytes.len() > LARGEST_CONFIGURATION {
            tracing::warn!(bytes = bytes.len(), "configuration too large to be kept");
        } else {
            self.write("configuration.pb", bytes);
        }
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.directory.as_ref()?.join(name);
        let size = fs::metadata(&path).ok()?.len();
        (size <= LARGEST_CONFIGURATION as u64).then(|| fs::read(&path).ok())?
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        if let Some(directory) = &self.directory
            && let Err(error) = replace(directory, name, bytes)
        {
            tracing::warn!(%error, directory = %directory.display(), name, "state not kept");
        }
    }
}

fn replace(directory: &PathBuf, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let next = directory.join(format!("{name}.next"));
    // Left over from a write that was cut off, perhaps with another mode.
    let _ = fs::remove_file(&next);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(next, directory.join(name))
}

/// At least one, all of them readable.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
}

fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem += "-----BEGIN CERTIFICATE-----\n";
        let text = STANDARD.encode(certificate);
        for (at, letter) in text.chars().enumerate() {
            // RFC 7468 §2.
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem += "\n-----END CERTIFICATE-----\n";
    }
    pem
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::authority::{Authority, Wanted};

    #[test]
    fn what_is_kept_is_read_again_and_is_ours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::new(Some(directory.path().join("deep/state")));
        assert!(state.identity().is_none() && state.bundle().is_none());
        let authority = Authority::new("root");
        let (chain, key) = authority.issue(&Wanted::of(&["spiffe://d/ns/a/sa/b"]));
        state.keep_identity(&chain, &key.serialize_pem());
        state.keep_bundle(&[authority.root.clone(), chain[0].clone()]);
        let (again, private) = state.identity().unwrap();
        assert_eq!(again, chain);
        assert_eq!(private.secret_der(), key.serialize_der());
        assert_eq!(state.bundle().unwrap(), [authority.root, chain[0].clone()]);
        let path = directory.path().join("deep/state/identity.pem");
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn garbage_is_as_good_as_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["identity.pem", "bundle.pem"] {
            fs::write(
                directory.path().join(name),
                "-----BEGIN CERTIFICATE-----\nx",
            )
            .unwrap();
        }
        let state = State::new(Some(directory.path().into()));
        assert!(state.identity().is_none() && state.bundle().is_none());
        assert!(State::new(None).configuration().is_none());
    }
}
