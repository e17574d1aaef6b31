//! Our certificate and the roots that we trust, replaced whole.
//!
//! `control::identity` publishes; `accept` and `connect` read once per
//! handshake, never per request. A `Session` says how long a connection may
//! live: until either end's certificate ends, or the peer's root is removed.

mod session;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_rustls::rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor},
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    clock::Wall,
    identity::SpiffeId,
    outcome::Reason,
    tls::{
        Alpn, Date, provider,
        verify::{self, Verifier},
    },
};

pub(crate) use session::Session;

/// Why certificates or roots are of no use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unusable {
    #[error("no certificate")]
    Empty,
    #[error("not a certificate in DER")]
    Malformed,
    #[error("a root is not a certificate authority")]
    NotAnAuthority,
    #[error("the certificate does not carry exactly one identity")]
    NoIdentity,
    #[error("the certificate is for another trust domain than {0:?}")]
    ForeignDomain(Box<str>),
    #[error("the key is not one that this proxy can use")]
    Key,
    #[error("the certificate is not for this key")]
    KeyMismatch,
    #[error("the certificate chains to no root of the bundle, or is not valid now")]
    Untrusted,
}

/// The roots that certificates may chain to; several while one replaces another.
#[derive(Clone)]
pub(crate) struct Bundle {
    ders: Vec<CertificateDer<'static>>,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({} roots)", self.anchors.len())
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.ders == other.ders
    }
}

impl Bundle {
    /// # Errors
    /// When there is none, or one is not an authority's certificate.
    pub(crate) fn new(mut ders: Vec<CertificateDer<'static>>) -> Result<Self, Unusable> {
        let mut seen = HashSet::new();
        ders.retain(|der| seen.insert(der.to_vec()));
        if ders.is_empty() {
            return Err(Unusable::Empty);
        }
        let mut anchors = Vec::with_capacity(ders.len());
        for der in &ders {
            let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Unusable::Malformed)?;
            if !parsed.is_ca() {
                return Err(Unusable::NotAnAuthority);
            }
            anchors.push(
                webpki::anchor_from_trusted_cert(der)
                    .map_err(|_| Unusable::Malformed)?
                    .to_owned(),
            );
        }
        Ok(Self { ders, anchors })
    }

    /// These roots, then those of `other` that are not among them.
    pub(crate) fn with(&self, other: &Self) -> Self {
        let mut both = self.clone();
        let others = other.ders.iter().zip(&other.anchors);
        for (der, anchor) in others.filter(|(der, _)| !self.ders.contains(der)) {
            both.ders.push(der.clone());
            both.anchors.push(anchor.clone());
        }
        both
    }

    /// DER, as they came.
    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.ders
    }
}

/// Our own leaf, its chain and its key.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) identity: SpiffeId,
    /// Since the Unix epoch.
    pub(crate) not_before: Duration,
    pub(crate) not_after: Duration,
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Leaf first. Whether it chains to anything is `Store::publish`'s question.
    ///
    /// # Errors
    /// When it carries no identity, or is not for this key.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Unusable> {
        let leaf = verify::Leaf::parse(chain.first().ok_or(Unusable::Empty)?)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| Unusable::Key)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| Unusable::KeyMismatch)?;
        let verify::Leaf {
            identity,
            not_before,
            not_after,
        } = leaf;
        Ok(Self {
            identity,
            not_before,
            not_after,
            key: Arc::new(key),
        })
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

/// All that a handshake needs, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    /// Counts changes.
    pub(crate) epoch: u64,
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) certificate: Option<Certificate>,
}

/// Holds the current `Material`. Shared by `Arc`; one per proxy.
#[derive(Debug)]
pub(crate) struct Store {
    trust_domain: Arc<str>,
    wall: Wall,
    current: watch::Sender<Arc<Material>>,
}

impl Store {
    pub(crate) fn new(trust_domain: &str, bundle: Bundle, wall: Wall) -> Self {
        let material = Material {
            epoch: 1,
            bundle: Arc::new(bundle),
            certificate: None,
        };
        Self {
            trust_domain: trust_domain.into(),
            wall,
            current: watch::Sender::new(Arc::new(material)),
        }
    }

    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub(crate) fn wall(&self) -> Wall {
        self.wall
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        self.current.borrow().clone()
    }

    /// Told of every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Material>> {
        self.current.subscribe()
    }

    /// Replaces certificate and roots together.
    ///
    /// # Errors
    /// When peers could not accept the certificate: it is of another trust
    /// domain, chains to no root of this bundle, or is not valid now.
    pub(crate) fn publish(&self, certificate: Certificate, bundle: Bundle) -> Result<(), Unusable> {
        if certificate.identity.trust_domain() != &*self.trust_domain {
            return Err(Unusable::ForeignDomain(self.trust_domain.as_ref().into()));
        }
        verify::chain(
            certificate.chain(),
            &bundle,
            self.wall.now(),
            verify::Usage::Both,
        )
        .map_err(|_| Unusable::Untrusted)?;
        self.replace(|material| {
            material.certificate = Some(certificate);
            material.bundle = Arc::new(bundle);
        });
        Ok(())
    }

    /// Replaces the roots alone. Our own certificate stays, even if its root is
    /// gone: peers judge that, and renewal is under way.
    pub(crate) fn publish_bundle(&self, bundle: Bundle) {
        if *self.current.borrow().bundle != bundle {
            self.replace(|material| material.bundle = Arc::new(bundle));
        }
    }

    fn replace(&self, change: impl FnOnce(&mut Material)) {
        self.current.send_modify(|current| {
            let mut next = Material::clone(current);
            change(&mut next);
            next.epoch += 1;
            *current = Arc::new(next);
        });
    }

    #[cfg(test)]
    /// When our certificate ends, since the Unix epoch; `None` while we have none.
    pub(crate) fn expires(&self) -> Option<Duration> {
        self.current
            .borrow()
            .certificate
            .as_ref()
            .map(|certificate| certificate.not_after)
    }

    /// Is our certificate there and valid now?
    pub(crate) fn is_certified(&self) -> bool {
        let now = self.wall.now();
        self.current
            .borrow()
            .certificate
            .as_ref()
            .is_some_and(|certificate| certificate.is_valid(now))
    }

    /// Would peers with our roots accept our certificate? No, once its root is
    /// removed or its time is over.
    pub(crate) fn is_acceptable(&self) -> bool {
        let material = self.current();
        let own = material.certificate.as_ref();
        own.is_some_and(|own| {
            let now = self.wall.now();
            verify::chain(own.chain(), &material.bundle, now, verify::Usage::Both).is_ok()
        })
    }

    /// For one outgoing handshake.
    pub(super) fn client_config(
        &self,
        verifier: Arc<Verifier>,
        alpn: &str,
        own: Option<&Certificate>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(Date(self.wall)))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config
    }

    /// For one incoming handshake.
    pub(super) fn server_config(&self, verifier: Arc<Verifier>, own: &Certificate) -> ServerConfig {
        let resolver: Arc<dyn ResolvesServerCert> =
            Arc::new(SingleCertAndKey::from(own.key.clone()));
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Date(self.wall)))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has suites of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        config.alpn_protocols = [Alpn::Http, Alpn::Tcp]
            .map(|alpn| alpn.as_str().as_bytes().to_vec())
            .into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }

    /// Our certificate, or the fault that there is none.
    pub(super) fn own(&self, material: &Material) -> Result<Certificate, Reason> {
        let now = self.wall.now();
        let certificate = material
            .certificate
            .as_ref()
            .filter(|certificate| certificate.is_valid(now));
        certificate.cloned().ok_or(Reason::CertificateMissing)
    }
}

impl Certificate {
    pub(crate) fn is_valid(&self, now: Duration) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

#[cfg(test)]
impl Store {
    /// Without asking whether peers could accept it.
    pub(crate) fn install(&self, certificate: Certificate) {
        self.replace(|material| material.certificate = Some(certificate));
    }
}

#[cfg(test)]
impl Certificate {
    /// Whatever the leaf says; for ever.
    pub(crate) fn unchecked(
        identity: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let key = provider().key_provider.load_private_key(key);
        let key = Arc::new(CertifiedKey::new(chain, key.expect("a test's key")));
        let (not_before, not_after) = (Duration::ZERO, Duration::MAX);
        Self {
            identity,
            not_before,
            not_after,
            key,
        }
    }
}
