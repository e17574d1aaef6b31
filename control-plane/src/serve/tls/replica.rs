//! Towards a replica of the control plane: only its identity at the other end.
//! Another replica comes with the same certificate, who has none yet without.
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

/// `own`: what we show; `None` before there is any.
pub(super) fn config(
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    trust_domain: &str,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = verifier(roots, provider.clone(), trust_domain);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would outlive the bundle that admitted it.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Content with the control plane's identity below these roots alone.
pub(in crate::serve) fn verifier(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    trust_domain: &str,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Replica {
        roots,
        provider,
        identity: identity::control_plane(trust_domain),
    })
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
