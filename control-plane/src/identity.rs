//! SPIFFE identities of workloads, as this control plane issues and reads them.
//!
//! Ground. An identity is compared as an exact string. It is only ever written
//! from verified claims or an index entry, and only ever read from a verified
//! certificate.

use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::model::Name;

/// Who the control plane itself is, below the trust domain.
pub(crate) const CONTROL_PLANE: (&str, &str) = ("weft-system", "weft-control-plane");

/// `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
pub(crate) fn spiffe(trust_domain: &str, account: &Name) -> String {
    format!(
        "spiffe://{trust_domain}/ns/{}/sa/{}",
        account.namespace, account.name
    )
}

/// The identity of the control plane's own certificate.
pub(crate) fn control_plane(trust_domain: &str) -> String {
    spiffe(trust_domain, &Name::new(CONTROL_PLANE.0, CONTROL_PLANE.1))
}

/// The URIs among a certificate's alternative names. SPIFFE X509-SVID §2: a
/// workload's certificate has exactly one.
pub(crate) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &'a GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

/// Exactly of the form that `spiffe` writes, in this trust domain.
pub(crate) fn is_workload(uri: &str, trust_domain: &str) -> bool {
    let parts = || {
        let path = uri
            .strip_prefix("spiffe://")?
            .strip_prefix(trust_domain)?
            .strip_prefix("/ns/")?;
        path.split_once("/sa/")
    };
    parts().is_some_and(|(namespace, account)| is_part(namespace) && is_part(account))
}

/// SPIFFE-ID §2.1 and §2.2: letters, digits, dots, dashes, underscores; not empty.
pub(crate) fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part.len() <= 253
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_written_from_its_parts() {
        assert_eq!(
            spiffe("cluster.local", &Name::new("shop", "cart")),
            "spiffe://cluster.local/ns/shop/sa/cart"
        );
        assert_eq!(
            control_plane("d"),
            "spiffe://d/ns/weft-system/sa/weft-control-plane"
        );
    }

    #[test]
    fn only_a_workload_of_the_trust_domain_is_one() {
        assert!(is_workload("spiffe://d/ns/shop/sa/cart", "d"));
        for uri in [
            "spiffe://dd/ns/shop/sa/cart",
            "spiffe://d/ns/shop/sa/cart/x",
            "spiffe://d/ns//sa/cart",
            "spiffe://d",
        ] {
            assert!(!is_workload(uri, "d"), "{uri}");
        }
    }

    #[test]
    fn a_part_that_could_forge_another_identity_is_refused() {
        for part in ["", ".", "..", "a/b", "a%2fb", "a b", "ä"] {
            assert!(!is_part(part), "{part}");
        }
        assert!(is_part("cart.v2"));
    }
}
