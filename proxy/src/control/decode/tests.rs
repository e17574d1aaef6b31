//! What holds, what is rejected and by which field, and what unknown values close.

use proptest::prelude::*;

use super::*;
use crate::{
    control::fake::{
        CART_ADDRESS, address, endpoint, endpoints, reference, resource, service, whole,
    },
    discovery::{Access, EndpointState, PathMatch, Protocol, Security},
};

fn one(resource: v1::Resource) -> Result<Body, String> {
    let wire = v1::WatchResponse {
        resources: vec![resource],
        ..v1::WatchResponse::default()
    };
    let resource = response(wire).resources.pop().expect("its name is right");
    resource.body.map_err(|invalid| invalid.to_string())
}

fn member_of(change: impl FnOnce(&mut v1::Endpoint)) -> Result<Member, String> {
    let mut wire = endpoint(1);
    change(&mut wire);
    match one(endpoints(1, whole(&[wire])))? {
        Body::Endpoints(mut change) => Ok(change.added_or_updated.remove(0)),
        other => panic!("endpoints and not {other:?}"),
    }
}

#[test]
fn an_endpoint_is_all_that_it_says() {
    let member = member_of(|_| {}).unwrap();
    assert_eq!(member.address, "10.0.0.1:8080".parse().unwrap());
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert_eq!(
        member.security,
        Security::Mesh {
            identity,
            http: true,
            tcp: true
        }
    );
    let excluded = member_of(|it| it.mesh_protocols.clear()).unwrap();
    assert_eq!(excluded.security, Security::Unmeshed);
}

#[test]
fn an_endpoint_that_can_not_be_right_is_rejected_by_field() {
    type Change = fn(&mut v1::Endpoint);
    let cases: [(Change, &str); 8] = [
        (|it| it.uid.clear(), "uid: empty"),
        (
            |it| it.address = "cart".to_owned(),
            "address: \"cart\" is no address",
        ),
        (
            |it| it.address = "0.0.0.0".to_owned(),
            "address: 0.0.0.0 is nobody's own",
        ),
        (
            |it| it.address = "224.0.0.1".to_owned(),
            "address: 224.0.0.1 is nobody's own",
        ),
        (|it| it.port = 0, "port: 0 is no port"),
        (|it| it.port = 65_536, "port: 65536 is no port"),
        (|it| it.weight = 65_536, "weight: 65536"),
        (
            |it| it.identity = "cart".to_owned(),
            "identity: \"cart\" is not an identity",
        ),
    ];
    for (change, wrong) in cases {
        let error = member_of(change).unwrap_err();
        let expected = format!("endpoints.added_or_updated[0].{wrong}");
        assert!(error.starts_with(&expected), "{error} and not {expected}");
    }
}

#[test]
fn values_newer_than_this_proxy_open_nothing() {
    let member = member_of(|it| {
        it.mesh_protocols = vec!["weft9-quic".to_owned()];
        it.state = 99;
        it.protocol = 99;
    })
    .unwrap();
    let Security::Mesh { http, tcp, .. } = member.security else {
        panic!("a mesh endpoint never becomes plaintext");
    };
    assert!(!http && !tcp);
    assert_eq!(member.state, EndpointState::Draining);
    assert_eq!(member.protocol, Protocol::Detect);
}

fn access_of(wire: Option<v1::Access>) -> Result<Access, String> {
    let workload = v1::Workload {
        default_access: wire,
        ..v1::Workload::default()
    };
    let body = v1::resource::Body::Workload(workload);
    match one(resource(v1::Kind::Workload, "shop/cart-1", 1, body))? {
        Body::Workload(workload) => Ok(workload.default_access.clone()),
        other => panic!("a workload and not {other:?}"),
    }
}

#[test]
fn access_that_is_absent_or_unknown_is_closed() {
    let absent = access_of(None).unwrap();
    assert!(absent.strict && absent.default_deny);
    let unknown = v1::Access {
        mtls: 99,
        ..v1::Access::default()
    };
    assert!(access_of(Some(unknown)).unwrap().strict);
    let permissive = access_of(Some(v1::Access::default())).unwrap();
    assert!(!permissive.strict && !permissive.default_deny);
}

#[test]
fn a_rule_that_can_not_be_read_rejects_the_policy() {
    let rule = |change: fn(&mut v1::AccessRule)| {
        let mut rule = v1::AccessRule::default();
        change(&mut rule);
        access_of(Some(v1::Access {
            deny: vec![rule],
            ..v1::Access::default()
        }))
    };
    let wrong = rule(|it| it.identities.push("anyone".to_owned())).unwrap_err();
    assert!(
        wrong.starts_with("workload.default_access.deny[0].identities: \"anyone\""),
        "{wrong}"
    );
    let wrong = rule(|it| it.methods.push("GET /".to_owned())).unwrap_err();
    assert!(wrong.ends_with("methods: \"GET /\" is no token"), "{wrong}");
    let wrong = rule(|it| it.path_prefixes.push("admin".to_owned())).unwrap_err();
    assert!(wrong.ends_with("does not begin with a slash"), "{wrong}");
    let right = rule(|it| {
        it.path_prefixes
            .extend(["/".to_owned(), "/admin/".to_owned()])
    })
    .unwrap();
    assert_eq!(
        right.deny[0].path_prefixes,
        [Box::from(""), Box::from("/admin")]
    );
}

fn match_of(wire: v1::Match) -> Result<crate::discovery::Match, String> {
    let rule = v1::Rule {
        matches: vec![wire],
        ..v1::Rule::default()
    };
    let route = v1::Route {
        rules: vec![rule],
        ..v1::Route::default()
    };
    match one(service(1, |service| service.ports[0].routes.push(route)))? {
        Body::Service(service) => Ok(service.ports[0].routes[0].rules[0].matches[0].clone()),
        other => panic!("a service and not {other:?}"),
    }
}

#[test]
fn a_match_that_can_not_be_read_does_not_match_everything() {
    let path = |kind| v1::Match {
        path: Some(v1::PathMatch { kind }),
        ..v1::Match::default()
    };
    let wrong = match_of(path(None)).unwrap_err();
    assert_eq!(
        wrong,
        "service.ports[0].routes[0].rules[0].matches[0].path: of a kind newer than this proxy"
    );
    let prefix = v1::path_match::Kind::Prefix("/a/".to_owned());
    assert_eq!(
        match_of(path(Some(prefix))).unwrap().path,
        PathMatch::Prefix("/a".into())
    );
    let exact = v1::path_match::Kind::Exact("/a/".to_owned());
    assert_eq!(
        match_of(path(Some(exact))).unwrap().path,
        PathMatch::Exact("/a/".into())
    );
    let bare = v1::path_match::Kind::Exact("a".to_owned());
    assert!(match_of(path(Some(bare))).is_err());
    let header = |name: &str| v1::Match {
        headers: vec![v1::HeaderMatch {
            name: name.to_owned(),
            value: "1".to_owned(),
            regular_expression: false,
        }],
        ..v1::Match::default()
    };
    assert_eq!(
        &*match_of(header("X-Canary")).unwrap().headers[0].name,
        "x-canary"
    );
    assert!(match_of(header("x canary")).is_err());
}

#[test]
fn policy_keeps_the_defaults_of_what_it_does_not_say() {
    let policy = v1::BackendPolicy {
        timeouts: Some(v1::Timeouts {
            idle_milliseconds: 5,
            ..v1::Timeouts::default()
        }),
        ..v1::BackendPolicy::default()
    };
    let Ok(Body::Service(service)) = one(service(1, |it| it.policy = Some(policy))) else {
        panic!("a service");
    };
    let defaults = crate::discovery::BackendPolicy::default();
    assert_eq!(service.policy.timeouts.connect, defaults.timeouts.connect);
    assert_eq!(service.policy.timeouts.idle, Some(Duration::from_millis(5)));
    assert_eq!(service.policy.circuit_breaking, defaults.circuit_breaking);
}

#[test]
fn policy_out_of_range_is_rejected() {
    let with = |change: fn(&mut v1::BackendPolicy)| {
        let mut policy = v1::BackendPolicy::default();
        change(&mut policy);
        one(service(1, |it| it.policy = Some(policy))).unwrap_err()
    };
    let wrong = with(|it| {
        let max_ejected_percent = 101;
        it.circuit_breaking = Some(v1::CircuitBreaking {
            max_ejected_percent,
            ..Default::default()
        });
    });
    assert_eq!(
        wrong,
        "service.policy.circuit_breaking.max_ejected_percent: 101"
    );
    let wrong = with(|it| {
        it.retries = Some(v1::Retries {
            status_codes: vec![50],
            ..Default::default()
        });
    });
    assert_eq!(wrong, "service.policy.retries.status_codes: 50");
}

#[test]
fn an_address_means_what_it_is_the_name_of() {
    let other = endpoint(1);
    let wrong = one(address(1, v1::address::Meaning::Workload(other))).unwrap_err();
    assert_eq!(
        wrong,
        "address.workload.address: 10.0.0.1:8080 is not the address itself"
    );
    let nothing = v1::resource::Body::Address(v1::Address { meaning: None });
    assert!(one(resource(v1::Kind::Address, CART_ADDRESS, 1, nothing)).is_err());
    assert!(one(address(1, v1::address::Meaning::Service(reference("")))).is_err());
}

#[test]
fn a_body_of_another_kind_or_none_is_rejected() {
    let mut wire = service(1, |_| {});
    wire.name = Some(crate::control::fake::named(v1::Kind::Address, CART_ADDRESS));
    assert_eq!(
        one(wire.clone()).unwrap_err(),
        "body: of another kind than the name"
    );
    wire.body = None;
    assert_eq!(
        one(wire).unwrap_err(),
        "body: missing, or newer than this proxy"
    );
    let mut renamed = service(1, |_| {});
    renamed.name = Some(crate::control::fake::named(v1::Kind::Service, "shop/other"));
    assert_eq!(
        one(renamed).unwrap_err(),
        "service.name: is not the resource's"
    );
}

#[test]
fn what_has_no_name_is_rejected_as_it_came() {
    let mut wire = service(9, |_| {});
    wire.name = Some(v1::Name {
        kind: 77,
        name: "x".to_owned(),
    });
    let decoded = response(v1::WatchResponse {
        nonce: 4,
        resources: vec![wire.clone()],
        ..v1::WatchResponse::default()
    });
    let (reject, _) = &decoded.nameless[0];
    let expected = v1::watch_request::Message::Reject(v1::Reject {
        nonce: 4,
        name: wire.name,
        version: 9,
        reason: "name.kind: 77".to_owned(),
    });
    assert_eq!(reject.clone().into_wire().message, Some(expected));
}

#[test]
fn keys_and_names_are_the_same_both_ways() {
    let cart = crate::discovery::ServiceName {
        namespace: "shop".into(),
        name: "cart".into(),
    };
    for key_ in [
        Key::Mesh,
        Key::TrustBundle,
        Key::Workload("shop/cart-1".into()),
        Key::Address("[fd00::1]:80".parse().unwrap()),
        Key::Address("10.0.0.1:80".parse().unwrap()),
        Key::Service(cart.clone()),
        Key::Endpoints(cart, 80),
    ] {
        assert_eq!(key(Some(&name(&key_))), Ok(key_));
    }
    let mapped = crate::control::fake::named(v1::Kind::Address, "[::ffff:10.0.0.1]:80");
    assert_eq!(
        key(Some(&mapped)),
        Ok(Key::Address("10.0.0.1:80".parse().unwrap()))
    );
    for (kind, text) in [
        (v1::Kind::Address, "10.0.0.1"),
        (v1::Kind::Service, "cart"),
        (v1::Kind::Service, "shop/"),
        (v1::Kind::Service, "a/b/c"),
        (v1::Kind::Endpoints, "shop/cart"),
        (v1::Kind::Endpoints, "shop/cart:0"),
    ] {
        assert!(
            key(Some(&crate::control::fake::named(kind, text))).is_err(),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = response_from_bytes(&bytes);
    }

    #[test]
    fn no_flipped_byte_of_a_real_message_breaks_it(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let resources = crate::control::fake::cart();
        let mut bytes = v1::WatchResponse { resources, ..v1::WatchResponse::default() }.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = response_from_bytes(&bytes);
    }
}
