//! Mutual TLS between proxies, and SPIFFE verification.
//!
//! `inbound` asks `accept`, `upstream` asks `connect`; both read `certs` once per
//! handshake and let `verify` judge the peer. TLS 1.3 alone; X25519MLKEM768 is
//! preferred and X25519 accepted; AES-128-GCM first (the fastest here with AES
//! instructions). No resumption: a ticket would outlive the trust bundle and the
//! identity that it was made under.
//!
//! Never terminates an application's own TLS: `detect` tells it by its ALPN.

pub(crate) mod accept;
#[cfg(test)]
pub(crate) mod authority;
pub(crate) mod certs;
pub(crate) mod connect;
mod verify;

use std::{sync::Arc, time::Duration};

use tokio_rustls::rustls::{
    self, AlertDescription,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::UnixTime,
    time_provider::TimeProvider,
};

use crate::{clock::Wall, outcome::Reason};

/// Which protocol a mesh connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Alpn {
    /// HTTP/2, with HTTP/1 lanes in it.
    Http,
    /// Opaque bytes.
    Tcp,
}

impl Alpn {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "weft1-h2",
            Self::Tcp => "weft1-tcp",
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        [Self::Http, Self::Tcp]
            .into_iter()
            .find(|alpn| alpn.as_str().as_bytes() == bytes)
    }

    /// How many bytes may wait to be encrypted. Bulk wants few, large writes
    /// (1.90 against 1.41 CPU-s/GB); HTTP/2 bounds itself by its windows.
    const fn buffer_limit(self) -> usize {
        match self {
            Self::Http => 64 << 10,
            Self::Tcp => 256 << 10,
        }
    }
}

/// No handshake takes longer, on either side.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// The algorithms of mesh and control-plane connections.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

/// Tells rustls the mesh's date.
#[derive(Debug)]
pub(crate) struct Date(pub(crate) Wall);

impl TimeProvider for Date {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now()))
    }
}

/// What an error of a handshake, or of a mesh stream before its first byte,
/// means; `None` when TLS had no part in it.
fn reason_of(error: &std::io::Error) -> Option<Reason> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::AlertReceived(alert) if is_about_certificate(*alert) => {
            Reason::CertificateRefused
        }
        rustls::Error::NoCertificatesPresented => Reason::PeerUntrusted,
        _ => Reason::TlsHandshake,
    })
}

/// RFC 8446 §6.2.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

#[cfg(test)]
mod tests;
