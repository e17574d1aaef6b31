//! Which root a certificate chain ends in, and what a root is called.
//!
//! Ground. `ca` asks it of what it is about to sign with, `serve` of what
//! callers show: a root may be removed only when nobody's leaf ends in it.

use std::{fmt, time::Duration};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, cipher_suite};
use webpki::{EndEntityCert, KeyUsage};

/// Every certificate is dated back by this: clocks of two machines may differ.
pub(crate) const BACKDATING: Duration = Duration::from_secs(300);

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` counts it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
        let hash = suite
            .expect("it is one of TLS 1.3")
            .common
            .hash_provider
            .hash(certificate);
        Self(
            hash.as_ref()
                .try_into()
                .expect("the suite's hash is SHA-256"),
        )
    }

    /// As another replica tells it; `None`: not of that length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Enough for people to tell two apart.
    pub(crate) fn short(&self) -> String {
        self.to_string().chars().take(16).collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

/// The one of `roots` under which `chain` (leaf first) is good for client and
/// server at `now`, as proxies judge it.
///
/// # Errors
/// What is wrong with it under the last of them.
pub(crate) fn root_of<'a>(
    chain: &[CertificateDer<'_>],
    roots: &'a [CertificateDer<'static>],
    now: Duration,
) -> Result<&'a CertificateDer<'static>, webpki::Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(webpki::Error::BadDer)?;
    let leaf = EndEntityCert::try_from(leaf)?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(now);
    let mut last = webpki::Error::UnknownIssuer;
    for root in roots {
        let anchors = [webpki::anchor_from_trusted_cert(root)?];
        let verify = |usage| {
            leaf.verify_for_usage(
                algorithms.all,
                &anchors,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map(drop)
        };
        match verify(KeyUsage::client_auth()).and_then(|()| verify(KeyUsage::server_auth())) {
            Ok(()) => return Ok(root),
            // None of it; several roots of one name are told apart by the signature.
            Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_bytes() {
        let abc = CertificateDer::from(b"abc".to_vec());
        let fingerprint = Fingerprint::of(&abc);
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint.to_string(), text);
    }
}
