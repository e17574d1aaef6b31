use rcgen::{
    ExtendedKeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};

use super::*;
use crate::ca::Authority;

const DOMAIN: &str = "cluster.local";

struct Pair(rcgen::Certificate, KeyPair);

impl Pair {
    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let key = KeyPair::from_pem(&self.1.serialize_pem()).unwrap();
        Issuer::from_ca_cert_der(self.0.der(), key).unwrap()
    }
}

fn wanted(name: &str) -> CertificateParams {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wanted
}

fn root(key: KeyPair) -> Pair {
    Pair(wanted("a root").self_signed(&key).unwrap(), key)
}

fn below(above: &Pair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut wanted = wanted("an intermediate");
    change(&mut wanted);
    Pair(wanted.signed_by(&key, &above.issuer()).unwrap(), key)
}

fn parse(certificates: &str, key: &KeyPair, roots: &[&Pair]) -> Result<Signing, Unfit> {
    let roots: Vec<_> = roots.iter().map(|it| it.0.der().clone()).collect();
    let key = key.serialize_pem();
    Signing::parse(
        certificates.as_bytes(),
        key.as_bytes(),
        &roots,
        DOMAIN,
        Wall::System,
    )
}

fn unfit(answer: Result<Signing, Unfit>) -> String {
    answer.unwrap_err().to_string()
}

#[test]
fn every_kind_of_key_that_proxies_verify_signs() {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
    for key in [
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        rsa(RsaKeySize::_2048),
    ] {
        let root = root(key);
        let signing = parse(&root.0.pem(), &root.1, &[&root]).unwrap();
        assert!(signing.intermediates.is_empty());
        assert_eq!(signing.root(), root.0.der());
    }
}

#[test]
fn a_leaf_of_an_intermediate_comes_with_it_and_without_the_root() {
    let (root, other) = (
        root(KeyPair::generate().unwrap()),
        root(KeyPair::generate().unwrap()),
    );
    let upper = below(&root, |_| {});
    let lower = below(&upper, |_| {});
    let chain = lower.0.pem() + &upper.0.pem() + &root.0.pem();
    let signing = parse(&chain, &lower.1, &[&other, &root]).unwrap();
    assert_eq!(signing.root(), root.0.der());
    assert_eq!(signing.fingerprint(), Fingerprint::of(root.0.der()));
    let authority = Authority::new(
        signing.into(),
        DOMAIN,
        Duration::from_secs(60),
        Wall::System,
    );
    let identity = identity::control_plane(DOMAIN);
    let (issued, _) = authority.own(&identity).unwrap();
    assert_eq!(
        issued.chain[1..],
        [lower.0.der().clone(), upper.0.der().clone()]
    );
    root_of(&issued.chain, &[root.0.der().clone()], Wall::System.now()).unwrap();
}

#[test]
fn a_leaf_never_outlives_what_signed_it() {
    let root = root(KeyPair::generate().unwrap());
    let soon = Wall::System.now() + Duration::from_secs(100);
    let short = below(&root, |it| it.not_after = date(soon).unwrap());
    let signing = parse(&short.0.pem(), &short.1, &[&root]).unwrap();
    let authority = |clock| {
        let parts = Signing::parse(
            short.0.pem().as_bytes(),
            short.1.serialize_pem().as_bytes(),
            &[root.0.der().clone()],
            DOMAIN,
            Wall::System,
        );
        Authority::new(
            parts.unwrap().into(),
            DOMAIN,
            Duration::from_secs(3600),
            clock,
        )
    };
    let identity = identity::control_plane(DOMAIN);
    let (issued, _) = authority(Wall::System).own(&identity).unwrap();
    assert_eq!(issued.expires, signing.ends().as_secs());
    let late = authority(Wall::fixed(soon)).own(&identity);
    assert!(late.unwrap_err().to_string().contains("expired"));
}

#[test]
fn what_nobody_would_accept_is_refused_with_its_part_and_reason() {
    let (root, other) = (
        root(KeyPair::generate().unwrap()),
        root(KeyPair::generate().unwrap()),
    );
    let leaf = below(&root, |it| it.is_ca = IsCa::ExplicitNoCa);
    let mute = below(&root, |it| it.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let closed = below(&root, |it| {
        it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let deep = below(&closed, |_| {});
    let server = below(&root, |it| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let old = below(&root, |it| {
        it.not_before = date(Duration::from_secs(1_000_000)).unwrap();
        it.not_after = date(Duration::from_secs(2_000_000)).unwrap();
    });
    let foreign = below(&root, |it| {
        it.subject_alt_names = vec![SanType::URI("spiffe://other".try_into().unwrap())];
    });
    let deep_chain = deep.0.pem() + &closed.0.pem();
    let whole = root.0.pem();
    for (chain, key, roots, why) in [
        ("", &root.1, vec![&root], "tls.crt: it holds no certificate"),
        (&whole, &other.1, vec![&root], "tls.key: it is not the key"),
        (
            &whole,
            &root.1,
            vec![&other],
            "tls.crt: it leads to no root in ca.crt",
        ),
        (
            &leaf.0.pem(),
            &leaf.1,
            vec![&root],
            "not one of an authority",
        ),
        (&mute.0.pem(), &mute.1, vec![&root], "may not sign"),
        (&deep_chain, &deep.1, vec![&root], "tls.crt: "),
        (&server.0.pem(), &server.1, vec![&root], "tls.crt: "),
        (&old.0.pem(), &old.1, vec![&root], "tls.crt: "),
        (
            &foreign.0.pem(),
            &foreign.1,
            vec![&root],
            "trust domain spiffe://other",
        ),
    ] {
        let told = unfit(parse(chain, key, &roots));
        assert!(told.contains(why), "{why}: {told}");
    }
    let nonsense = Signing::parse(
        root.0.pem().as_bytes(),
        b"nonsense",
        &[root.0.der().clone()],
        DOMAIN,
        Wall::System,
    );
    assert!(unfit(nonsense).starts_with("tls.key: no private key"));
}

#[test]
fn a_root_made_here_can_be_given_back() {
    let made = make(DOMAIN, Wall::System).unwrap();
    let roots = pem(ROOTS, made.certificate.as_bytes()).unwrap();
    assert_eq!(to_pem(&roots[0]), made.certificate.replace("\r\n", "\n"));
    let (certificate, key) = (made.certificate.as_bytes(), made.key.as_bytes());
    Signing::parse(certificate, key, &roots, DOMAIN, Wall::System).unwrap();
    let other = Signing::parse(certificate, key, &roots, "other.example", Wall::System);
    assert!(unfit(other).contains("trust domain"));
}
