//! Certificates by which the Kubernetes API knows the webhook's server.
//!
//! Nothing of the mesh: an authority of its own signs one server and its key is
//! forgotten at once, so that what the API server is told to trust can vouch
//! for nothing else. `cluster::webhook` keeps them in a Secret.

use std::{sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use x509_parser::parse_x509_certificate;

use crate::{
    ca::{
        Error,
        issue::{date, serial},
        signing::{CERTIFICATE, KEY, Unfit, pem},
    },
    clock::Wall,
    roots::BACKDATING,
};

/// Renewed long before, and nobody types it in anywhere.
const LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// All in PEM.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) authority: String,
}

/// A server's certificate with its key, ready to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) key: Arc<CertifiedKey>,
    /// When it was made, and its end; since the epoch.
    pub(crate) made: Duration,
    pub(crate) ends: Duration,
}

/// A server of these names, and the authority that vouches for it alone.
pub(crate) fn make(names: &[String], clock: Wall) -> Result<Made, Error> {
    let now = clock.now();
    let life = |wanted: &mut CertificateParams| {
        (wanted.not_before, wanted.not_after) =
            (date(now.saturating_sub(BACKDATING))?, date(now + LIFETIME)?);
        wanted.serial_number = Some(serial()?);
        Ok::<_, Error>(())
    };
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = DistinguishedName::new();
    wanted
        .distinguished_name
        .push(DnType::CommonName, "weft webhook authority");
    wanted.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    life(&mut wanted)?;
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let authority = wanted.self_signed(&authority_key)?;
    let issuer = Issuer::from_ca_cert_der(authority.der(), authority_key)?;

    let mut wanted = CertificateParams::new(names.to_vec())?;
    wanted.distinguished_name = DistinguishedName::new();
    wanted.is_ca = IsCa::ExplicitNoCa;
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    wanted.use_authority_key_identifier_extension = true;
    life(&mut wanted)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Made {
        certificate: wanted.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
        authority: authority.pem(),
    })
}

/// # Errors
/// Which of the two can't be used, and why.
pub(crate) fn read(certificate: &[u8], key: &[u8]) -> Result<Serving, Unfit> {
    let unfit = |part, message: String| Unfit { part, message };
    let chain = pem(CERTIFICATE, certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| unfit(KEY, "no private key in PEM".to_owned()))?;
    let (made, ends) = validity(&chain)?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| unfit(KEY, error.to_string()))?;
    Ok(Serving {
        key: Arc::new(key),
        made,
        ends,
    })
}

fn validity(chain: &[CertificateDer<'_>]) -> Result<(Duration, Duration), Unfit> {
    let parsed = chain.first().map(|it| parse_x509_certificate(it));
    let Some(Ok((_, parsed))) = parsed else {
        return Err(Unfit {
            part: CERTIFICATE,
            message: "its certificate can't be read".to_owned(),
        });
    };
    let seconds = |it: i64| Duration::from_secs(u64::try_from(it).unwrap_or_default());
    let validity = parsed.validity();
    Ok((
        seconds(validity.not_before.timestamp()) + BACKDATING,
        seconds(validity.not_after.timestamp()),
    ))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{ServerName, UnixTime};
    use webpki::{EndEntityCert, KeyUsage};

    use super::*;

    #[test]
    fn the_authority_vouches_for_the_server_by_its_names_alone() {
        let name = "weft-webhook.weft-system.svc".to_owned();
        let made = make(std::slice::from_ref(&name), Wall::System).unwrap();
        let serving = read(made.certificate.as_bytes(), made.key.as_bytes()).unwrap();
        assert!(serving.made <= Wall::System.now() && serving.ends > Wall::System.now());
        let authority = pem("ca.crt", made.authority.as_bytes()).unwrap();
        let anchors = [webpki::anchor_from_trusted_cert(&authority[0]).unwrap()];
        let leaf = EndEntityCert::try_from(&serving.key.cert[0]).unwrap();
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            UnixTime::since_unix_epoch(Wall::System.now()),
            KeyUsage::server_auth(),
            None,
            None,
        )
        .unwrap();
        let is_for = |name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            leaf.verify_is_valid_for_subject_name(&name).is_ok()
        };
        assert!(is_for(&name) && !is_for("kubernetes.default.svc"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let names = ["weft-webhook".to_owned()];
        let (one, other) = (
            make(&names, Wall::System).unwrap(),
            make(&names, Wall::System).unwrap(),
        );
        let mixed = read(one.certificate.as_bytes(), other.key.as_bytes());
        assert_eq!(mixed.unwrap_err().part, KEY);
        let none = read(b"", other.key.as_bytes());
        assert_eq!(none.unwrap_err().part, CERTIFICATE);
    }
}
