//! A certificate authority for tests of this crate.
//!
//! Never compiled into the proxy. Times are seconds of a `Wall::fixed(NOW)`.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer,
};

use crate::{
    clock::Wall,
    tls::certs::{Bundle, Certificate, Store},
};

/// What tests' clocks show when they start.
pub(crate) const NOW: Duration = Duration::from_secs(1_900_000_000);

/// A day around `NOW`.
pub(crate) const DAY: (i64, i64) = (-43_200, 43_200);

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

/// What a leaf is to say. Times are relative to `NOW`.
pub(crate) struct Wanted<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) from: i64,
    pub(crate) until: i64,
    pub(crate) purposes: &'a [ExtendedKeyUsagePurpose],
    pub(crate) is_authority: bool,
}

pub(crate) const BOTH: &[ExtendedKeyUsagePurpose] = &[
    ExtendedKeyUsagePurpose::ServerAuth,
    ExtendedKeyUsagePurpose::ClientAuth,
];

impl<'a> Wanted<'a> {
    pub(crate) fn of(uris: &'a [&'a str]) -> Self {
        Self {
            uris,
            from: DAY.0,
            until: DAY.1,
            purposes: BOTH,
            is_authority: false,
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = self
            .uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.extended_key_usages = self.purposes.to_vec();
        if self.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let at = |seconds: i64| {
            let epoch = date_time_ymd(1970, 1, 1);
            epoch + NOW.checked_add_signed(seconds)
        };
        params.not_before = at(self.from);
        params.not_after = at(self.until);
        params
    }
}

trait AddSigned {
    fn checked_add_signed(self, seconds: i64) -> Duration;
}

impl AddSigned for Duration {
    fn checked_add_signed(self, seconds: i64) -> Duration {
        Self::from_secs(self.as_secs().checked_add_signed(seconds).unwrap())
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(vec![self.root.clone()]).unwrap()
    }

    pub(crate) fn bundle_with(&self, other: &Self) -> Bundle {
        Bundle::new(vec![self.root.clone(), other.root.clone()]).unwrap()
    }

    /// Chain and key.
    pub(crate) fn issue(&self, wanted: &Wanted<'_>) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let leaf = wanted.params().signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone()], key)
    }

    /// For the key of a request, as the control plane does.
    pub(crate) fn certify(&self, request: &[u8], wanted: &Wanted<'_>) -> CertificateDer<'static> {
        let request = CertificateSigningRequestDer::from(request.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&request).unwrap();
        request.params = wanted.params();
        request.signed_by(&self.issuer).unwrap().der().clone()
    }

    pub(crate) fn certificate(&self, wanted: &Wanted<'_>) -> Certificate {
        let (chain, key) = self.issue(wanted);
        Certificate::new(chain, private(&key)).unwrap()
    }

    /// Of a workload that has its certificate from here and trusts `bundle`.
    pub(crate) fn store_of(&self, wanted: &Wanted<'_>, bundle: Bundle) -> Store {
        let store = Store::new("cluster.local", bundle, Wall::fixed(NOW));
        store.install(self.certificate(wanted));
        store
    }

    pub(crate) fn store(&self, identity: &str) -> Store {
        self.store_of(&Wanted::of(&[identity]), self.bundle())
    }

    pub(crate) fn write_bundle(&self, path: &Path) {
        std::fs::write(path, pem(&self.root)).unwrap();
    }
}

pub(crate) fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}

fn pem(der: &CertificateDer<'_>) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(der)
    )
}
