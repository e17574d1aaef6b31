//! What signs: a key, its certificate, those above it, and the root in which
//! they end.
//!
//! Made here, or given in PEM by whoever keeps it. A given one is tried before
//! it is used: a leaf is signed and judged as proxies will judge it, so that an
//! authority which nobody would accept is refused by name, and not by everyone.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use crate::{
    ca::{
        Error,
        issue::{self, date, serial},
    },
    clock::Wall,
    identity,
    roots::{BACKDATING, Fingerprint, root_of},
};

const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Holds the key.
#[derive(Debug)]
pub(crate) struct Signing {
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Sent along with each leaf, the one that signs first; the root is not among them.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    fingerprint: Fingerprint,
    /// Of the first certificate to end; since the epoch. No leaf outlives it.
    pub(super) ends: Duration,
}

/// Why a given authority can't be used, and which part of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{part}: {message}")]
pub(crate) struct Unfit {
    /// `tls.crt`, `tls.key` or `ca.crt`.
    pub(crate) part: &'static str,
    pub(crate) message: String,
}

pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";
pub(crate) const ROOTS: &str = "ca.crt";

/// A root made here, in PEM.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Signing {
    /// A root that signs by itself.
    pub(super) fn of_root(root: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let ends = parse_x509_certificate(&root)
            .map(|(_, parsed)| ends(&parsed))
            .map_err(|_| Error::Request("the root can't be read"))?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&root, key)?,
            certificate: root.clone(),
            intermediates: Vec::new(),
            fingerprint: Fingerprint::of(&root),
            root,
            ends,
        })
    }

    /// Given in PEM: the certificate that signs with those above it, its key,
    /// and the roots of which one must be above them all.
    ///
    /// # Errors
    /// Which part can't be used, and why.
    pub(crate) fn parse(
        certificates: &[u8],
        key: &[u8],
        roots: &[CertificateDer<'static>],
        trust_domain: &str,
        clock: Wall,
    ) -> Result<Self, Unfit> {
        let unfit = |part, message: &str| Unfit {
            part,
            message: message.to_owned(),
        };
        let mut chain = pem(CERTIFICATE, certificates)?;
        let own = chain
            .first()
            .ok_or_else(|| unfit(CERTIFICATE, "it is empty"))?
            .clone();
        let (_, parsed) = parse_x509_certificate(&own)
            .map_err(|_| unfit(CERTIFICATE, "its first certificate can't be read"))?;
        may_sign(&parsed, trust_domain).map_err(|message| Unfit {
            part: CERTIFICATE,
            message,
        })?;
        let pair = std::str::from_utf8(key)
            .ok()
            .and_then(|text| KeyPair::from_pem(text).ok())
            .ok_or_else(|| unfit(KEY, "no private key that can sign: ECDSA P-256, P-384 or P-521, Ed25519, or RSA, in PEM"))?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&pair) {
            return Err(unfit(
                KEY,
                "it is not the key of the first certificate in tls.crt",
            ));
        }
        let unfit_chain = |error: &dyn std::fmt::Display| Unfit {
            part: CERTIFICATE,
            message: format!("what it signs would be refused: {error}"),
        };
        let issuer = Issuer::from_ca_cert_der(&own, pair).map_err(|error| unfit_chain(&error))?;
        chain.retain(|it| !roots.contains(it));
        let ends_first = ends(&parsed);
        let mut fit = Self {
            issuer,
            intermediates: chain,
            fingerprint: Fingerprint::of(&own),
            root: own.clone(),
            certificate: own,
            ends: ends_first,
        };
        let probe = fit.probe(trust_domain, clock);
        let probe = probe.map_err(|error| unfit_chain(&error))?;
        let root = root_of(&probe, roots, clock.now()).map_err(|error| match error {
            webpki::Error::UnknownIssuer => unfit(CERTIFICATE, "it leads to no root in ca.crt"),
            error => unfit_chain(&error),
        })?;
        fit.root = root.clone();
        fit.fingerprint = Fingerprint::of(root);
        for above in fit.intermediates.iter().chain([root]) {
            if let Ok((_, parsed)) = parse_x509_certificate(above) {
                fit.ends = fit.ends.min(ends(&parsed));
            }
        }
        Ok(fit)
    }

    /// A leaf as all will be, with those above it.
    fn probe(
        &self,
        trust_domain: &str,
        clock: Wall,
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let identity = identity::control_plane(trust_domain);
        let now = clock.now();
        let life = (now.saturating_sub(BACKDATING), now + BACKDATING);
        let leaf = issue::leaf(&identity, life)?.signed_by(&key, &self.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.intermediates.iter().cloned());
        Ok(chain)
    }

    /// Leaves can't tell the two apart.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.intermediates == other.intermediates
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Since the epoch.
    pub(crate) fn ends(&self) -> Duration {
        self.ends
    }
}

/// Every certificate of a PEM text, in its order.
///
/// # Errors
/// When one can't be read, or there is none.
pub(crate) fn pem(part: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let unfit = |message: String| Unfit { part, message };
    match read {
        Ok(read) if read.is_empty() => Err(unfit("it holds no certificate in PEM".to_owned())),
        Ok(read) => Ok(read),
        Err(error) => Err(unfit(format!("it can't be read: {error}"))),
    }
}

/// RFC 7468 §2: lines of 64.
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (at, character) in BASE64_STANDARD.encode(certificate).chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + "\n-----END CERTIFICATE-----\n"
}

/// RFC 5280 §4.2.1.9 and §4.2.1.3; SPIFFE X509-SVID §4.1 where it has a URI.
fn may_sign(certificate: &X509Certificate<'_>, trust_domain: &str) -> Result<(), String> {
    if !certificate.is_ca() {
        return Err("its first certificate is not one of an authority (isCA)".to_owned());
    }
    if let Ok(Some(usage)) = certificate.key_usage()
        && !usage.value.key_cert_sign()
    {
        return Err("its first certificate may not sign certificates (key usage)".to_owned());
    }
    let wanted = format!("spiffe://{trust_domain}");
    match identity::uris(certificate).as_slice() {
        [] => Ok(()),
        [one] if *one == wanted => Ok(()),
        [other, ..] => Err(format!(
            "it is of trust domain {other}, and this mesh is {wanted}"
        )),
    }
}

fn ends(certificate: &X509Certificate<'_>) -> Duration {
    let seconds = certificate.validity().not_after.timestamp();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// A key and the root that it signs for itself.
pub(crate) fn make(trust_domain: &str, clock: Wall) -> Result<Made, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Made {
        certificate: self_signed(trust_domain, &key, clock)?.pem(),
        key: key.serialize_pem(),
    })
}

pub(super) fn self_signed(
    trust_domain: &str,
    key: &KeyPair,
    clock: Wall,
) -> Result<rcgen::Certificate, Error> {
    let now = clock.now();
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = DistinguishedName::new();
    wanted
        .distinguished_name
        .push(DnType::OrganizationName, "Weft");
    wanted
        .distinguished_name
        .push(DnType::CommonName, format!("root of {trust_domain}"));
    // SPIFFE X509-SVID §4.1: a signing certificate carries its trust domain.
    wanted.subject_alt_names = vec![SanType::URI(
        format!("spiffe://{trust_domain}").as_str().try_into()?,
    )];
    wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wanted.serial_number = Some(serial()?);
    (wanted.not_before, wanted.not_after) = (
        date(now.saturating_sub(BACKDATING))?,
        date(now + ROOT_LIFETIME)?,
    );
    Ok(wanted.self_signed(key)?)
}

#[cfg(test)]
mod tests;
