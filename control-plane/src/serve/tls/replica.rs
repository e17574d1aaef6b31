//! Towards another replica of the control plane: the same certificate, and only
//! the same identity at the other end.
//!
//! Part of `tls`. Replicas are reached by the addresses of their pods, so no
//! name is looked at; who has the control plane's identity is one.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    server::ParsedCertificate,
    version::TLS13,
};

use crate::identity;

pub(super) fn config(
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    trust_domain: &str,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Replica {
        roots,
        provider: provider.clone(),
        identity: identity::control_plane(trust_domain),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would outlive the bundle that admitted it.
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
struct Replica {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    identity: String,
}

impl ServerCertVerifier for Replica {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
        match identity::uris(&parsed) == [self.identity.as_str()] {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
