//! Services of one IP family and of both.

use crate::{echo, namespace::Namespace};

#[test]
fn services_of_either_family_and_of_both_are_called_over_mtls() {
    let families = Namespace::meshed("families");
    families.apply(&format!(
        "{}---\n{}",
        echo::deployment("web", 1),
        echo::deployment("cart", 1)
    ));
    for (name, spec) in [
        ("four", "ipFamilies: [IPv4]"),
        ("six", "ipFamilies: [IPv6]"),
        ("both", "ipFamilyPolicy: RequireDualStack"),
    ] {
        let service = echo::service(name, spec).replace(&format!("app: {name}"), "app: cart");
        families.apply(&service);
    }
    families.ready("deployment/web");
    families.ready("deployment/cart");
    let cart = families.pod("app=cart");
    // Both families share the connections between two proxies, so requests are
    // counted where they arrive.
    let over_mtls = || families.metric(&cart, "weft_traffic_requests_total", &["side=\"inbound\""]);
    for arguments in [
        &["http://four/"][..],
        &["http://six/"],
        &["--ipv4", "http://both/"],
        &["--ipv6", "http://both/"],
    ] {
        let before = over_mtls();
        families.call("deployment/web", arguments).assert_ok();
        assert!(
            over_mtls() > before,
            "{arguments:?} did not pass the sidecar"
        );
    }
    let plaintext = families.metric(&cart, "weft_inbound_plaintext_accepted_total", &[]);
    assert_eq!(plaintext, 0.0, "a request came in plaintext");
}
