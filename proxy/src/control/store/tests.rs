//! What a change builds again, and what it must leave alone.

use std::sync::atomic::Ordering;

use weft_proto::v1;

use super::*;
use crate::{
    control::fake::{
        CART_ADDRESS, address, cart, endpoint, endpoints, endpoints_of, mesh, reference, resource,
        service, whole, workload,
    },
    discovery::{EndpointState, Meaning},
};

fn apply(store: &mut Store, resources: Vec<v1::Resource>) -> Applied {
    let response = v1::WatchResponse {
        resources,
        ..v1::WatchResponse::default()
    };
    store.apply(decode::response(response).resources, &[])
}

fn port(store: &Store) -> Arc<ServicePort> {
    match store.snapshot().lookup(CART_ADDRESS.parse().unwrap()) {
        Some(Meaning::Service(port)) => port.clone(),
        other => panic!("a service and not {other:?}"),
    }
}

fn with_cart() -> Store {
    let mut store = Store::new();
    apply(&mut store, vec![mesh(), workload()]);
    apply(&mut store, cart());
    store
}

/// "shop/cart" split between two services.
fn split(version: u64, weights: [u32; 2]) -> v1::Resource {
    let backends = ["one", "two"].iter().zip(weights);
    let backends = backends.map(|(name, weight)| v1::WeightedBackend {
        weight,
        service: Some(reference(name)),
        invalid: String::new(),
        filters: Vec::new(),
    });
    let rule = v1::Rule {
        backends: backends.collect(),
        ..v1::Rule::default()
    };
    let route = v1::Route {
        namespace: "shop".to_owned(),
        name: "split".to_owned(),
        rules: vec![rule],
        ..v1::Route::default()
    };
    service(version, |service| service.ports[0].routes.push(route))
}

fn backend(version: u64, name: &str, breaker: u32) -> v1::Resource {
    service(version, |service| {
        service.name = name.to_owned();
        service.policy = Some(v1::BackendPolicy {
            circuit_breaking: Some(v1::CircuitBreaking {
                consecutive_failures: breaker,
                ..v1::CircuitBreaking::default()
            }),
            ..v1::BackendPolicy::default()
        });
    })
}

fn with_split() -> Store {
    let mut store = with_cart();
    let one = endpoints_of("one", 1, whole(&[endpoint(3)]));
    let two = endpoints_of("two", 1, whole(&[endpoint(4)]));
    apply(
        &mut store,
        vec![
            one,
            two,
            backend(1, "one", 5),
            backend(1, "two", 5),
            split(21, [90, 10]),
        ],
    );
    store
}

fn rule(store: &Store) -> Arc<crate::discovery::Rule> {
    port(store).routes.as_ref().unwrap().entries[0].1.clone()
}

#[test]
fn a_route_sends_to_the_backends_that_it_names() {
    let store = with_split();
    let rule = rule(&store);
    assert_eq!((&*rule.route, rule.index), ("shop/split", 0));
    let shares: Vec<_> = rule
        .backends
        .iter()
        .map(|share| {
            let backend = share.backend.as_ref().unwrap();
            (share.weight, backend.endpoints[0].pod.to_string())
        })
        .collect();
    assert_eq!(
        shares,
        [(90, "cart-3".to_owned()), (10, "cart-4".to_owned())]
    );
}

#[test]
fn a_rule_goes_on_with_its_turns_until_its_weights_change() {
    let mut store = with_split();
    rule(&store).cells.next.store(7, Ordering::Relaxed);
    apply(
        &mut store,
        vec![
            endpoints_of("one", 2, whole(&[endpoint(5)])),
            split(22, [90, 10]),
        ],
    );
    assert_eq!(rule(&store).cells.next.load(Ordering::Relaxed), 7);
    assert_eq!(
        &*rule(&store).backends[0].backend.as_ref().unwrap().endpoints[0].pod,
        "cart-5"
    );
    apply(&mut store, vec![split(23, [50, 50])]);
    assert_eq!(rule(&store).cells.next.load(Ordering::Relaxed), 0);
}

#[test]
fn a_change_reaches_the_routes_that_send_there_and_nothing_else() {
    let mut store = with_split();
    let before = rule(&store);
    apply(&mut store, vec![backend(2, "one", 9)]);
    let after = rule(&store);
    let of = |rule: &crate::discovery::Rule, at: usize| rule.backends[at].backend.clone().unwrap();
    assert_eq!(
        of(&after, 0).policy.circuit_breaking.consecutive_failures,
        9
    );
    assert!(Arc::ptr_eq(&of(&before, 0).cells, &of(&after, 0).cells));
    assert!(Arc::ptr_eq(
        &of(&before, 0).endpoints[0],
        &of(&after, 0).endpoints[0]
    ));
    assert!(Arc::ptr_eq(&of(&before, 1), &of(&after, 1)));
    let unrelated = port(&store);
    apply(
        &mut store,
        vec![endpoints_of("three", 1, whole(&[endpoint(6)]))],
    );
    assert!(Arc::ptr_eq(&unrelated, &port(&store)));
}

#[test]
fn what_a_route_names_and_nobody_described_is_invalid() {
    let mut store = with_cart();
    apply(&mut store, vec![split(21, [1, 1])]);
    for share in &rule(&store).backends {
        let why = share.backend.as_ref().unwrap_err();
        assert!(why.ends_with(":80 is not known"), "{why}");
    }
}

#[test]
fn a_rule_without_backends_sends_to_the_service_itself() {
    let mut store = with_cart();
    let route = v1::Route {
        rules: vec![v1::Rule::default()],
        ..v1::Route::default()
    };
    apply(
        &mut store,
        vec![service(21, |service| service.ports[0].routes.push(route))],
    );
    let port = port(&store);
    assert!(Arc::ptr_eq(
        rule(&store).backends[0].backend.as_ref().unwrap(),
        &port.default
    ));
}

#[test]
fn an_address_whose_service_is_gone_is_not_answered() {
    let mut store = with_cart();
    let key = Key::Service(ServiceName {
        namespace: "shop".into(),
        name: "cart".into(),
    });
    store.forget(&[key]);
    assert!(store.snapshot().addresses.is_empty());
    apply(&mut store, vec![service(21, |_| {})]);
    assert_eq!(port(&store).default.endpoints.len(), 2);
    apply(
        &mut store,
        vec![service(22, |service| service.ports[0].port = 81)],
    );
    assert!(store.snapshot().addresses.is_empty());
}

#[test]
fn one_workload_has_one_key_and_cells_of_its_own_in_each_backend() {
    let mut store = with_split();
    apply(
        &mut store,
        vec![endpoints_of("one", 2, whole(&[endpoint(1)]))],
    );
    let here = port(&store).default.endpoints[0].clone();
    let there = rule(&store).backends[0].backend.as_ref().unwrap().endpoints[0].clone();
    assert_eq!((here.key, &here.uid), (there.key, &there.uid));
    assert!(!Arc::ptr_eq(&here.cells, &there.cells));
}

#[test]
fn a_key_is_never_used_again() {
    let mut store = with_cart();
    let first = port(&store).default.endpoints[0].clone();
    apply(&mut store, vec![endpoints(11, whole(&[endpoint(2)]))]);
    apply(
        &mut store,
        vec![endpoints(12, whole(&[endpoint(1), endpoint(2)]))],
    );
    let again = port(&store).default.endpoints[0].clone();
    assert_eq!(first.uid, again.uid);
    assert_ne!(first.key, again.key);
}

#[test]
fn an_endpoint_that_drains_or_moves_keeps_its_cells() {
    let mut store = with_cart();
    let before = port(&store).default.endpoints[0].clone();
    before.cells.in_flight.store(3, Ordering::Relaxed);
    let mut change = endpoint(1);
    change.address = "10.0.0.77".to_owned();
    change.set_state(v1::EndpointState::Draining);
    let delta = v1::Endpoints {
        base: 10,
        added_or_updated: vec![change],
        ..v1::Endpoints::default()
    };
    apply(&mut store, vec![endpoints(11, delta)]);
    let port = port(&store);
    assert_eq!(port.default.ready().len(), 1);
    // Ready ones come first.
    let after = &port.default.endpoints[1];
    assert_eq!(after.key, before.key);
    assert_eq!(after.address, "10.0.0.77:8080".parse().unwrap());
    assert_eq!(after.cells.in_flight.load(Ordering::Relaxed), 3);
}

/// Our workload, on `node`.
fn placed(version: u64, node: &str) -> v1::Resource {
    let mut resource = workload();
    resource.version = version;
    if let Some(v1::resource::Body::Workload(it)) = &mut resource.body {
        it.node = node.to_owned();
    }
    resource
}

#[test]
fn what_a_service_asks_of_balancing_is_held_against_our_own_place() {
    let mut store = with_cart();
    let on = |last: u8, node: &str| v1::Endpoint {
        node: node.to_owned(),
        hint_zones: vec![format!("zone-{last}")],
        ..endpoint(last)
    };
    let asking = service(21, |service| {
        service.own_node_only = true;
        service.affinity_seconds = 60;
    });
    let set = endpoints(11, whole(&[on(1, "a"), on(2, "b")]));
    apply(&mut store, vec![asking, set]);
    let policy = port(&store).default.policy.clone();
    assert_eq!(policy.affinity, Some(std::time::Duration::from_secs(60)));
    assert!(policy.own_node_only);
    let pods = |store: &Store| -> Vec<String> {
        let port = port(store);
        let ready = port.default.ready().iter();
        ready.map(|it| it.pod.to_string()).collect()
    };
    // Nobody has said where we are, and both are somewhere.
    assert!(pods(&store).is_empty());
    apply(&mut store, vec![placed(3, "b")]);
    assert_eq!(pods(&store), ["cart-2"]);
    assert_eq!(&*port(&store).default.endpoints[0].hints.zones[0], "zone-2");
    // Nothing else is built again where the place stays what it was.
    let before = port(&store);
    apply(&mut store, vec![placed(4, "b")]);
    assert!(Arc::ptr_eq(&before, &port(&store)));
    apply(&mut store, vec![placed(5, "a")]);
    assert_eq!(pods(&store), ["cart-1"]);
    // And so after a restart.
    let mut again = Store::new();
    let kept = decode::response_from_bytes(&store.to_bytes()).unwrap();
    again.apply(kept.resources, &[]);
    assert_eq!(pods(&again), ["cart-1"]);
}

#[test]
fn a_pod_s_own_address_is_a_backend_of_one() {
    let mut store = Store::new();
    let mut pod = endpoint(1);
    (pod.address, pod.port) = ("10.1.0.1".to_owned(), 80);
    apply(
        &mut store,
        vec![address(1, v1::address::Meaning::Workload(pod.clone()))],
    );
    let at = CART_ADDRESS.parse().unwrap();
    let snapshot = store.snapshot();
    let Some(Meaning::Workload(before)) = snapshot.lookup(at) else {
        panic!("a workload")
    };
    assert_eq!(before.service.to_string(), "shop/cart-1");
    pod.set_state(v1::EndpointState::Draining);
    apply(
        &mut store,
        vec![address(2, v1::address::Meaning::Workload(pod))],
    );
    let snapshot = store.snapshot();
    let Some(Meaning::Workload(after)) = snapshot.lookup(at) else {
        panic!("a workload")
    };
    // Whoever calls a pod by its address wants that pod, while it drains too.
    assert_eq!(after.ready().len(), 1);
    assert_eq!(after.endpoints[0].state, EndpointState::Draining);
    assert_eq!(before.endpoints[0].key, after.endpoints[0].key);
    assert!(Arc::ptr_eq(&before.cells, &after.cells));
}

#[test]
fn what_is_kept_is_the_same_after_a_restart() {
    let store = with_split();
    let mut again = Store::new();
    let kept = decode::response_from_bytes(&store.to_bytes()).unwrap();
    let applied = again.apply(kept.resources, &[]);
    assert!(applied.rejected.is_empty() && applied.incomplete.is_empty());
    let sorted = |store: &Store| {
        let mut held = store.held();
        held.sort();
        held
    };
    assert_eq!(sorted(&again), sorted(&store));
    assert_eq!(
        again.snapshot().workload.as_ref().unwrap().pod,
        "shop-0".into()
    );
    let pods = |store: &Store| {
        let port = port(store);
        let endpoints = port.default.endpoints.iter();
        endpoints
            .map(|endpoint| endpoint.pod.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(pods(&again), pods(&store));
    assert_eq!(rule(&again).backends.len(), 2);
}

#[test]
fn roots_are_handed_on_and_never_taken_away() {
    let authority = crate::tls::authority::Authority::new("root");
    let mut store = Store::new();
    let roots = vec![authority.root.to_vec().into()];
    let body = v1::resource::Body::TrustBundle(v1::TrustBundle { roots });
    let applied = apply(
        &mut store,
        vec![resource(v1::Kind::TrustBundle, "", 5, body)],
    );
    assert_eq!(applied.bundle, Some(authority.bundle()));
    assert_eq!(store.version(&Key::TrustBundle), Some(5));
    let empty = v1::resource::Body::TrustBundle(v1::TrustBundle::default());
    let applied = apply(
        &mut store,
        vec![resource(v1::Kind::TrustBundle, "", 6, empty)],
    );
    assert!(applied.bundle.is_none() && applied.rejected.len() == 1);
}

fn filter(kind: v1::filter::Kind) -> v1::Filter {
    v1::Filter { kind: Some(kind) }
}

fn sets(name: &str, value: &str) -> v1::Filter {
    filter(v1::filter::Kind::RequestHeaders(v1::HeaderModifier {
        set: vec![v1::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        }],
        ..v1::HeaderModifier::default()
    }))
}

fn mirror_to(name: &str) -> v1::Filter {
    filter(v1::filter::Kind::Mirror(v1::Mirror {
        service: Some(reference(name)),
        invalid: String::new(),
        numerator: 1,
        denominator: 1,
    }))
}

/// "shop/cart" with one rule, to "one".
fn with_rule(change: impl FnOnce(&mut v1::Rule)) -> Store {
    let mut store = with_cart();
    let mut rule = v1::Rule {
        backends: vec![v1::WeightedBackend {
            weight: 1,
            service: Some(reference("one")),
            ..v1::WeightedBackend::default()
        }],
        ..v1::Rule::default()
    };
    change(&mut rule);
    let route = v1::Route {
        namespace: "shop".to_owned(),
        name: "filtered".to_owned(),
        rules: vec![rule],
        ..v1::Route::default()
    };
    let names = [("one", 3), ("two", 4)];
    let mut resources: Vec<_> = names
        .iter()
        .map(|(name, pod)| endpoints_of(name, 1, whole(&[endpoint(*pod)])))
        .collect();
    resources.extend(names.map(|(name, _)| backend(1, name, 5)));
    resources.push(service(21, |service| service.ports[0].routes.push(route)));
    let applied = apply(&mut store, resources);
    assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    store
}

fn filters(store: &Store) -> Arc<crate::discovery::Filters> {
    rule(store).backends[0].filters.clone().unwrap()
}

#[test]
fn a_rule_s_filters_come_before_its_backend_s() {
    let store = with_rule(|rule| {
        rule.filters = vec![sets("x-who", "rule"), mirror_to("two")];
        rule.backends[0].filters = vec![sets("x-who", "backend")];
    });
    let filters = filters(&store);
    let fields: Vec<_> = filters.request.fields.added().collect();
    assert_eq!(fields.len(), 1);
    assert_eq!(fields[0].1, "backend");
    let mirrored = filters.mirrors[0].backend.as_ref().unwrap();
    assert_eq!(&*mirrored.endpoints[0].pod, "cart-4");
    let without = with_rule(|_| {});
    assert!(rule(&without).backends[0].filters.is_none());
}

#[test]
fn a_change_of_a_mirror_s_endpoints_reaches_the_rule() {
    let mut store = with_rule(|rule| rule.filters = vec![mirror_to("two")]);
    apply(
        &mut store,
        vec![endpoints_of("two", 2, whole(&[endpoint(7)]))],
    );
    let filters = filters(&store);
    let mirrored = filters.mirrors[0].backend.as_ref().unwrap();
    assert_eq!(&*mirrored.endpoints[0].pod, "cart-7");
    assert_eq!(rule(&store).destinations().count(), 2);
}

/// HTTPRequestRedirectFilter.port: the parent's where nothing is given.
#[test]
fn a_redirect_asks_no_backend_and_knows_its_parent() {
    let redirect = |scheme: &str| {
        let redirect = v1::Redirect {
            scheme: scheme.to_owned(),
            status: 301,
            ..v1::Redirect::default()
        };
        filter(v1::filter::Kind::Redirect(redirect))
    };
    let store = with_rule(|rule| {
        rule.filters = vec![redirect("https")];
        rule.backends[0].weight = 0;
    });
    let redirect = filters(&store).redirect.clone().unwrap();
    assert_eq!(
        (redirect.scheme, &*redirect.port, redirect.status),
        ("https", "", 301)
    );
    assert_eq!(&*redirect.service_host, "cart.shop");
    // Weights of what is never asked can't refuse.
    assert_eq!(rule(&store).schedule.at(0), Some(0));
}

/// GEP-1731. Counters and endpoints are those of everyone's view.
#[test]
fn a_rule_s_retries_go_before_the_policy_s_and_share_its_counters() {
    let store = with_rule(|rule| {
        rule.retry = Some(v1::RouteRetry {
            codes: vec![500, 503],
            attempts: 3,
            backoff_milliseconds: 100,
        });
    });
    let own = rule(&store).backends[0].backend.clone().unwrap();
    let retries = &own.policy.retries;
    assert_eq!(
        (retries.attempts, &retries.status_codes[..]),
        (3, &[500, 503][..])
    );
    assert_eq!(retries.least_backoff, std::time::Duration::from_millis(100));
    assert_eq!(own.policy.circuit_breaking.consecutive_failures, 5);
    let target = Target {
        service: own.service.clone(),
        port: own.port,
    };
    let shared = &store.backends[&target];
    assert_eq!(shared.policy.retries.attempts, 0);
    assert!(Arc::ptr_eq(&shared.cells, &own.cells));
    assert!(Arc::ptr_eq(&shared.endpoints[0], &own.endpoints[0]));
}
