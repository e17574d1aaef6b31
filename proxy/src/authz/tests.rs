//! Deny before allow, and no way around either.

use proptest::prelude::*;

use super::*;
use crate::{discovery::samples::workload, identity::SpiffeId, request::samples::Sample};

fn identity(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", namespace, account).unwrap()
}

fn peer(namespace: &str, account: &str) -> Peer {
    Peer::Identified(identity(namespace, account))
}

fn rule(policy: &str) -> AccessRule {
    AccessRule {
        policy: policy.into(),
        ..AccessRule::default()
    }
}

fn methods(mut rule: AccessRule, methods: &[&str]) -> AccessRule {
    rule.methods = methods.iter().map(|method| (*method).into()).collect();
    rule
}

fn paths(mut rule: AccessRule, prefixes: &[&str]) -> AccessRule {
    rule.path_prefixes = prefixes
        .iter()
        .map(|prefix| path::prefix(prefix).unwrap())
        .collect();
    rule
}

fn from(mut rule: AccessRule, namespace: &str, account: &str) -> AccessRule {
    rule.identities.push(identity(namespace, account));
    rule
}

fn of(mut rule: AccessRule, namespace: &str) -> AccessRule {
    rule.namespaces.push(namespace.into());
    rule
}

fn deny(rules: Vec<AccessRule>) -> Access {
    Access {
        deny: rules,
        ..Access::default()
    }
}

fn allow(rules: Vec<AccessRule>) -> Access {
    Access {
        allow: rules,
        ..Access::default()
    }
}

fn reason(
    access: &Access,
    peer: &Peer,
    request: &Sample,
) -> Result<Option<String>, (Reason, Option<String>)> {
    let text = |policy: Option<&Arc<str>>| policy.map(|policy| policy.to_string());
    match admit(&workload(access.clone()), 80, peer, request) {
        Ok(permit) => Ok(text(permit.policy())),
        Err(denial) => Err((denial.reason, text(denial.policy.as_ref()))),
    }
}

const NOBODY: Result<Option<String>, (Reason, Option<String>)> = Err((Reason::AccessDenied, None));

fn judged_by(policy: &str) -> Result<Option<String>, (Reason, Option<String>)> {
    Err((Reason::AccessDenied, Some(policy.into())))
}

#[test]
fn without_rules_the_default_holds() {
    let caller = peer("shop", "web");
    assert_eq!(
        reason(&Access::default(), &caller, &Sample::get("/")),
        Ok(None)
    );
    let closed = Access {
        default_deny: true,
        ..Access::default()
    };
    assert_eq!(reason(&closed, &caller, &Sample::get("/")), NOBODY);
    // The workload's default, for a port that nobody named.
    let other = admit(&workload(Access::default()), 81, &caller, &Sample::get("/"));
    assert_eq!(other.unwrap_err().reason, Reason::AccessDenied);
}

#[test]
fn deny_comes_before_allow_and_both_are_named() {
    let access = Access {
        deny: vec![from(rule("shop/no-evil#0"), "shop", "evil")],
        allow: vec![of(rule("shop/readers#0"), "shop")],
        ..Access::default()
    };
    assert_eq!(
        reason(&access, &peer("shop", "evil"), &Sample::get("/")),
        judged_by("shop/no-evil#0")
    );
    assert_eq!(
        reason(&access, &peer("shop", "web"), &Sample::get("/")),
        Ok(Some("shop/readers#0".into()))
    );
    assert_eq!(
        reason(&access, &peer("other", "web"), &Sample::get("/")),
        NOBODY
    );
}

#[test]
fn all_conditions_of_a_rule_hold_or_it_does_not() {
    let access = allow(vec![paths(
        methods(from(rule("p#0"), "shop", "web"), &["GET", "HEAD"]),
        &["/items", "/health"],
    )]);
    let web = peer("shop", "web");
    for (request, is_allowed) in [
        (Sample::get("/items"), true),
        (Sample::get("/items/7").with_method("HEAD"), true),
        (Sample::get("/health/"), true),
        (Sample::get("/items").with_method("POST"), false),
        (Sample::get("/itemsx"), false),
        (Sample::get("/"), false),
    ] {
        assert_eq!(
            reason(&access, &web, &request).is_ok(),
            is_allowed,
            "{request:?}"
        );
        assert_eq!(reason(&access, &peer("shop", "webx"), &request), NOBODY);
    }
}

#[test]
fn identities_are_exact_strings_and_dots_are_dots() {
    // CVE-2026-39350: a dot in the account's name was read as "any character".
    let access = allow(vec![from(rule("p#0"), "shop", "cart.v2")]);
    assert!(reason(&access, &peer("shop", "cart.v2"), &Sample::get("/")).is_ok());
    for (namespace, account) in [
        ("shop", "cartxv2"),
        ("shop", "cart.v2x"),
        ("shop", "CART.v2"),
        ("shopx", "cart.v2"),
    ] {
        assert_eq!(
            reason(&access, &peer(namespace, account), &Sample::get("/")),
            NOBODY
        );
    }
    let foreign = Peer::Identified(SpiffeId::new("other.local", "shop", "cart.v2").unwrap());
    assert_eq!(reason(&access, &foreign, &Sample::get("/")), NOBODY);
}

#[test]
fn a_peer_without_identity_is_nobody_s_friend_and_may_be_anybody_s_enemy() {
    for stranger in [Peer::Plaintext, Peer::Local] {
        let request = Sample::get("/");
        assert_eq!(
            reason(&allow(vec![of(rule("p#0"), "shop")]), &stranger, &request),
            NOBODY
        );
        assert_eq!(
            reason(
                &allow(vec![from(rule("p#0"), "shop", "web")]),
                &stranger,
                &request
            ),
            NOBODY
        );
        assert_eq!(
            reason(
                &deny(vec![from(rule("p#0"), "shop", "evil")]),
                &stranger,
                &request
            ),
            judged_by("p#0")
        );
        assert_eq!(
            reason(&deny(vec![of(rule("p#0"), "evil")]), &stranger, &request),
            judged_by("p#0")
        );
        assert_eq!(
            reason(&allow(vec![rule("p#0")]), &stranger, &request),
            Ok(Some("p#0".into()))
        );
        let strict = Access {
            strict: true,
            allow: vec![rule("p#0")],
            ..Access::default()
        };
        assert_eq!(
            reason(&strict, &stranger, &request),
            Err((Reason::PlaintextRefused, None))
        );
        let refused = admit_opaque(&workload(strict), 80, &stranger).unwrap_err();
        assert_eq!(refused.reason, Reason::PlaintextRefused);
    }
}

#[test]
fn a_method_s_case_moves_no_request_past_a_rule() {
    // GHSA-w44g-8m76-8gc5: method case over HTTP/2 skipped method rules.
    let web = peer("shop", "web");
    for spelling in ["DELETE", "delete", "Delete", "dELETE"] {
        let request = Sample::get("/").with_method(spelling);
        assert_eq!(
            reason(
                &deny(vec![methods(rule("p#0"), &["DELETE"])]),
                &web,
                &request
            ),
            judged_by("p#0")
        );
        let is_allowed = reason(
            &allow(vec![methods(rule("p#0"), &["DELETE"])]),
            &web,
            &request,
        )
        .is_ok();
        assert_eq!(is_allowed, spelling == "DELETE");
    }
    for method in ["", "GET ", "G\tT", "GET/", "G\u{e9}T", "GET\0"] {
        let request = Sample::get("/").with_method(method);
        assert_eq!(
            reason(&allow(vec![rule("p#0")]), &web, &request),
            Err((Reason::MalformedRequest, None)),
            "{method:?}"
        );
    }
}

#[test]
fn a_path_s_spelling_moves_no_request_past_a_rule() {
    let web = peer("shop", "web");
    let closed = deny(vec![paths(rule("p#0"), &["/admin"])]);
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/%61dmin",
        "/adm%69n/x",
        "/%61%64%6d%69%6e",
    ] {
        assert_eq!(
            reason(&closed, &web, &Sample::get(path)),
            judged_by("p#0"),
            "{path}"
        );
    }
    for path in [
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/admin;x",
        "/admin%00",
        "/%2561dmin",
        "/x%2f..%2fadmin",
        "\\admin",
        "/x\\..\\admin",
        "/..;/admin",
        "/%c0%af",
        "/admin%3B",
        "http://h/admin",
        "*",
        "",
    ] {
        assert_eq!(
            reason(&closed, &web, &Sample::get(path)),
            Err((Reason::AmbiguousPath, None)),
            "{path}"
        );
    }
    for path in ["/", "/administer", "/x/admin", "/ADMIN"] {
        assert_eq!(
            reason(&closed, &web, &Sample::get(path)),
            Ok(None),
            "{path}"
        );
    }
    // Reserved characters: one who decodes first and one who doesn't both get the safe answer.
    let verb = Sample::get("/v1/foo%3Acancel");
    assert_eq!(
        reason(
            &deny(vec![paths(rule("p#0"), &["/v1/foo:cancel"])]),
            &web,
            &verb
        ),
        judged_by("p#0")
    );
    assert_eq!(
        reason(
            &allow(vec![paths(rule("p#0"), &["/v1/foo:cancel"])]),
            &web,
            &verb
        ),
        NOBODY
    );
}

#[test]
fn what_was_judged_is_what_is_forwarded() {
    let access = workload(allow(vec![paths(rule("p#0"), &["/items"])]));
    let permit = admit(
        &access,
        80,
        &peer("shop", "web"),
        &Sample::get("/%69tems/%7ea%2fb"),
    )
    .unwrap_err();
    assert_eq!(permit.reason, Reason::AmbiguousPath);
    let permit = admit(
        &access,
        80,
        &peer("shop", "web"),
        &Sample::get("/%69tems/%7ea%c3%a9"),
    )
    .unwrap();
    assert_eq!(permit.path(), Some(&b"/items/~a%C3%A9"[..]));
    let permit = admit(&access, 80, &peer("shop", "web"), &Sample::get("/items/~a")).unwrap();
    assert_eq!(permit.path(), None);
}

#[test]
fn without_path_rules_a_path_passes_untouched() {
    let access = workload(allow(vec![methods(rule("p#0"), &["GET"])]));
    for path in ["//a", "/a/../b", "/%2f", "*", "/%zz"] {
        let permit = admit(&access, 80, &peer("shop", "web"), &Sample::get(path)).unwrap();
        assert_eq!(permit.path(), None, "{path}");
    }
}

#[test]
fn opaque_bytes_never_pass_a_port_with_http_conditions() {
    let web = peer("shop", "web");
    let opaque = |access: Access| {
        admit_opaque(&workload(access), 80, &web).map(|permit| permit.policy().cloned())
    };
    let refused = Err(Denial {
        reason: Reason::OpaqueRefused,
        policy: None,
    });
    assert_eq!(
        opaque(deny(vec![methods(rule("p#0"), &["DELETE"])])),
        refused
    );
    assert_eq!(
        opaque(deny(vec![paths(
            from(rule("p#0"), "shop", "other"),
            &["/admin"]
        )])),
        refused
    );
    // An unconditional allow rule beside it doesn't help: the deny rule can't be decided.
    assert_eq!(
        opaque(allow(vec![rule("p#0"), paths(rule("p#1"), &["/a"])])),
        refused
    );
    assert_eq!(
        opaque(allow(vec![of(rule("p#0"), "shop")])),
        Ok(Some("p#0".into()))
    );
    assert_eq!(opaque(Access::default()), Ok(None));
    let denied = Err(Denial {
        reason: Reason::AccessDenied,
        policy: Some("p#0".into()),
    });
    assert_eq!(opaque(deny(vec![from(rule("p#0"), "shop", "web")])), denied);
}

fn any_rule() -> impl Strategy<Value = AccessRule> {
    let some =
        |values: Vec<&'static str>| prop::collection::vec(prop::sample::select(values), 0..3);
    (
        some(vec!["web", "evil", "job"]),
        some(vec!["shop", "other"]),
        some(vec!["GET", "POST"]),
        some(vec!["/", "/a", "/a/b"]),
    )
        .prop_map(|(accounts, namespaces, verbs, prefixes)| {
            let mut one = paths(methods(rule("p#0"), &verbs), &prefixes);
            one.identities = accounts
                .iter()
                .map(|account| identity("shop", account))
                .collect();
            one.namespaces = namespaces.iter().map(|name| (*name).into()).collect();
            one
        })
}

fn any_access() -> impl Strategy<Value = Access> {
    let rules = || prop::collection::vec(any_rule(), 0..4);
    (any::<bool>(), rules(), rules(), any::<bool>()).prop_map(
        |(strict, deny, allow, default_deny)| Access {
            strict,
            deny,
            allow,
            default_deny,
        },
    )
}

fn any_peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        Just(Peer::Plaintext),
        Just(peer("shop", "web")),
        Just(peer("shop", "evil")),
        Just(peer("other", "web")),
        Just(peer("third", "job")),
    ]
}

fn any_request() -> impl Strategy<Value = Sample> {
    let path = prop::sample::select(vec![
        "/", "/a", "/a/b", "/%61/b", "/A", "/ab", "/a/../b", "//a", "/a%21",
    ]);
    let method = prop::sample::select(vec!["GET", "get", "POST", "DELETE", "G T"]);
    (path, method).prop_map(|(path, method)| Sample::get(path).with_method(method))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn one_more_deny_rule_never_allows_more(access in any_access(), extra in any_rule(), at in 0_usize..4, peer in any_peer(), request in any_request()) {
        let mut more = access.clone();
        more.deny.insert(at.min(access.deny.len()), extra);
        if reason(&access, &peer, &request).is_err() {
            prop_assert!(reason(&more, &peer, &request).is_err());
        }
        let opaque = |access: &Access| admit_opaque(&workload(access.clone()), 80, &peer).is_ok();
        prop_assert!(opaque(&access) || !opaque(&more));
    }

    /// But for the last one: without any allow rule the default speaks.
    #[test]
    fn one_allow_rule_less_never_allows_more(access in any_access(), at in 0_usize..4, peer in any_peer(), request in any_request()) {
        prop_assume!(access.allow.len() > 1);
        // Paths are judged with the rest of the rules: a rule that goes may be
        // the only one that asked for a canonical path.
        prop_assume!(path::canonical(request.path()).is_ok());
        let mut less = access.clone();
        less.allow.remove(at % access.allow.len());
        if reason(&access, &peer, &request).is_err() {
            prop_assert!(reason(&less, &peer, &request).is_err());
        }
    }

    #[test]
    fn strict_and_default_deny_never_allow_more(access in any_access(), peer in any_peer(), request in any_request()) {
        for tighter in [Access { strict: true, ..access.clone() }, Access { default_deny: true, ..access.clone() }] {
            prop_assert!(reason(&access, &peer, &request).is_ok() || reason(&tighter, &peer, &request).is_err());
        }
    }

    /// The form that is forwarded is judged as the original was.
    #[test]
    fn forwarding_the_permit_s_path_changes_no_judgement(access in any_access(), peer in any_peer(), request in any_request()) {
        let workload = workload(access);
        if let Ok(permit) = admit(&workload, 80, &peer, &request) {
            let path = permit.path().map_or_else(|| request.path.clone(), <[u8]>::to_vec);
            let again = admit(&workload, 80, &peer, &Sample { path, ..request }).unwrap();
            prop_assert_eq!(again.policy(), permit.policy());
            prop_assert_eq!(again.path(), None);
        }
    }
}
