//! Signs leaves, with the key of the day.
//!
//! Without a cluster the root is made at first start and kept in the state
//! directory; the answer to a certificate without its key is an error, never a
//! new root: every proxy would be cut off. In a cluster what signs comes from
//! outside and changes while we run. From a request only the public key is used.

use std::{path::Path, sync::Arc, time::Duration};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::{
    certification_request::X509CertificationRequest, parse_x509_certificate, prelude::FromDer,
};

use crate::{
    ca::{
        Error,
        signing::{self, Signing},
        state::State,
    },
    clock::Wall,
    identity,
    roots::{BACKDATING, Fingerprint},
};

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root.key.pem";
const RESTORE: &str = "restore it from a backup, or move the whole state directory away to begin with a new root (every proxy must then restart)";

/// A certificate and what callers need to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    /// DER, leaf first, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Seconds since the epoch: when it was made, and its end.
    pub(crate) issued: u64,
    pub(crate) expires: u64,
    /// In which it ends.
    pub(crate) root: Fingerprint,
}

/// Signs for one trust domain; what it signs with may be exchanged.
#[derive(Debug)]
pub(crate) struct Authority {
    signing: watch::Sender<Arc<Signing>>,
    trust_domain: String,
    lifetime: Duration,
    clock: Wall,
}

impl Authority {
    pub(crate) fn new(
        signing: Arc<Signing>,
        trust_domain: &str,
        lifetime: Duration,
        clock: Wall,
    ) -> Self {
        Self {
            signing: watch::Sender::new(signing),
            trust_domain: trust_domain.to_owned(),
            lifetime,
            clock,
        }
    }

    /// Reads the state directory, or makes a root in an empty one.
    pub(crate) fn open(
        directory: &Path,
        trust_domain: &str,
        lifetime: Duration,
        clock: Wall,
    ) -> Result<Self, Error> {
        let state = State::open(directory)?;
        let (root, key) = match (state.read(ROOT)?, state.read(ROOT_KEY)?) {
            (Some(certificate), Some(key)) => read_root(&state, trust_domain, &certificate, &key)?,
            (Some(_), None) => {
                return Err(broken(
                    &state,
                    ROOT_KEY,
                    "the root certificate is here and its key is not",
                ));
            }
            // A first start that ended between the two files: the same key makes the same root again.
            (None, Some(key)) => make_root(
                &state,
                trust_domain,
                read_key(&state, ROOT_KEY, &key)?,
                clock,
            )?,
            (None, None) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                state.write(ROOT_KEY, &key.serialize_pem())?;
                make_root(&state, trust_domain, key, clock)?
            }
        };
        let signing = Arc::new(Signing::of_root(root, key)?);
        Ok(Self::new(signing, trust_domain, lifetime, clock))
    }

    /// Of what signs now.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.signing.borrow().root().clone()
    }

    /// What signs now.
    pub(crate) fn signing(&self) -> Arc<Signing> {
        self.signing.borrow().clone()
    }

    /// Every leaf from now on is signed with this.
    pub(crate) fn replace(&self, signing: Arc<Signing>) {
        self.signing.send_replace(signing);
    }

    /// Tells when what signs is another.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Signing>> {
        self.signing.subscribe()
    }

    /// A leaf for the key in a PKCS #10 request. Subject and extensions of the
    /// request are ignored.
    pub(crate) fn sign(&self, request: &[u8], identity: &str) -> Result<Issued, Error> {
        let (rest, request) = X509CertificationRequest::from_der(request)
            .map_err(|_| Error::Request("not a PKCS #10 request in DER"))?;
        if !rest.is_empty() {
            return Err(Error::Request("bytes after its end"));
        }
        let spki = &request.certification_request_info.subject_pki;
        let key = SubjectPublicKeyInfo::from_der(spki.raw)
            .map_err(|_| Error::Request("its key is not ECDSA P-256"))?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || !is_uncompressed_point(key.der_bytes()) {
            return Err(Error::Request("its key is not ECDSA P-256"));
        }
        // Proof of possession: nobody gets a certificate for another's key.
        request
            .verify_signature()
            .map_err(|_| Error::Request("its signature is wrong"))?;
        self.leaf(&key, identity)
    }

    /// A key made here and its leaf, for the control plane's own server.
    pub(crate) fn own(
        &self,
        identity: &str,
    ) -> Result<(Issued, PrivatePkcs8KeyDer<'static>), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued = self.leaf(&key, identity)?;
        Ok((issued, PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn leaf(&self, key: &impl PublicKeyData, identity: &str) -> Result<Issued, Error> {
        if !identity.starts_with(&format!("spiffe://{}/", self.trust_domain)) {
            return Err(Error::Request("an identity of another trust domain"));
        }
        let (now, signing) = (self.clock.now(), self.signing());
        if signing.ends <= now {
            return Err(Error::Expired);
        }
        let expires = (now + self.lifetime).min(signing.ends);
        let life = (now.saturating_sub(BACKDATING), expires);
        let leaf = leaf(identity, life)?.signed_by(key, &signing.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(signing.intermediates.iter().cloned());
        Ok(Issued {
            chain,
            issued: now.as_secs(),
            expires: expires.as_secs(),
            root: signing.fingerprint(),
        })
    }
}

/// A request for a certificate, and the public key (RFC 5280 §4.1.2.7) that it
/// is for; of whoever only wants to see whether there is an answer.
pub(crate) fn request() -> Result<(Vec<u8>, Vec<u8>), Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = CertificateParams::default().serialize_request(&key)?;
    Ok((request.der().to_vec(), key.subject_public_key_info()))
}

/// What every leaf says, valid from and to these times since the epoch.
pub(super) fn leaf(
    identity: &str,
    (begins, ends): (Duration, Duration),
) -> Result<CertificateParams, Error> {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = DistinguishedName::new();
    wanted.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    wanted.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    wanted.is_ca = IsCa::ExplicitNoCa;
    wanted.use_authority_key_identifier_extension = true;
    wanted.serial_number = Some(serial()?);
    (wanted.not_before, wanted.not_after) = (date(begins)?, date(ends)?);
    Ok(wanted)
}

fn make_root(
    state: &State,
    trust_domain: &str,
    key: KeyPair,
    clock: Wall,
) -> Result<(CertificateDer<'static>, KeyPair), Error> {
    let root = signing::self_signed(trust_domain, &key, clock)?;
    state.write(ROOT, &root.pem())?;
    Ok((root.der().clone(), key))
}

fn read_root(
    state: &State,
    trust_domain: &str,
    certificate: &str,
    key: &str,
) -> Result<(CertificateDer<'static>, KeyPair), Error> {
    let key = read_key(state, ROOT_KEY, key)?;
    let root = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|_| broken(state, ROOT, "the root certificate can't be read"))?;
    let (_, parsed) = parse_x509_certificate(&root)
        .map_err(|_| broken(state, ROOT, "the root certificate can't be read"))?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(broken(
            state,
            ROOT_KEY,
            "the key is not the one of the root certificate",
        ));
    }
    let wanted = format!("spiffe://{trust_domain}");
    if identity::uris(&parsed) != [wanted.as_str()] {
        return Err(Error::State {
            path: state.path(ROOT).display().to_string(),
            message: format!("the root is not one of trust domain {trust_domain}"),
            remedy: "start with the trust domain that it was made for, or with another state directory",
        });
    }
    Ok((root, key))
}

/// Shared with `ca::token`, whose key is kept the same way.
pub(crate) fn read_key(state: &State, name: &str, text: &str) -> Result<KeyPair, Error> {
    KeyPair::from_pem(text)
        .ok()
        .filter(|key| key.is_compatible(&PKCS_ECDSA_P256_SHA256))
        .ok_or_else(|| broken(state, name, "the key can't be read"))
}

fn broken(state: &State, name: &str, message: &str) -> Error {
    Error::State {
        path: state.path(name).display().to_string(),
        message: message.to_owned(),
        remedy: RESTORE,
    }
}

/// SEC 1 §2.3.3; rustls reads no compressed points.
fn is_uncompressed_point(key: &[u8]) -> bool {
    key.len() == 65 && key.first() == Some(&4)
}

/// RFC 5280 §4.1.2.2: positive, at most 20 octets; 128 unpredictable bits.
pub(super) fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0u8; 16];
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Error::Request("the system gives no randomness"))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn date(since_epoch: Duration) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Request("a date out of range"))
}

#[cfg(test)]
mod tests;
