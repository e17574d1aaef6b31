//! Every filter of a route, through real sidecars: what arrived at the backend
//! and what came back, to the letter, which the conformance suite doesn't look
//! at. And the route's status.

use weft_tests::wait;

use crate::{
    echo::{self, Answer},
    namespace::Namespace,
};

struct Case {
    /// The rule, after `rules:\n  - `.
    rule: &'static str,
    url: &'static str,
    /// Lines of the caller's output.
    expected: &'static [&'static str],
    /// None of these may be in it.
    absent: &'static [&'static str],
}

const TO_V1: &str = "backendRefs: [{name: v1, port: 80}]";

/// With a backend unless the filter answers by itself.
const CASES: &[Case] = &[
    Case {
        rule: "filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]",
        url: "http://shop/a?b=c",
        expected: &[
            "StatusCode=302",
            "ResponseHeader=Location:https://shop/a?b=c",
        ],
        absent: &[],
    },
    Case {
        rule: "filters: [{type: RequestRedirect, requestRedirect: {hostname: other.example, port: 8443, statusCode: 301}}]",
        url: "http://shop/a",
        expected: &[
            "StatusCode=301",
            "ResponseHeader=Location:http://other.example:8443/a",
        ],
        absent: &[],
    },
    Case {
        rule: "matches: [{path: {type: PathPrefix, value: /old}}]\n    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]",
        url: "http://shop/old/cart",
        expected: &[
            "StatusCode=302",
            "ResponseHeader=Location:http://shop/new/cart",
        ],
        absent: &[],
    },
    Case {
        rule: "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /whole}, statusCode: 307}}]",
        url: "http://shop/old/cart",
        expected: &[
            "StatusCode=307",
            "ResponseHeader=Location:http://shop/whole",
        ],
        absent: &[],
    },
    Case {
        rule: "matches: [{path: {type: PathPrefix, value: /old}}]\n    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]",
        url: "http://shop/old/cart?a=b",
        expected: &["StatusCode=200", "URL=/new/cart?a=b"],
        absent: &[],
    },
    Case {
        rule: "filters: [{type: URLRewrite, urlRewrite: {hostname: inside.example, path: {type: ReplaceFullPath, replaceFullPath: /whole}}}]",
        url: "http://shop/old",
        expected: &["StatusCode=200", "URL=/whole", "Host=inside.example"],
        absent: &[],
    },
    Case {
        rule: "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: set}], add: [{name: X-Add, value: add}], remove: [X-Gone]}}]",
        url: "http://shop/ --header=X-Gone: here",
        expected: &[
            "StatusCode=200",
            "RequestHeader=X-Set:set",
            "RequestHeader=X-Add:add",
        ],
        absent: &["RequestHeader=X-Gone"],
    },
    Case {
        rule: "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Set, value: set}], remove: [Date]}}]",
        url: "http://shop/",
        expected: &["StatusCode=200", "ResponseHeader=X-Set:set"],
        absent: &["ResponseHeader=Date"],
    },
    Case {
        rule: "timeouts: {request: 200ms}",
        url: "http://shop/?delay=3s",
        expected: &["StatusCode=504"],
        absent: &[],
    },
    Case {
        rule: "filters: [{type: CORS, cors: {allowOrigins: ['http://web.example']}}]",
        url: "http://shop/ --header=Origin: http://web.example",
        expected: &[
            "StatusCode=200",
            "ResponseHeader=Access-Control-Allow-Origin:http://web.example",
        ],
        absent: &[],
    },
];

fn route(rule: &str) -> String {
    let backend = match rule.contains("RequestRedirect") {
        true => String::new(),
        false => format!("\n    {TO_V1}"),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: shop}}]
  rules:
  - {rule}{backend}
"
    )
}

fn shop(name: &'static str) -> Namespace {
    let namespace = Namespace::meshed(name);
    let shop = echo::service("shop", "").replace("app: shop", "app: v1");
    namespace.apply(&format!(
        "{shop}---\n{}---\n{}---\n{}",
        echo::workload("web", 1),
        echo::workload("v1", 1),
        echo::workload("v2", 1)
    ));
    for name in ["web", "v1", "v2"] {
        namespace.ready(&format!("deployment/{name}"));
    }
    namespace
}

fn holds(answer: &Answer, case: &Case) -> bool {
    let out = &answer.0.out;
    let has = |text: &&str| out.contains(&format!("] {text}"));
    case.expected.iter().all(has) && !case.absent.iter().any(has)
}

#[test]
fn every_filter_does_to_the_letter_what_its_route_says() {
    let shop = shop("routes");
    for case in CASES {
        shop.apply(&route(case.rule));
        let arguments: Vec<&str> = case.url.splitn(2, ' ').collect();
        let mut last = None;
        let held = wait::within(wait::PATIENCE, || {
            let answer = shop.call("deployment/web", &arguments);
            let held = holds(&answer, case);
            last = Some(answer);
            held.then_some(())
        });
        assert!(held.is_some(), "{}\n{}: {last:?}", case.rule, case.url);
    }
}

#[test]
fn a_mirror_gets_a_copy_and_its_answer_goes_nowhere() {
    let shop = shop("mirror");
    shop.apply(&route(
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}]",
    ));
    let mirrored = shop.pod("app=v2");
    let arrived = || shop.metric(&mirrored, "weft_traffic_requests_total", &[]);
    let before = arrived();
    wait::until("a copy", || {
        let answer = shop.call("deployment/web", &["http://shop/"]);
        assert!(
            answer
                .field("Hostname")
                .is_some_and(|it| it.starts_with("v1-")),
            "{answer:?}"
        );
        (arrived() > before).then_some(())
    });
}

#[test]
fn a_routes_status_says_for_its_generation_what_became_of_it() {
    let shop = shop("status");
    let condition = |kind: &str| {
        let path = format!(
            "{{range .status.parents[?(@.controllerName==\"weft.dev/mesh\")].conditions[?(@.type==\"{kind}\")]}}\
             {{.status}} {{.reason}} {{.observedGeneration}}{{end}}"
        );
        shop.get("httproute/shop", &path)
    };
    for (generation, backend, accepted, resolved) in [
        (1, "v1", "True Accepted", "True ResolvedRefs"),
        (2, "missing", "True Accepted", "False BackendNotFound"),
    ] {
        shop.apply(
            &route("timeouts: {request: 5s}").replace("name: v1", &format!("name: {backend}")),
        );
        for (kind, expected) in [("Accepted", accepted), ("ResolvedRefs", resolved)] {
            let expected = format!("{expected} {generation}");
            let mut last = String::new();
            let told = wait::within(wait::PATIENCE, || {
                last = condition(kind);
                (last == expected).then_some(())
            });
            assert!(told.is_some(), "{kind}: {last:?}, not {expected:?}");
        }
    }
}

#[test]
fn a_route_that_the_mesh_cannot_read_stops_no_other() {
    let shop = shop("unreadable");
    shop.apply(&route("timeouts: {request: 5s}"));
    // Known to the API server, unknown to most meshes.
    let foreign = route(
        "filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Thing, name: thing}}]",
    );
    shop.apply(
        &foreign
            .replace("metadata: {name: shop}", "metadata: {name: foreign}")
            .replace("name: shop}]", "name: v2}]"),
    );
    shop.apply(&route(
        "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Later, value: seen}]}}]",
    ));
    wait::until("the later change", || {
        let answer = shop.call("deployment/web", &["http://shop/"]);
        answer.0.out.contains("X-Later:seen").then_some(())
    });
    wait::until("a status that tells why", || {
        let foreign = shop.kubectl(&["get", "httproute", "foreign", "--output=yaml"]);
        foreign.text().contains("weft.dev/mesh").then_some(())
    });
}
