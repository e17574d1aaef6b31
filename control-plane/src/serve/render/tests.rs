//! What each feature carries, and what those without it get.

use super::*;
use crate::model::{
    BackendName, BackendPolicy, BackendRef, Broken, Cors, Filter, GrpcMatch, HeaderModifier, Match,
    Mirror, Name, PathMatch, PathModifier, Pod, Reason, Redirect, Refused, Rewrite, Route,
    RouteKind, RouteRetry, Rule, TextMatch,
};

fn any_request() -> Rule {
    Rule {
        matches: vec![Match::default()],
        ..Rule::default()
    }
}

fn cart(namespace: &str) -> ResolvedService {
    let name = Name::new("shop", "cart");
    let route = Route {
        name: Name::new(namespace, "split"),
        rules: vec![any_request()],
        ..Route::default()
    };
    let port = ResolvedPort {
        port: 80,
        name: String::new(),
        protocol: Protocol::Detect,
        routes: vec![route],
    };
    ResolvedService {
        name,
        ports: vec![port],
        policy: BackendPolicy::default(),
        own_node_only: false,
        affinity_seconds: 0,
    }
}

fn view(features: &[&str], namespace: &str) -> View {
    let features: Vec<String> = features.iter().map(|&it| it.to_owned()).collect();
    View {
        features: Features::parse(&features),
        namespace: namespace.into(),
    }
}

#[test]
fn a_route_that_a_proxy_cannot_express_refuses_everything_and_is_told() {
    let mut denied = Vec::new();
    let old = service(&cart("shop"), &view(&[], "shop"), &mut denied);
    assert_eq!(
        (
            old.ports[0].routes.len(),
            old.ports[0].routes[0].rules.len()
        ),
        (1, 0)
    );
    assert_eq!(denied, ["HTTPRoute shop/split: needs http-route/v1"]);
    let new = service(
        &cart("shop"),
        &view(&["http-route/v1", "future/v9"], "shop"),
        &mut Vec::new(),
    );
    assert_eq!(new.ports[0].routes[0].rules.len(), 1);
}

#[test]
fn a_consumers_route_holds_for_its_own_namespace_alone() {
    let features = ["http-route/v1"];
    let own = service(
        &cart("billing"),
        &view(&features, "billing"),
        &mut Vec::new(),
    );
    let other = service(&cart("billing"), &view(&features, "web"), &mut Vec::new());
    assert_eq!(
        (own.ports[0].routes.len(), other.ports[0].routes.len()),
        (1, 0)
    );
}

#[test]
fn access_rules_that_a_proxy_cannot_express_deny_all() {
    let allow = vec![("shop/readers#0".to_owned(), AccessRule::default())];
    let pod = Pod {
        name: Name::new("shop", "cart-0"),
        ..Pod::default()
    };
    let default_access = ResolvedAccess {
        allow,
        ..ResolvedAccess::default()
    };
    let from = ResolvedWorkload {
        pod,
        meshed: true,
        ports: Default::default(),
        default_access,
    };
    let mut denied = Vec::new();
    let access = workload(&from, Features::default(), &mut denied)
        .default_access
        .unwrap();
    assert!(access.default_deny && access.allow.is_empty() && access.mtls() == v1::Mtls::Strict);
    assert_eq!(
        denied,
        ["AccessPolicy shop/readers#0: needs access-policy/v1"]
    );
    let access = workload(&from, Features::ACCESS_POLICY, &mut denied)
        .default_access
        .unwrap();
    assert_eq!(access.allow.len(), 1);
}

/// As a proxy in `shop` with these features gets it, and what is told of it.
fn rendered(route: Route, features: &[&str]) -> (v1::Route, Vec<String>) {
    let mut from = cart("shop");
    from.ports[0].routes = vec![Route {
        name: Name::new("shop", "split"),
        ..route
    }];
    let mut denied = Vec::new();
    let mut to = service(&from, &view(features, "shop"), &mut denied);
    (to.ports[0].routes.remove(0), denied)
}

fn with_rule(rule: Rule) -> Route {
    Route {
        rules: vec![rule],
        ..Route::default()
    }
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn everything_that_a_route_says_is_on_the_wire() {
    let backend = |name: &str| BackendName {
        service: Name::new("shop", name),
        port: 80,
    };
    let headers = HeaderModifier {
        set: vec![header("a", "1")],
        add: vec![header("b", "2")],
        remove: vec!["c".to_owned()],
    };
    let rule = Rule {
        name: "all".to_owned(),
        matches: vec![Match {
            path: PathMatch::Expression("/a.*".to_owned()),
            headers: vec![("x".to_owned(), TextMatch::Expression("y+".to_owned()))],
            query: vec![("q".to_owned(), TextMatch::Exact("r".to_owned()))],
            method: "POST".to_owned(),
            grpc: GrpcMatch::default(),
        }],
        filters: vec![
            Filter::RequestHeaders(headers.clone()),
            Filter::Rewrite(Rewrite {
                hostname: "h".to_owned(),
                path: Some(PathModifier::Full("/f".to_owned())),
            }),
            Filter::Mirror(Mirror {
                backend: backend("shadow"),
                invalid: Some(Broken {
                    reason: Reason::BackendNotFound,
                    message: "gone".to_owned(),
                }),
                numerator: 1,
                denominator: 3,
            }),
            Filter::Cors(Cors {
                allow_origins: vec!["*".to_owned()],
                allow_credentials: true,
                allow_methods: vec!["GET".to_owned()],
                allow_headers: vec!["h".to_owned()],
                expose_headers: vec!["e".to_owned()],
                max_age_seconds: 7,
            }),
        ],
        backends: vec![BackendRef {
            backend: backend("next"),
            weight: 3,
            invalid: None,
            filters: vec![
                Filter::ResponseHeaders(headers),
                Filter::Redirect(Redirect {
                    scheme: "https".to_owned(),
                    hostname: "r".to_owned(),
                    path: Some(PathModifier::Prefix("/p".to_owned())),
                    port: 8443,
                    status: 308,
                }),
            ],
        }],
        request_timeout_milliseconds: 5,
        backend_timeout_milliseconds: 4,
        retry: Some(RouteRetry {
            codes: vec![503],
            attempts: 2,
            backoff_milliseconds: 9,
        }),
        refused: None,
    };
    let (route, denied) = rendered(with_rule(rule), &["http-route/v2"]);
    assert_eq!((route.kind(), denied), (v1::RouteKind::HttpRoute, vec![]));
    let said = |name: &str, value: &str| v1::Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let modifier = v1::HeaderModifier {
        set: vec![said("a", "1")],
        add: vec![said("b", "2")],
        remove: vec!["c".to_owned()],
    };
    let service = |name: &str| v1::ServiceRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 80,
    };
    let filter = |kind| v1::Filter { kind: Some(kind) };
    use v1::filter::Kind;
    let expected = v1::Rule {
        name: "all".to_owned(),
        matches: vec![v1::Match {
            path: Some(v1::PathMatch {
                kind: Some(v1::path_match::Kind::RegularExpression("/a.*".to_owned())),
            }),
            headers: vec![v1::HeaderMatch {
                name: "x".to_owned(),
                value: "y+".to_owned(),
                regular_expression: true,
            }],
            query: vec![v1::QueryMatch {
                name: "q".to_owned(),
                value: "r".to_owned(),
                regular_expression: false,
            }],
            method: "POST".to_owned(),
            grpc: None,
        }],
        backends: vec![v1::WeightedBackend {
            weight: 3,
            service: Some(service("next")),
            invalid: String::new(),
            filters: vec![
                filter(Kind::ResponseHeaders(modifier.clone())),
                filter(Kind::Redirect(v1::Redirect {
                    scheme: "https".to_owned(),
                    hostname: "r".to_owned(),
                    path: Some(v1::PathModifier {
                        kind: Some(v1::path_modifier::Kind::Prefix("/p".to_owned())),
                    }),
                    port: 8443,
                    status: 308,
                })),
            ],
        }],
        request_timeout_milliseconds: 5,
        backend_timeout_milliseconds: 4,
        filters: vec![
            filter(Kind::RequestHeaders(modifier)),
            filter(Kind::Rewrite(v1::Rewrite {
                hostname: "h".to_owned(),
                path: Some(v1::PathModifier {
                    kind: Some(v1::path_modifier::Kind::Full("/f".to_owned())),
                }),
            })),
            filter(Kind::Mirror(v1::Mirror {
                service: Some(service("shadow")),
                invalid: "gone".to_owned(),
                numerator: 1,
                denominator: 3,
            })),
            filter(Kind::Cors(v1::Cors {
                allow_origins: vec!["*".to_owned()],
                allow_credentials: true,
                allow_methods: vec!["GET".to_owned()],
                allow_headers: vec!["h".to_owned()],
                expose_headers: vec!["e".to_owned()],
                max_age_seconds: 7,
            })),
        ],
        retry: Some(v1::RouteRetry {
            codes: vec![503],
            attempts: 2,
            backoff_milliseconds: 9,
        }),
    };
    assert_eq!(route.rules, [expected]);
}

#[test]
fn a_grpc_route_says_service_and_method_and_that_it_is_one() {
    let rule = Rule {
        matches: vec![Match {
            grpc: GrpcMatch {
                service: "shop.Cart".to_owned(),
                method: "Add".to_owned(),
                expression: false,
            },
            ..Match::default()
        }],
        ..Rule::default()
    };
    let route = Route {
        kind: RouteKind::Grpc,
        ..with_rule(rule)
    };
    let (rendered_whole, _) = rendered(route.clone(), &["http-route/v2"]);
    assert_eq!(rendered_whole.kind(), v1::RouteKind::GrpcRoute);
    let matched = rendered_whole.rules[0].matches[0].clone();
    assert_eq!(matched.path, None);
    let grpc = matched.grpc.unwrap();
    assert_eq!(
        (grpc.service.as_str(), grpc.method.as_str()),
        ("shop.Cart", "Add")
    );
    let (lesser, denied) = rendered(route, &["http-route/v1"]);
    assert_eq!(
        (lesser.kind(), lesser.rules),
        (v1::RouteKind::HttpRoute, vec![])
    );
    assert_eq!(denied, ["GRPCRoute shop/split: needs http-route/v2"]);
}

/// The proxy knows the requests, so that only these are refused.
#[test]
fn a_rule_that_an_old_proxy_cannot_carry_out_is_an_error_there() {
    let plain = Rule {
        name: "plain".to_owned(),
        ..any_request()
    };
    let filtered = Rule {
        name: "filtered".to_owned(),
        filters: vec![Filter::RequestHeaders(HeaderModifier::default())],
        ..any_request()
    };
    let route = Route {
        rules: vec![plain, filtered],
        ..Route::default()
    };
    let (lesser, denied) = rendered(route, &["http-route/v1"]);
    let shares: Vec<_> = lesser
        .rules
        .iter()
        .map(|it| (it.name.as_str(), it.filters.len(), it.backends.len()))
        .collect();
    assert_eq!(shares, [("plain", 0, 0), ("filtered", 0, 1)]);
    let refused = &lesser.rules[1].backends[0];
    assert_eq!(refused.weight, 1);
    assert!(refused.invalid.contains("http-route/v2"), "{refused:?}");
    assert_eq!(denied, ["HTTPRoute shop/split: needs http-route/v2"]);
}

/// Which requests they are it can't tell, so that another rule might open them.
#[test]
fn a_match_that_an_old_proxy_does_not_know_closes_the_port_for_it() {
    let matches = [
        Match {
            path: PathMatch::Expression("/a".to_owned()),
            ..Match::default()
        },
        Match {
            method: "GET".to_owned(),
            ..Match::default()
        },
        Match {
            query: vec![("a".to_owned(), TextMatch::Exact("b".to_owned()))],
            ..Match::default()
        },
        Match {
            headers: vec![("a".to_owned(), TextMatch::Expression("b".to_owned()))],
            ..Match::default()
        },
    ];
    for unknown in matches {
        let other = Route {
            name: Name::new("shop", "other"),
            ..with_rule(any_request())
        };
        let strange = Route {
            name: Name::new("shop", "strange"),
            ..with_rule(Rule {
                matches: vec![unknown],
                ..Rule::default()
            })
        };
        let mut from = cart("shop");
        from.ports[0].routes = vec![strange, other];
        let mut denied = Vec::new();
        let to = service(&from, &view(&["http-route/v1"], "shop"), &mut denied);
        let rules = to.ports[0].routes.iter().map(|it| it.rules.len());
        assert_eq!(rules.collect::<Vec<_>>(), [0, 0]);
        assert_eq!(denied, ["HTTPRoute shop/strange: needs http-route/v2"]);
    }
}

#[test]
fn a_refused_rule_is_an_error_for_what_it_matches_and_nothing_without_matches() {
    let refused = || {
        Some(Refused {
            reason: Reason::UnsupportedValue,
            field: "spec.rules[0].filters[0].type".to_owned(),
            message: "is not carried".to_owned(),
            remedy: "remove it".to_owned(),
        })
    };
    let known = Rule {
        refused: refused(),
        ..any_request()
    };
    let unknown = Rule {
        refused: refused(),
        ..Rule::default()
    };
    let route = Route {
        rules: vec![unknown, known],
        ..Route::default()
    };
    for features in ["http-route/v1", "http-route/v2"] {
        let (to, denied) = rendered(route.clone(), &[features]);
        assert_eq!((to.rules.len(), denied.len()), (1, 0));
        let backend = &to.rules[0].backends[0];
        assert_eq!(
            backend.invalid,
            "spec.rules[0].filters[0].type is not carried"
        );
    }
}
