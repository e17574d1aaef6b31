//! What joins with what, one rule at a time.

use super::*;
use crate::model::{
    AccessPolicy, AccessRule, AccessTarget, BackendRef, Distribution, EndpointSlice, Hints,
    Namespace, Node, Parent, Protocol, Route, Rule, SliceEndpoint,
};

#[test]
fn without_slices_endpoints_follow_the_selector_and_the_live_pods() {
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
        Object::Pod(pod("shop/other", "10.0.0.2", "other")),
        Object::Pod(pod("else/cart-0", "10.0.0.3", "cart")),
    ]);
    let found = endpoints_of(&index, &backend("shop/cart", 80)).unwrap();
    let endpoint = found.values().next().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(endpoint.address, address("10.0.0.1:8080"));
    assert_eq!(endpoint.identity, Some(name("shop/default")));
    assert!(endpoint.mesh && !endpoint.draining);

    let going = Pod {
        terminating: true,
        ..pod("shop/cart-0", "10.0.0.1", "cart")
    };
    let changes = index.apply(Event::Apply(Object::Pod(going)));
    let uid = endpoint.uid.clone();
    assert!(changes.contains(&Change::Endpoints {
        backend: backend("shop/cart", 80),
        uid: uid.clone()
    }));
    assert!(
        index
            .endpoint(&backend("shop/cart", 80), &uid)
            .unwrap()
            .draining
    );
}

#[test]
fn a_slice_replaces_the_selector() {
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
        Object::Pod(pod("shop/cart-1", "10.0.0.2", "cart")),
    ]);
    let slice = EndpointSlice {
        name: name("shop/cart-abc"),
        service: "cart".to_owned(),
        ports: [("http".to_owned(), 9090)].into(),
        endpoints: vec![
            SliceEndpoint {
                addresses: vec![ip("10.0.0.2")],
                ready: true,
                ..SliceEndpoint::default()
            },
            SliceEndpoint {
                addresses: vec![ip("192.0.2.7")],
                ready: true,
                ..SliceEndpoint::default()
            },
        ],
    };
    index.apply(Event::Apply(Object::EndpointSlice(slice.clone())));
    let of = |index: &Index| -> Vec<(SocketAddr, bool)> {
        let found = endpoints_of(index, &backend("shop/cart", 80)).unwrap();
        let mut found: Vec<_> = found.values().map(|it| (it.address, it.mesh)).collect();
        found.sort_unstable();
        found
    };
    // An address that a pod owns is that pod, also without a targetRef.
    assert_eq!(
        of(&index),
        [
            (address("10.0.0.2:9090"), true),
            (address("192.0.2.7:9090"), false)
        ]
    );
    index.apply(Event::Delete(key(Kind::EndpointSlice, "shop/cart-abc")));
    assert_eq!(
        of(&index),
        [
            (address("10.0.0.1:8080"), true),
            (address("10.0.0.2:8080"), true)
        ]
    );
}

#[test]
fn an_endpoint_of_an_unknown_pod_is_left_out_and_reported() {
    let index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::EndpointSlice(EndpointSlice {
            name: name("shop/cart-abc"),
            service: "cart".to_owned(),
            ports: [("http".to_owned(), 8080)].into(),
            endpoints: vec![SliceEndpoint {
                addresses: vec![ip("10.0.0.9")],
                pod: Some("cart-9".to_owned()),
                ready: true,
                ..SliceEndpoint::default()
            }],
        }),
    ]);
    assert!(
        endpoints_of(&index, &backend("shop/cart", 80))
            .unwrap()
            .is_empty()
    );
    let problem = index.problems().next().unwrap();
    assert_eq!(problem.field, "endpoints[0].targetRef.name");
    assert!(problem.message.contains("shop/cart-9"), "{problem:?}");
}

#[test]
fn a_pod_that_comes_back_as_another_is_another_endpoint() {
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
    ]);
    let first = endpoints_of(&index, &backend("shop/cart", 80)).unwrap();
    let again = pod("shop/cart-0", "10.0.0.8", "cart");
    index.apply(Event::Apply(Object::Pod(again)));
    let second = endpoints_of(&index, &backend("shop/cart", 80)).unwrap();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first.keys().ne(second.keys()));
}

#[test]
fn a_slice_that_means_another_uid_does_not_mean_this_pod() {
    let listing = |uid: &str| {
        Object::EndpointSlice(EndpointSlice {
            name: name("shop/cart-abc"),
            service: "cart".to_owned(),
            ports: [("http".to_owned(), 8080)].into(),
            endpoints: vec![SliceEndpoint {
                addresses: vec![ip("10.0.0.1")],
                pod: Some("cart-0".to_owned()),
                pod_uid: uid.to_owned(),
                ready: true,
                ..SliceEndpoint::default()
            }],
        })
    };
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
        listing("uid-of-10.0.0.1"),
    ]);
    let count = |index: &Index| endpoints_of(index, &backend("shop/cart", 80)).map(|it| it.len());
    assert_eq!(count(&index), Some(1));
    index.apply(Event::Apply(listing("replaced")));
    assert_eq!(count(&index), Some(0));
    let slice = key(Kind::EndpointSlice, "shop/cart-abc");
    assert_eq!(
        index.problems_of(&slice)[0].field,
        "endpoints[0].targetRef.name"
    );
}

#[test]
fn of_a_pod_without_a_proxy_the_slices_address_is_enough() {
    let bare = Pod {
        addresses: Vec::new(),
        injected: Some(false),
        ..pod("shop/db-0", "10.0.0.1", "db")
    };
    let index = applied([
        Object::Service(service("shop/db", "10.96.0.1", "db")),
        Object::Pod(bare),
        Object::EndpointSlice(EndpointSlice {
            name: name("shop/db-abc"),
            service: "db".to_owned(),
            ports: [("http".to_owned(), 5432)].into(),
            endpoints: vec![SliceEndpoint {
                addresses: vec![ip("10.0.0.1")],
                pod: Some("db-0".to_owned()),
                pod_uid: "uid-of-10.0.0.1".to_owned(),
                ready: true,
                ..SliceEndpoint::default()
            }],
        }),
    ]);
    let found = endpoints_of(&index, &backend("shop/db", 80)).unwrap();
    let endpoint = found.values().next().unwrap();
    assert_eq!(endpoint.address, address("10.0.0.1:5432"));
    assert!(!endpoint.mesh && endpoint.identity.is_none());
    assert_eq!(index.problems().count(), 0);
}

#[test]
fn a_pod_is_in_its_nodes_zone_unless_it_says_its_own() {
    let node = |zone: &str| {
        Object::Node(Node {
            name: "n".to_owned(),
            zone: zone.to_owned(),
            pod_ranges: Vec::new(),
        })
    };
    let on = |name: &str, ip: &str, zone: &str| {
        Object::Pod(Pod {
            node: "n".to_owned(),
            zone: zone.to_owned(),
            ..pod(name, ip, "cart")
        })
    };
    let mut index = applied([
        on("shop/cart-0", "10.0.0.1", ""),
        on("shop/cart-1", "10.0.0.2", "own"),
        node("here"),
    ]);
    let zone = |index: &Index, pod: &str| index.workload(&name(pod)).map(|it| it.pod.zone);
    assert_eq!(zone(&index, "shop/cart-0").as_deref(), Some("here"));
    assert_eq!(zone(&index, "shop/cart-1").as_deref(), Some("own"));
    let changes = index.apply(Event::Apply(node("there")));
    assert!(changes.contains(&Change::Workload(name("shop/cart-0"))));
    assert!(!changes.contains(&Change::Workload(name("shop/cart-1"))));
    assert_eq!(zone(&index, "shop/cart-0").as_deref(), Some("there"));
}

#[test]
fn what_a_service_asks_of_balancing_is_told_and_is_no_problem() {
    let asking = Service {
        affinity_seconds: 60,
        own_node_only: true,
        ..service("shop/cart", "10.96.0.1", "cart")
    };
    let mut index = applied([Object::Service(service("shop/cart", "10.96.0.1", "cart"))]);
    let changes = index.apply(Event::Apply(Object::Service(asking)));
    assert!(changes.contains(&Change::Service(name("shop/cart"))));
    let told = index.service(&name("shop/cart")).unwrap();
    assert_eq!((told.affinity_seconds, told.own_node_only), (60, true));
    assert_eq!(index.problems_of(&key(Kind::Service, "shop/cart")), []);
}

/// Where each endpoint runs, and its hints.
fn places(index: &Index) -> Vec<(String, String, Option<Hints>)> {
    let found = endpoints_of(index, &backend("shop/cart", 80)).unwrap();
    let place = |it: Endpoint| (it.node, it.zone, it.hints.map(|hints| *hints));
    found.into_values().map(place).collect()
}

#[test]
fn without_slices_a_traffic_distribution_hints_each_endpoint_to_its_own_place() {
    let asking = |distribution| {
        Object::Service(Service {
            distribution,
            ..service("shop/cart", "10.96.0.1", "cart")
        })
    };
    let mut index = applied([
        asking(Distribution::Anywhere),
        Object::Pod(Pod {
            node: "n".to_owned(),
            ..pod("shop/cart-0", "10.0.0.1", "cart")
        }),
        Object::Node(Node {
            name: "n".to_owned(),
            zone: "here".to_owned(),
            pod_ranges: Vec::new(),
        }),
    ]);
    let at = |hints| vec![("n".to_owned(), "here".to_owned(), hints)];
    let hints = |nodes: &[&str]| {
        Some(Hints {
            nodes: nodes.iter().map(|&it| it.to_owned()).collect(),
            zones: vec!["here".to_owned()],
        })
    };
    assert_eq!(places(&index), at(None));
    let changes = index.apply(Event::Apply(asking(Distribution::SameZone)));
    assert_eq!(places(&index), at(hints(&[])));
    let is_endpoints = |it: &Change| matches!(it, Change::Endpoints { .. });
    assert!(changes.iter().any(is_endpoints), "{changes:?}");
    index.apply(Event::Apply(asking(Distribution::SameNode)));
    assert_eq!(places(&index), at(hints(&["n"])));
}

#[test]
fn a_slice_says_where_an_endpoint_runs_and_whom_it_is_for() {
    let hints = Hints {
        nodes: Vec::new(),
        zones: vec!["there".to_owned()],
    };
    let listing = |node: &str| {
        Object::EndpointSlice(EndpointSlice {
            name: name("shop/cart-abc"),
            service: "cart".to_owned(),
            ports: [("http".to_owned(), 8080)].into(),
            endpoints: vec![SliceEndpoint {
                addresses: vec![ip("10.0.0.1")],
                pod: Some("cart-0".to_owned()),
                ready: true,
                node: node.to_owned(),
                zone: "here".to_owned(),
                hints: Some(Box::new(hints.clone())),
                ..SliceEndpoint::default()
            }],
        })
    };
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(Pod {
            node: "own".to_owned(),
            ..pod("shop/cart-0", "10.0.0.1", "cart")
        }),
        listing("listed"),
    ]);
    let at = |node: &str| vec![(node.to_owned(), "here".to_owned(), Some(hints.clone()))];
    assert_eq!(places(&index), at("listed"));
    index.apply(Event::Apply(listing("")));
    assert_eq!(places(&index), at("own"));
}

#[test]
fn the_namespace_decides_where_the_pod_is_silent() {
    let silent = Pod {
        injected: None,
        ..pod("shop/cart-0", "10.0.0.1", "cart")
    };
    let no = Pod {
        injected: None,
        asked: Some(false),
        ..pod("shop/cart-1", "10.0.0.2", "cart")
    };
    let mut index = applied([Object::Pod(silent), Object::Pod(no)]);
    assert_eq!(index.meaning(address("10.0.0.1:80")), Meaning::Unmeshed);
    let changes = index.apply(Event::Apply(Object::Namespace(Namespace {
        name: "shop".to_owned(),
        labels: labels(&[("weft.dev/inject", "enabled")]),
    })));
    assert!(changes.contains(&Change::Ip(ip("10.0.0.1"))));
    assert!(!changes.contains(&Change::Ip(ip("10.0.0.2"))));
    assert!(matches!(
        index.meaning(address("10.0.0.1:80")),
        Meaning::Workload(_)
    ));
    assert_eq!(index.meaning(address("10.0.0.2:80")), Meaning::Unmeshed);
}

#[test]
fn where_the_namespace_declines_no_pods_label_makes_it_one_of_the_mesh() {
    let pod = |name: &str, ip: &str, injected| {
        Object::Pod(Pod {
            injected,
            asked: Some(true),
            ..pod(name, ip, "cart")
        })
    };
    let mut index = applied([
        pod("shop/cart-0", "10.0.0.1", None),
        // Whoever gave it one knows better than any label.
        pod("shop/cart-1", "10.0.0.2", Some(true)),
    ]);
    let is_meshed = |index: &Index, at: &str| {
        let meaning = index.meaning(address(&format!("{at}:80")));
        matches!(meaning, Meaning::Workload(_))
    };
    assert!(is_meshed(&index, "10.0.0.1") && is_meshed(&index, "10.0.0.2"));
    let changes = index.apply(Event::Apply(Object::Namespace(Namespace {
        name: "shop".to_owned(),
        labels: labels(&[("weft.dev/inject", "disabled")]),
    })));
    assert!(changes.contains(&Change::Ip(ip("10.0.0.1"))));
    assert!(!is_meshed(&index, "10.0.0.1") && is_meshed(&index, "10.0.0.2"));
}

#[test]
fn an_excluded_port_has_no_proxy() {
    let excluding = Pod {
        excluded_ports: [8080].into(),
        ..pod("shop/cart-0", "10.0.0.1", "cart")
    };
    let index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Pod(excluding),
    ]);
    let found = endpoints_of(&index, &backend("shop/cart", 80)).unwrap();
    assert!(!found.values().next().unwrap().mesh);
    assert_eq!(index.meaning(address("10.0.0.1:8080")), Meaning::Unmeshed);
    assert!(matches!(
        index.meaning(address("10.0.0.1:8081")),
        Meaning::Workload(_)
    ));
}

#[test]
fn the_older_service_keeps_a_contested_address() {
    let older = Service {
        created_milliseconds: 1,
        ..service("shop/old", "10.96.0.1", "old")
    };
    let younger = Service {
        created_milliseconds: 2,
        ..service("shop/a-new", "10.96.0.1", "new")
    };
    let mut index = applied([Object::Service(younger), Object::Service(older)]);
    let at = address("10.96.0.1:80");
    assert_eq!(index.meaning(at), Meaning::Service(backend("shop/old", 80)));
    let problems: Vec<_> = index.problems().collect();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].object, key(Kind::Service, "shop/a-new"));
    assert_eq!(problems[0].message, "10.96.0.1 is Service shop/old's");
    index.apply(Event::Delete(key(Kind::Service, "shop/old")));
    assert_eq!(
        index.meaning(at),
        Meaning::Service(backend("shop/a-new", 80))
    );
    assert_eq!(index.problems().count(), 0);
}

#[test]
fn access_policies_add_up_and_hold_for_their_ports() {
    let policy = |policy: &str, target, ports: &[u16], strict, deny: &[bool]| {
        Object::AccessPolicy(AccessPolicy {
            uid: String::new(),
            name: name(policy),
            generation: 0,
            targets: vec![target],
            ports: ports.iter().copied().collect(),
            strict,
            rules: deny
                .iter()
                .map(|deny| AccessRule {
                    deny: *deny,
                    ..AccessRule::default()
                })
                .collect(),
        })
    };
    let selected = AccessTarget::Selected(labels(&[("app", "cart")]));
    let index = applied([
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
        policy(
            "shop/all",
            AccessTarget::Namespace,
            &[],
            Some(true),
            &[true],
        ),
        policy("shop/web", selected, &[8080], Some(false), &[false, true]),
        policy("else/all", AccessTarget::Namespace, &[], None, &[true]),
    ]);
    let workload = index.workload(&name("shop/cart-0")).unwrap();
    let rules = |rules: &[(String, AccessRule)]| -> Vec<String> {
        rules.iter().map(|(policy, _)| policy.clone()).collect()
    };
    let (_, web) = &workload.ports[&8080];
    assert_eq!(rules(&web.deny), ["shop/all#0", "shop/web#1"]);
    assert_eq!(rules(&web.allow), ["shop/web#0"]);
    assert!(web.strict && web.default_deny);
    assert_eq!(rules(&workload.default_access.deny), ["shop/all#0"]);
    assert!(!workload.default_access.default_deny);
}

#[test]
fn services_that_disagree_on_a_pods_port_declare_nothing() {
    let with = |it: &str, ip: &str, protocol| {
        let mut it = service(it, ip, "cart");
        it.ports[0].protocol = protocol;
        Object::Service(it)
    };
    let mut index = applied([
        Object::Pod(pod("shop/cart-0", "10.0.0.1", "cart")),
        with("shop/a", "10.96.0.1", Protocol::Detect),
        with("shop/b", "10.96.0.2", Protocol::Http2),
    ]);
    let protocol = |index: &Index| index.workload(&name("shop/cart-0")).unwrap().ports[&8080].0;
    assert_eq!(protocol(&index), Protocol::Http2);
    index.apply(Event::Apply(with("shop/c", "10.96.0.3", Protocol::Opaque)));
    assert_eq!(protocol(&index), Protocol::Detect);
}

#[test]
fn an_endpoint_is_called_by_a_family_that_the_service_has() {
    let dual = Pod {
        addresses: vec![ip("10.0.0.1"), ip("fd00::1")],
        ..pod("shop/cart-0", "10.0.0.1", "cart")
    };
    let mut index = applied([
        Object::Pod(dual),
        Object::Service(service("shop/cart", "fd00:1::1", "cart")),
    ]);
    let called = |index: &Index| {
        let found = endpoints_of(index, &backend("shop/cart", 80)).unwrap();
        found.values().map(|it| it.address).collect::<Vec<_>>()
    };
    assert_eq!(called(&index), [address("[fd00::1]:8080")]);
    let changes = index.apply(Event::Apply(Object::Service(service(
        "shop/cart",
        "10.96.0.1",
        "cart",
    ))));
    assert_eq!(called(&index), [address("10.0.0.1:8080")]);
    assert!(
        changes
            .iter()
            .any(|it| matches!(it, Change::Endpoints { .. }))
    );
}

#[test]
fn a_route_says_which_of_its_backends_lead_nowhere() {
    let route = Route {
        name: name("shop/cart"),
        parents: vec![Parent {
            service: name("shop/cart"),
            port: Some(80),
            ..Parent::default()
        }],
        rules: vec![Rule {
            backends: vec![BackendRef {
                backend: backend("shop/next", 80),
                weight: 1,
                invalid: None,
                filters: Vec::new(),
            }],
            ..Rule::default()
        }],
        ..Route::default()
    };
    let mut index = applied([
        Object::Service(service("shop/cart", "10.96.0.1", "cart")),
        Object::Route(route),
    ]);
    let invalid = |index: &Index| {
        let service = index.service(&name("shop/cart")).unwrap();
        service.ports[0].routes[0].rules[0].backends[0]
            .invalid
            .as_ref()
            .map(|it| it.message.clone())
    };
    assert_eq!(
        invalid(&index).as_deref(),
        Some("there is no Service shop/next")
    );
    let next = Object::Service(service("shop/next", "10.96.0.2", "next"));
    let changes = index.apply(Event::Apply(next));
    assert_eq!(invalid(&index), None);
    assert!(changes.contains(&Change::Service(name("shop/cart"))));
    let route = key(Kind::HttpRoute, "shop/cart");
    assert!(changes.contains(&Change::Problems(route.clone())));
    assert_eq!(index.problems_of(&route), []);
}
