//! Who may talk to us, and how: TLS 1.3 alone, our certificate, callers' checked
//! against the bundle.
//!
//! `app` builds a new `Tls` whenever our certificate is renewed or the bundle
//! changes; `accept` takes the newest for each handshake, and `session` asks it
//! again about callers that are connected. A caller without a certificate gets
//! through: it may ask for one, and nothing else. Another replica is called with
//! the same certificate.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};

use crate::{
    clock::Wall,
    identity,
    roots::{BACKDATING, Fingerprint, root_of},
};

pub(super) mod replica;

/// One state of keys and roots.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// Towards another replica, and nobody else.
    pub(crate) to_replica: Arc<ClientConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    trust_domain: String,
}

/// A caller that proved its identity.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) identity: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Seconds since the epoch.
    pub(crate) expires: u64,
    pub(crate) signed: Signed,
}

/// Whose signature a leaf bears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Signed {
    /// Seconds since the epoch. First, so that the newer is the greater.
    pub(crate) issued: u64,
    /// In which it ends.
    pub(crate) root: Fingerprint,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("tls: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("trust bundle: {0}")]
    Bundle(#[from] rustls::server::VerifierBuilderError),
}

/// Why a certificate that chains to a root names nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Nobody {
    #[error("no certificate")]
    Missing,
    #[error("the certificate can't be read")]
    Unreadable,
    #[error("the certificate is not valid: {0}")]
    Invalid(rustls::Error),
    #[error("the certificate has not exactly one URI, or it is of another trust domain")]
    Identity,
}

/// Hybrid first, as between proxies; P-256 is not offered.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// Towards any replica, of one that has no certificate yet.
pub(crate) fn newcomer(
    roots: &[CertificateDer<'static>],
    trust_domain: &str,
) -> Result<Arc<ClientConfig>, Error> {
    let config = replica::config(None, store(roots)?, Arc::new(provider()), trust_domain)?;
    Ok(Arc::new(config))
}

fn store(roots: &[CertificateDer<'static>]) -> Result<rustls::RootCertStore, rustls::Error> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

impl Tls {
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: &[CertificateDer<'static>],
        trust_domain: &str,
    ) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let store = store(roots)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store.clone()), provider.clone())
                .allow_unauthenticated()
                .clear_root_hint_subjects()
                .build()?;
        let own = Some((chain.clone(), key.clone_key()));
        let to_replica = replica::config(own, store, provider.clone(), trust_domain)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would outlive the bundle that admitted it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            to_replica: Arc::new(to_replica),
            verifier,
            roots: roots.to_vec(),
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// Whether this chain proves an identity now, and which.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'static>],
        clock: Wall,
    ) -> Result<Verified, Nobody> {
        let (leaf, intermediates) = chain.split_first().ok_or(Nobody::Missing)?;
        let now = UnixTime::since_unix_epoch(clock.now());
        self.verifier
            .verify_client_cert(leaf, intermediates, now)
            .map_err(Nobody::Invalid)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| Nobody::Unreadable)?;
        let uris = identity::uris(&parsed);
        let [uri] = uris.as_slice() else {
            return Err(Nobody::Identity);
        };
        if !identity::is_workload(uri, &self.trust_domain) {
            return Err(Nobody::Identity);
        }
        let root = root_of(chain, &self.roots, clock.now());
        let root = Fingerprint::of(root.map_err(|_| Nobody::Unreadable)?);
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let expires = seconds(parsed.validity().not_after.timestamp());
        let issued = seconds(parsed.validity().not_before.timestamp());
        let issued = issued + BACKDATING.as_secs();
        Ok(Verified {
            identity: (*uri).to_owned(),
            chain: chain.to_vec(),
            expires,
            signed: Signed { issued, root },
        })
    }
}
