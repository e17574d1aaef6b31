//! Judges the peer of one handshake: chain, validity, purpose, SPIFFE identity.
//!
//! `connect` and `accept` make one `Verifier` per handshake and read its verdict
//! afterwards, so that the reason of a refusal is known and not guessed from an
//! alert. X509-SVID §5: signed by a root of the bundle, exactly one URI name,
//! not an authority; of our trust domain.

use std::{sync::Arc, sync::OnceLock, time::Duration};

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    identity::SpiffeId,
    outcome::Reason,
    tls::certs::{Bundle, Unusable},
};

/// What a leaf says of itself.
pub(super) struct Leaf {
    pub(super) identity: SpiffeId,
    pub(super) not_before: Duration,
    pub(super) not_after: Duration,
}

impl Leaf {
    pub(super) fn parse(der: &CertificateDer<'_>) -> Result<Self, Unusable> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| Unusable::Malformed)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| Unusable::NoIdentity)?;
        let names = names.ok_or(Unusable::NoIdentity)?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(Unusable::NoIdentity);
        };
        let (not_before, not_after) = validity(&parsed);
        Ok(Self {
            identity: uri.parse().map_err(|_| Unusable::NoIdentity)?,
            not_before,
            not_after,
        })
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (Duration, Duration) {
    let seconds = |at: i64| Duration::from_secs(u64::try_from(at).unwrap_or_default());
    let validity = certificate.validity();
    (
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    )
}

/// What the leaf must be for (RFC 5280 §4.2.1.12). It must say so: a
/// certificate without purposes is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    Server,
    Client,
    Both,
}

const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Which root a chain ends in, and when its first certificate ends.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) root: Arc<TrustAnchor<'static>>,
    pub(super) ends: Duration,
}

/// Leaf first; `now` since the Unix epoch.
pub(super) fn chain(
    ders: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: Duration,
    usage: Usage,
) -> Result<Chain, webpki::Error> {
    let (leaf, intermediates) = ders.split_first().ok_or(webpki::Error::BadDer)?;
    match usage {
        Usage::Server => path(leaf, intermediates, bundle, now, SERVER_AUTH),
        Usage::Client => path(leaf, intermediates, bundle, now, CLIENT_AUTH),
        Usage::Both => {
            path(leaf, intermediates, bundle, now, SERVER_AUTH)?;
            path(leaf, intermediates, bundle, now, CLIENT_AUTH)
        }
    }
}

fn path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: Duration,
    purpose: &'static [u8],
) -> Result<Chain, webpki::Error> {
    let end = EndEntityCert::try_from(leaf)?;
    let path = end.verify_for_usage(
        algorithms().all,
        &bundle.anchors,
        intermediates,
        UnixTime::since_unix_epoch(now),
        KeyUsage::required(purpose),
        None,
        None,
    )?;
    let ders = path
        .intermediate_certificates()
        .map(|certificate| certificate.der());
    let mut ends = Duration::MAX;
    for der in std::iter::once(leaf.clone()).chain(ders) {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| webpki::Error::BadDer)?;
        ends = ends.min(validity(&parsed).1);
    }
    Ok(Chain {
        root: Arc::new(path.anchor().to_owned()),
        ends,
    })
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

/// What a peer proved.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) identity: SpiffeId,
    pub(super) chain: Chain,
}

/// For one handshake.
#[derive(Debug)]
pub(super) struct Verifier {
    bundle: Arc<Bundle>,
    trust_domain: Box<str>,
    /// Whom we mean to call; callers may be anyone of our trust domain.
    expected: Option<SpiffeId>,
    verdict: OnceLock<Result<Proof, Reason>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(bundle: Arc<Bundle>, trust_domain: &str, expected: Option<SpiffeId>) -> Self {
        let trust_domain = trust_domain.into();
        Self {
            bundle,
            trust_domain,
            expected,
            verdict: OnceLock::new(),
            algorithms: algorithms(),
        }
    }

    /// `None` while the peer has shown no certificate.
    pub(super) fn verdict(&self) -> Option<Result<Proof, Reason>> {
        self.verdict.get().cloned()
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: Usage,
    ) -> Result<(), Error> {
        let now = Duration::from_secs(now.as_secs());
        let verdict = self.prove(leaf, intermediates, now, usage);
        let answer = verdict
            .as_ref()
            .map(|_| ())
            .map_err(|reason| refusal(*reason));
        // rustls asks once per handshake.
        let _ = self.verdict.set(verdict);
        answer
    }

    fn prove(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: Duration,
        usage: Usage,
    ) -> Result<Proof, Reason> {
        let mut ders = vec![leaf.clone()];
        ders.extend_from_slice(intermediates);
        let chain = chain(&ders, &self.bundle, now, usage).map_err(|error| match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                Reason::PeerExpired
            }
            _ => Reason::PeerUntrusted,
        })?;
        // A chain that we trust and that names nobody of ours.
        let identity = Leaf::parse(leaf)
            .map_err(|_| Reason::PeerIdentityMismatch)?
            .identity;
        let is_ours = identity.trust_domain() == &*self.trust_domain;
        let is_expected = self
            .expected
            .as_ref()
            .is_none_or(|expected| *expected == identity);
        if is_ours && is_expected {
            Ok(Proof { identity, chain })
        } else {
            Err(Reason::PeerIdentityMismatch)
        }
    }
}

/// The error whose alert tells the peer as much as it may know.
fn refusal(reason: Reason) -> Error {
    Error::InvalidCertificate(match reason {
        Reason::PeerExpired => CertificateError::Expired,
        Reason::PeerIdentityMismatch => CertificateError::ApplicationVerificationFailure,
        _ => CertificateError::UnknownIssuer,
    })
}

fn only_tls13() -> Error {
    Error::General("TLS 1.2 is never negotiated".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Usage::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// None: a proxy has one certificate and needs no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
