//! HTTPRoute and GRPCRoute, clause by clause: what is taken, and what is refused.

use serde_json::json;

use super::*;
use crate::model::{
    BackendName, BackendRef, Broken, Cors, Filter, GrpcMatch, HeaderModifier, Match, Mirror,
    Parent, PathMatch, PathModifier, Reason, Redirect, Reference, Rewrite, Route, RouteKind,
    RouteRetry, Rule, TextMatch,
};

fn route(text: &str) -> Route {
    match only(text) {
        Object::Route(route) => route,
        other => panic!("{other:?}"),
    }
}

/// An API server's, with these rules.
#[allow(clippy::needless_pass_by_value, reason = "each is written in place")]
fn stored(kind: RouteKind, rules: Value) -> Route {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop", "generation": 7, "unheardOf": true},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": rules},
    });
    route::of_cluster(kind, &object).unwrap()
}

fn http(rules: Value) -> Route {
    stored(RouteKind::Http, rules)
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.to_owned())
}

fn expression(text: &str) -> TextMatch {
    TextMatch::Expression(text.to_owned())
}

fn backend(namespace: &str, name: &str, port: u16) -> BackendName {
    BackendName {
        service: Name::new(namespace, name),
        port,
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_route_is_its_service_parents_and_rules() {
    let route = route(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  hostnames: [cart.example.com]
  parentRefs:
  - {name: gateway}
  - {group: '', kind: Service, name: cart, port: 80}
  - {group: '', kind: Service, name: other, namespace: else}
  rules:
  - name: canary
    matches:
    - path: {type: Exact, value: /a}
      headers: [{name: X-Version, value: two}, {name: w, type: RegularExpression, value: 'a|b'}]
      queryParams: [{name: Q, value: r}, {name: s, type: RegularExpression, value: t+}]
      method: DELETE
    - {headers: [{name: x, value: z}]}
    - {path: {type: RegularExpression, value: '/v[0-9]+/.*'}}
    timeouts: {request: 1s500ms, backendRequest: 500ms}
    retry: {codes: [500, 503], attempts: 3, backoff: 100ms}
    backendRefs:
    - {name: cart-v1, port: 80, weight: 90}
    - {name: cart-v2, namespace: next, port: 8080}
    - {name: bucket, group: example.com, kind: Bucket}
",
    );
    let parent = |position, namespace: Option<&str>, name: &str, port: Option<u16>| Parent {
        position,
        service: Name::new(namespace.unwrap_or("shop"), name),
        port,
        reference: Reference {
            group: Some(String::new()),
            kind: Some("Service".to_owned()),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            section: None,
            port: port.map(i32::from),
        },
        refused: None,
    };
    assert_eq!(
        route.parents,
        [
            parent(1, None, "cart", Some(80)),
            parent(2, Some("else"), "other", None)
        ]
    );
    let to = |backend, weight| BackendRef {
        backend,
        weight,
        invalid: None,
        filters: Vec::new(),
    };
    let expected = Rule {
        name: "canary".to_owned(),
        matches: vec![
            Match {
                path: PathMatch::Exact("/a".to_owned()),
                headers: vec![
                    ("x-version".to_owned(), exact("two")),
                    ("w".to_owned(), expression("a|b")),
                ],
                query: vec![
                    ("Q".to_owned(), exact("r")),
                    ("s".to_owned(), expression("t+")),
                ],
                method: "DELETE".to_owned(),
                ..Match::default()
            },
            Match {
                headers: vec![("x".to_owned(), exact("z"))],
                ..Match::default()
            },
            Match {
                path: PathMatch::Expression("/v[0-9]+/.*".to_owned()),
                ..Match::default()
            },
        ],
        backends: vec![
            to(backend("shop", "cart-v1", 80), 90),
            // GEP-1294: another namespace needs no ReferenceGrant in a mesh.
            to(backend("next", "cart-v2", 8080), 1),
            BackendRef {
                invalid: Some(Broken {
                    reason: Reason::InvalidKind,
                    message: "backends of kind Bucket are not known".to_owned(),
                }),
                ..to(backend("shop", "bucket", 0), 1)
            },
        ],
        request_timeout_milliseconds: 1_500,
        backend_timeout_milliseconds: 500,
        retry: Some(RouteRetry {
            codes: vec![500, 503],
            attempts: 3,
            backoff_milliseconds: 100,
        }),
        ..Rule::default()
    };
    assert_eq!(route.rules, [expected]);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_filter_arrives_with_all_that_it_says() {
    let headers = HeaderModifier {
        set: pairs(&[("x-set", "1")]),
        add: pairs(&[("x-add", "2")]),
        remove: vec!["x-remove".to_owned()],
    };
    let modifier = json!({
        "set": [{"name": "X-Set", "value": "1"}],
        "add": [{"name": "x-add", "value": "2"}],
        "remove": ["X-Remove"],
    });
    let mirror = |numerator, denominator| {
        Filter::Mirror(Mirror {
            backend: backend("shop", "shadow", 80),
            invalid: None,
            numerator,
            denominator,
        })
    };
    let shadow = json!({"name": "shadow", "port": 80});
    let redirect = |it: Redirect| Filter::Redirect(it);
    let text = str::to_owned;
    let cases = [
        (
            json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}),
            Filter::RequestHeaders(headers.clone()),
        ),
        (
            json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": modifier}),
            Filter::ResponseHeaders(headers),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": shadow}}),
            mirror(1, 1),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": shadow, "percent": 25}}),
            mirror(25, 100),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": shadow, "fraction": {"numerator": 5}}}),
            mirror(5, 100),
        ),
        (
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": shadow, "fraction": {"numerator": 1, "denominator": 3}}}),
            mirror(1, 3),
        ),
        // HTTPRequestRedirectFilter.statusCode: 302 unless said.
        (
            json!({"type": "RequestRedirect", "requestRedirect": {}}),
            redirect(Redirect {
                status: 302,
                ..Redirect::default()
            }),
        ),
        (
            json!({"type": "RequestRedirect", "requestRedirect": {
                "scheme": "https", "hostname": "example.org", "port": 8443, "statusCode": 308,
                "path": {"type": "ReplaceFullPath", "replaceFullPath": "/full"},
            }}),
            redirect(Redirect {
                scheme: text("https"),
                hostname: text("example.org"),
                path: Some(PathModifier::Full(text("/full"))),
                port: 8443,
                status: 308,
            }),
        ),
        (
            json!({"type": "URLRewrite", "urlRewrite": {
                "hostname": "one.example.org",
                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"},
            }}),
            Filter::Rewrite(Rewrite {
                hostname: text("one.example.org"),
                path: Some(PathModifier::Prefix(text("/b"))),
            }),
        ),
        // An empty replacement strips the prefix.
        (
            json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}}}),
            Filter::Rewrite(Rewrite {
                hostname: String::new(),
                path: Some(PathModifier::Prefix(text("/"))),
            }),
        ),
        // HTTPCORSFilter.maxAge: 5 seconds unless said.
        (
            json!({"type": "CORS", "cors": {
                "allowOrigins": ["https://a.example", "https://*.b.example:8443"], "allowCredentials": true,
                "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-a"], "exposeHeaders": ["*"],
            }}),
            Filter::Cors(Cors {
                allow_origins: vec![text("https://a.example"), text("https://*.b.example:8443")],
                allow_credentials: true,
                allow_methods: vec![text("GET"), text("PUT")],
                allow_headers: vec![text("x-a")],
                expose_headers: vec![text("*")],
                max_age_seconds: 5,
            }),
        ),
    ];
    for (said, expected) in cases {
        let matches = json!([{"path": {"type": "PathPrefix", "value": "/a"}}]);
        let rule = http(json!([{"matches": matches, "filters": [said]}]))
            .rules
            .remove(0);
        assert_eq!(
            (rule.refused, rule.filters),
            (None, vec![expected.clone()]),
            "{said}"
        );
        let refs = json!([{"name": "a", "port": 80, "filters": [said]}]);
        let rule = http(json!([{"matches": matches, "backendRefs": refs}]))
            .rules
            .remove(0);
        assert_eq!(
            (rule.refused, &rule.backends[0].filters),
            (None, &vec![expected]),
            "{said}"
        );
    }
}

#[test]
fn several_mirrors_stand_in_one_rule() {
    let mirror = |name: &str| json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}}});
    let rule = http(json!([{"filters": [mirror("a"), mirror("b")]}]))
        .rules
        .remove(0);
    assert_eq!((rule.refused, rule.filters.len()), (None, 2));
}

/// (rule, field below it, reason, part of the message)
#[allow(clippy::too_many_lines, reason = "a table")]
fn refused_rules() -> Vec<(Value, &'static str, Reason, &'static str)> {
    use Reason::{IncompatibleFilters, UnsupportedValue};
    let filters = |filters: Value| json!({"filters": filters});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}});
    let set = |name: &str| {
        filters(json!([{"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": name, "value": "v"}]}}]))
    };
    let mirror = |more: Value| {
        let mut mirror = json!({"backendRef": {"name": "a", "port": 80}});
        let more = more.as_object().unwrap().clone();
        mirror.as_object_mut().unwrap().extend(more);
        filters(json!([{"type": "RequestMirror", "requestMirror": mirror}]))
    };
    let prefix = json!({"type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}});
    vec![
        // HTTPRouteFilter.extensionRef, .externalAuth: implementation-specific.
        (
            filters(
                json!([{"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "C", "name": "d"}}]),
            ),
            "filters[0].type",
            UnsupportedValue,
            "not carried",
        ),
        (
            filters(
                json!([{"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "a"}}}]),
            ),
            "filters[0].type",
            UnsupportedValue,
            "not carried",
        ),
        // GEP-1619.
        (
            json!({"sessionPersistence": {"type": "Cookie"}}),
            "sessionPersistence",
            UnsupportedValue,
            "not carried",
        ),
        // HTTPRouteRule.filters: redirect and rewrite together; each kind once.
        (
            filters(json!([redirect, rewrite])),
            "filters[1].type",
            IncompatibleFilters,
            "makes no sense",
        ),
        (
            filters(json!([rewrite, redirect])),
            "filters[1].type",
            IncompatibleFilters,
            "makes no sense",
        ),
        (
            filters(json!([rewrite, rewrite])),
            "filters[1].type",
            IncompatibleFilters,
            "second time",
        ),
        // HTTPRouteRule: a redirect has no backends.
        (
            json!({"filters": [redirect], "backendRefs": [{"name": "a", "port": 80}]}),
            "backendRefs",
            IncompatibleFilters,
            "RequestRedirect",
        ),
        // HTTPPathModifier.replacePrefixMatch: with prefix matches alone.
        (
            json!({"matches": [{"path": {"type": "Exact", "value": "/a"}}], "filters": [prefix]}),
            "filters[0].urlRewrite.path.replacePrefixMatch",
            UnsupportedValue,
            "exactly one match",
        ),
        (
            json!({"matches": [{"path": {"value": "/a"}}, {"path": {"value": "/b"}}], "filters": [prefix]}),
            "filters[0].urlRewrite.path.replacePrefixMatch",
            UnsupportedValue,
            "exactly one match",
        ),
        (
            filters(json!([{"type": "RequestRedirect", "requestRedirect": {"statusCode": 304}}])),
            "filters[0].requestRedirect.statusCode",
            UnsupportedValue,
            "304",
        ),
        (
            filters(
                json!([{"type": "RequestRedirect", "requestRedirect": {"hostname": "*.example"}}]),
            ),
            "filters[0].requestRedirect.hostname",
            UnsupportedValue,
            "*.example",
        ),
        (
            filters(json!([{"type": "CORS", "cors": {"allowOrigins": ["a.example"]}}])),
            "filters[0].cors.allowOrigins[0]",
            UnsupportedValue,
            "a.example",
        ),
        (
            filters(json!([{"type": "CORS", "cors": {"allowOrigins": ["ws://a.example"]}}])),
            "filters[0].cors.allowOrigins[0]",
            UnsupportedValue,
            "ws:",
        ),
        (
            filters(json!([{"type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a;b"}}}])),
            "filters[0].urlRewrite.path.replaceFullPath",
            UnsupportedValue,
            "another path",
        ),
        (
            filters(json!([{"type": "CORS", "cors": {"allowMethods": ["*", "GET"]}}])),
            "filters[0].cors.allowMethods",
            UnsupportedValue,
            "beside others",
        ),
        // Headers that frame a message, or say who we are.
        (
            set("Transfer-Encoding"),
            "filters[0].requestHeaderModifier.set[0].name",
            UnsupportedValue,
            "proxies write",
        ),
        (
            set("weft-fault"),
            "filters[0].requestHeaderModifier.set[0].name",
            UnsupportedValue,
            "proxies write",
        ),
        (
            set("Host"),
            "filters[0].requestHeaderModifier.set[0].name",
            UnsupportedValue,
            "authority",
        ),
        // GEP-3171: percent or fraction, at most all.
        (
            mirror(json!({"percent": 5, "fraction": {"numerator": 1}})),
            "filters[0].requestMirror.percent",
            UnsupportedValue,
            "beside",
        ),
        (
            mirror(json!({"percent": 101})),
            "filters[0].requestMirror.percent",
            UnsupportedValue,
            "101",
        ),
        (
            mirror(json!({"fraction": {"numerator": 4, "denominator": 3}})),
            "filters[0].requestMirror.fraction.numerator",
            UnsupportedValue,
            "4",
        ),
        // GEP-1731.
        (
            json!({"retry": {"codes": [200]}}),
            "retry.codes[0]",
            UnsupportedValue,
            "200",
        ),
        // GEP-1742: one try is part of all.
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "timeouts.backendRequest",
            UnsupportedValue,
            "longer",
        ),
    ]
}

/// HTTPRouteFilter.type: a filter MUST NOT be skipped; what it would have
/// processed is an error. So the rule keeps its matches.
#[test]
fn what_cannot_be_carried_refuses_its_rule_by_field_and_leaves_the_others() {
    for (said, field, reason, message) in refused_rules() {
        let route = http(json!([said, {"name": "good"}]));
        let refused = route.rules[0].refused.clone();
        let refused = refused.unwrap_or_else(|| panic!("{said} was taken"));
        assert_eq!(refused.field, format!("spec.rules[0].{field}"), "{said}");
        assert_eq!(refused.reason, reason, "{said}");
        assert!(
            refused.message.contains(message),
            "{said}: {}",
            refused.message
        );
        assert!(!refused.remedy.is_empty());
        assert!(!route.rules[0].matches.is_empty(), "{said}");
        assert_eq!(
            (&route.rules[1].refused, &route.refused),
            (&None, &None),
            "{said}"
        );
    }
}

#[test]
fn a_match_that_cannot_be_told_refuses_its_rule_without_matches() {
    let long = format!("/{}", "a".repeat(1024));
    for (said, message) in [
        (
            json!({"path": {"type": "RegularExpression", "value": "/a("}}),
            "unclosed group",
        ),
        // Whole only inside of a group.
        (
            json!({"path": {"type": "RegularExpression", "value": "/a)(b"}}),
            "no expression",
        ),
        // No back-references, no look-around: linear time.
        (
            json!({"path": {"type": "RegularExpression", "value": r"/(a)\1"}}),
            "no expression",
        ),
        (
            json!({"path": {"type": "RegularExpression", "value": "/(?=a)"}}),
            "no expression",
        ),
        (
            json!({"path": {"type": "RegularExpression", "value": "/(a{1000}){1000}"}}),
            "memory",
        ),
        (
            json!({"path": {"type": "RegularExpression", "value": long}}),
            "bytes long",
        ),
        (
            json!({"headers": [{"name": "a", "type": "RegularExpression", "value": "["}]}),
            "no expression",
        ),
        (
            json!({"queryParams": [{"name": "a", "value": ""}]}),
            "missing",
        ),
        (
            json!({"path": {"type": "Exact", "value": "/a%2fb"}}),
            "hides a slash",
        ),
    ] {
        let rule = http(json!([{"matches": [said]}])).rules.remove(0);
        let refused = rule.refused.unwrap_or_else(|| panic!("{said} was taken"));
        assert!(
            refused.message.contains(message),
            "{said}: {}",
            refused.message
        );
        assert!(rule.matches.is_empty());
    }
}

/// HTTPHeaderMatch.name: "only the first entry with an equivalent name MUST be
/// considered".
#[test]
fn of_two_spellings_of_a_header_the_first_counts() {
    let headers = json!([{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]);
    let rule = http(json!([{"matches": [{"headers": headers}]}]))
        .rules
        .remove(0);
    assert_eq!(rule.matches[0].headers, [("x-a".to_owned(), exact("1"))]);
}

#[test]
fn of_two_rules_with_one_name_the_first_has_it() {
    let route = http(json!([{"name": "a"}, {"name": "a"}]));
    let refused: Vec<_> = route.rules.iter().map(|it| it.refused.is_some()).collect();
    assert_eq!(refused, [false, true]);
}

/// HTTPRouteSpec.rules: the CRD's default.
#[test]
fn without_rules_everything_goes_to_the_parents_own_endpoints() {
    let route = route(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}, spec: {parentRefs: [{group: '', kind: Service, name: a}]}}",
    );
    assert_eq!(route.rules.len(), 1);
    assert_eq!(route.rules[0].matches, [Match::default()]);
    assert!(route.rules[0].backends.is_empty());
}

#[test]
fn a_route_of_a_gateway_routes_nothing_here_whatever_it_uses() {
    let route = route(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edge}
spec:
  parentRefs: [{name: gateway}, {group: multicluster.x-k8s.io, kind: ServiceImport, name: a}, {group: a.b, kind: Service, name: c}]
  rules: [{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: B, name: c}}]}]
",
    );
    assert!(route.parents.is_empty() && route.rules.is_empty());
}

#[test]
fn a_parent_that_cannot_be_attached_to_is_refused_alone_and_repeated_to_the_letter() {
    for (parent, field) in [
        (
            json!({"group": "", "kind": "Service", "name": "cart", "sectionName": "http"}),
            "sectionName",
        ),
        (json!({"kind": "Service", "name": "cart"}), "group"),
        (
            json!({"group": "core", "kind": "Service", "name": "cart"}),
            "group",
        ),
        (
            json!({"group": "", "kind": "Service", "name": "Cart"}),
            "name",
        ),
        (
            json!({"group": "", "kind": "Service", "name": "cart", "port": 0}),
            "port",
        ),
    ] {
        let good = json!({"group": "", "kind": "Service", "name": "good"});
        let object = json!({
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"parentRefs": [parent, good]},
        });
        let route = route::of_cluster(RouteKind::Http, &object).unwrap();
        let refused = route.parents[0].refused.as_ref().unwrap();
        assert_eq!(refused.field, format!("spec.parentRefs[0].{field}"));
        assert_eq!(refused.reason, Reason::NoMatchingParent);
        assert_eq!(route.parents[1].refused, None);
        let reference = &route.parents[0].reference;
        assert_eq!(
            reference.group.as_deref(),
            parent.get("group").and_then(Value::as_str)
        );
        assert_eq!(
            reference.section.as_deref(),
            parent.get("sectionName").and_then(Value::as_str)
        );
    }
}

/// "Unknown values here must result in [...] Accepted: False, with a Reason of
/// UnsupportedValue" (HTTPRouteFilter.type), and no field is skipped in silence.
#[test]
fn a_stored_route_that_is_beyond_us_keeps_its_name_and_parents() {
    for (rules, field) in [
        (
            json!([{"filters": [{"type": "Teleport"}]}]),
            "spec.rules[0].filters[0].type",
        ),
        (
            json!([{"matches": [{"moon": "full"}]}]),
            "spec.rules[0].matches[0].moon",
        ),
        (json!([{"backendRefs": "a"}]), "spec.rules[0].backendRefs"),
    ] {
        for kind in [RouteKind::Http, RouteKind::Grpc] {
            let route = stored(kind, rules.clone());
            let refused = route.refused.clone().unwrap();
            assert_eq!(
                (refused.field.as_str(), refused.reason),
                (field, Reason::UnsupportedValue)
            );
            assert_eq!(
                (route.kind, route.generation, route.rules.len()),
                (kind, 7, 0)
            );
            assert_eq!(route.parents[0].service, Name::new("shop", "cart"));
        }
    }
    assert_eq!(
        route::of_cluster(RouteKind::Http, &json!({"spec": {}})),
        None
    );
}

#[test]
fn a_grpc_route_is_its_methods_headers_filters_and_backends() {
    let route = route(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart, port: 7070}]
  rules:
  - name: add
    matches:
    - {method: {service: shop.v1.Cart, method: Add}, headers: [{name: X-A, value: b}]}
    - {method: {method: Remove}}
    - {method: {type: RegularExpression, service: 'shop\\..*'}}
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-B, value: c}]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, percent: 10}}
    backendRefs: [{name: cart-v1, port: 7070, weight: 0}]
  - {}
",
    );
    let grpc = |service: &str, method: &str, expression| GrpcMatch {
        service: service.to_owned(),
        method: method.to_owned(),
        expression,
    };
    let matched = |grpc| Match {
        grpc,
        ..Match::default()
    };
    let add = Rule {
        name: "add".to_owned(),
        matches: vec![
            Match {
                headers: vec![("x-a".to_owned(), exact("b"))],
                ..matched(grpc("shop.v1.Cart", "Add", false))
            },
            matched(grpc("", "Remove", false)),
            matched(grpc(r"shop\..*", "", true)),
        ],
        filters: vec![
            Filter::RequestHeaders(HeaderModifier {
                set: pairs(&[("x-b", "c")]),
                ..HeaderModifier::default()
            }),
            Filter::Mirror(Mirror {
                backend: backend("shop", "shadow", 80),
                invalid: None,
                numerator: 10,
                denominator: 100,
            }),
        ],
        backends: vec![BackendRef {
            backend: backend("shop", "cart-v1", 7070),
            weight: 0,
            invalid: None,
            filters: Vec::new(),
        }],
        ..Rule::default()
    };
    let rest = Rule {
        matches: vec![Match::default()],
        ..Rule::default()
    };
    assert_eq!(route.kind, RouteKind::Grpc);
    assert_eq!(route.parents[0].port, Some(7070));
    assert_eq!(route.rules, [add, rest]);
}

/// GRPCMethodMatch.
#[test]
fn a_grpc_method_that_cannot_be_refuses_its_rule() {
    for (method, field) in [
        (json!({}), "method"),
        (json!({"service": "shop/Cart"}), "method.service"),
        (
            json!({"service": "shop.Cart", "method": "Add.One"}),
            "method.method",
        ),
        (
            json!({"type": "RegularExpression", "method": "("}),
            "method.method",
        ),
    ] {
        let route = stored(RouteKind::Grpc, json!([{"matches": [{"method": method}]}]));
        let refused = route.rules[0].refused.clone().unwrap();
        assert_eq!(refused.field, format!("spec.rules[0].matches[0].{field}"));
    }
}
