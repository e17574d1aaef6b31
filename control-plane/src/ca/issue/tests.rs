use std::fs;

use rcgen::PKCS_ECDSA_P384_SHA384;
use x509_parser::certificate::X509Certificate;

use super::*;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn open(directory: &Path) -> Result<Authority, Error> {
    Authority::open(
        directory,
        "cluster.local",
        Duration::from_secs(3600),
        Wall::System,
    )
}

fn request(key: &KeyPair) -> Vec<u8> {
    let mut wanted = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wanted.subject_alt_names.push(SanType::URI(
        "spiffe://cluster.local/ns/x/sa/admin".try_into().unwrap(),
    ));
    wanted.serialize_request(key).unwrap().der().to_vec()
}

fn parse(issued: &Issued) -> X509Certificate<'_> {
    parse_x509_certificate(&issued.chain[0]).unwrap().1
}

#[test]
fn only_the_key_of_a_request_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory.path().join("state")).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let issued = authority.sign(&request(&key), CART).unwrap();
    let leaf = parse(&issued);
    assert_eq!(identity::uris(&leaf), [CART]);
    assert_eq!(
        leaf.subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names
            .len(),
        1
    );
    assert!(!leaf.is_ca());
    assert_eq!(
        leaf.public_key().subject_public_key.data.as_ref(),
        key.der_bytes()
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, 3600 + 300);
    let root = authority.root();
    let (_, root) = parse_x509_certificate(&root).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn other_keys_and_stolen_keys_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory.path().join("state")).unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let refused = authority.sign(&request(&other), CART).unwrap_err();
    assert!(refused.to_string().contains("P-256"), "{refused}");
    let mut forged = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    *forged.last_mut().unwrap() ^= 1;
    assert!(authority.sign(&forged, CART).is_err());
    assert!(authority.sign(b"\x30\x80", CART).is_err());
    let fine = request(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    assert!(
        authority
            .sign(&fine, "spiffe://other/ns/shop/sa/cart")
            .is_err()
    );
}

#[test]
fn the_root_survives_a_restart_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let root = open(&state).unwrap().root();
    crate::ca::token::Key::read(&state).unwrap();
    assert_eq!(open(&state).unwrap().root(), root);
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for file in [ROOT, ROOT_KEY, "token.key.pem"] {
        assert_eq!(
            fs::metadata(state.join(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
}

#[test]
fn a_lost_or_foreign_root_key_is_an_error_with_its_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    open(&state).unwrap();
    let kept = fs::read(state.join(ROOT)).unwrap();
    fs::write(
        state.join(ROOT_KEY),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    assert!(
        open(&state)
            .unwrap_err()
            .to_string()
            .contains("restore it from a backup")
    );
    fs::write(state.join(ROOT_KEY), "nonsense").unwrap();
    assert!(
        open(&state)
            .unwrap_err()
            .to_string()
            .contains("restore it from a backup")
    );
    fs::remove_file(state.join(ROOT_KEY)).unwrap();
    assert!(
        open(&state)
            .unwrap_err()
            .to_string()
            .contains("restore it from a backup")
    );
    assert_eq!(fs::read(state.join(ROOT)).unwrap(), kept);
}

#[test]
fn a_state_directory_of_another_trust_domain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    open(&state).unwrap();
    let other = Authority::open(
        &state,
        "other.example",
        Duration::from_secs(60),
        Wall::System,
    );
    assert!(other.unwrap_err().to_string().contains("trust domain"));
}

#[test]
fn a_start_that_ended_between_the_two_files_is_finished_with_the_same_key() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let first = open(&state).unwrap();
    let key = first.signing().issuer.key().serialize_der();
    fs::remove_file(state.join(ROOT)).unwrap();
    let again = open(&state).unwrap().signing();
    assert_eq!(again.issuer.key().serialize_der(), key);
}
