//! Precedence, segments, headers and shares.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    discovery::{
        Expression, GrpcMatch, HeaderMatch, Match, PathEdit, Protocol, QueryMatch, RuleCells,
        Schedule, Text, WeightedBackend, samples,
    },
    request::samples::Sample,
};

fn backend() -> Arc<Backend> {
    samples::backend(crate::discovery::BackendPolicy::default(), &[1])
}

fn rule_of(route: &str, index: u32, backends: Vec<WeightedBackend>) -> Arc<Rule> {
    Arc::new(Rule {
        route: route.into(),
        index,
        schedule: Schedule::new(backends.iter().map(|backend| backend.weight)),
        backends,
        request_timeout: Some(Duration::from_secs(1)),
        backend_timeout: None,
        cells: Arc::new(RuleCells::default()),
    })
}

fn rule(route: &str, index: u32) -> Arc<Rule> {
    rule_of(
        route,
        index,
        vec![WeightedBackend {
            weight: 1,
            backend: Ok(backend()),
            filters: None,
        }],
    )
}

fn exact(path: &str) -> Match {
    Match {
        path: PathMatch::Exact(path.into()),
        ..Match::default()
    }
}

fn prefix(path: &str) -> Match {
    Match {
        path: PathMatch::Prefix(path.into()),
        ..Match::default()
    }
}

fn with(mut one: Match, name: &str, value: &str) -> Match {
    one.headers.push(HeaderMatch {
        name: name.into(),
        value: Text::Exact(value.into()),
    });
    one
}

fn port(routes: Vec<Attached>) -> ServicePort {
    ServicePort {
        service: samples::service("cart"),
        port: 80,
        protocol: Protocol::Detect,
        routes: Some(table(routes)),
        default: backend(),
    }
}

/// One route whose rules are named by their index.
fn one_route(matches: Vec<Vec<Match>>) -> ServicePort {
    let rules = matches
        .into_iter()
        .zip(0..)
        .map(|(matches, index)| (matches, rule("shop/r", index)));
    port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: rules.collect(),
    }])
}

fn chosen(port: &ServicePort, request: &Sample) -> Result<u32, Reason> {
    choose(port, request).map(|choice| choice.rule.unwrap().index)
}

#[test]
fn without_routes_the_port_s_own_endpoints_serve_and_nothing_is_touched() {
    let port = ServicePort {
        routes: None,
        ..port(Vec::new())
    };
    for path in ["/", "/a//b/../%2f", "*", ""] {
        let choice = choose(&port, &Sample::get(path)).unwrap();
        assert!(Arc::ptr_eq(choice.backend, &port.default));
        assert!(choice.rule.is_none() && choice.path.is_none());
    }
}

#[test]
fn with_routes_what_matches_none_is_refused() {
    let port = one_route(vec![vec![prefix("/a")]]);
    assert_eq!(chosen(&port, &Sample::get("/b")), Err(Reason::NoRoute));
    let none = one_route(Vec::new());
    assert_eq!(chosen(&none, &Sample::get("/")), Err(Reason::NoRoute));
}

/// The cases of the conformance test MeshHTTPRouteMatching.
#[test]
fn prefixes_go_by_segments_and_headers_beat_no_headers() {
    let port = one_route(vec![
        vec![prefix("/"), with(prefix("/"), "version", "one")],
        vec![prefix("/v2"), with(prefix("/"), "Version", "two")],
    ]);
    for (path, expected) in [
        ("/", 0),
        ("/example", 0),
        ("/v2", 1),
        ("/v2/", 1),
        ("/v2/example", 1),
        ("/v2example", 0),
        ("/foo/v2/example", 0),
    ] {
        assert_eq!(chosen(&port, &Sample::get(path)), Ok(expected), "{path}");
    }
    assert_eq!(
        chosen(&port, &Sample::get("/").with("VERSION", "two")),
        Ok(1)
    );
    assert_eq!(
        chosen(&port, &Sample::get("/").with("version", "TWO")),
        Ok(0)
    );
    assert_eq!(
        chosen(&port, &Sample::get("/v2/x").with("version", "one")),
        Ok(1)
    );
}

#[test]
fn exact_beats_longer_prefix_beats_headers_beats_age() {
    let old = |index, one| Attached {
        created_milliseconds: 1,
        is_grpc: false,
        rules: vec![(vec![one], rule("shop/old", index))],
    };
    let new = |index, one| Attached {
        created_milliseconds: 2,
        is_grpc: false,
        rules: vec![(vec![one], rule("shop/new", index))],
    };
    let port = port(vec![
        old(0, prefix("/")),
        old(1, with(with(prefix("/a"), "x", "1"), "y", "1")),
        new(2, exact("/a/b")),
        new(3, prefix("/a/b")),
        old(4, with(prefix("/a"), "x", "1")),
        new(5, prefix("/a")),
        old(6, prefix("/a")),
    ]);
    let xy = |path: &str| Sample::get(path).with("x", "1").with("y", "1");
    assert_eq!(chosen(&port, &xy("/a/b")), Ok(2));
    assert_eq!(chosen(&port, &xy("/a/b/c")), Ok(3));
    assert_eq!(chosen(&port, &xy("/a/c")), Ok(1));
    assert_eq!(chosen(&port, &Sample::get("/a/c").with("x", "1")), Ok(4));
    assert_eq!(chosen(&port, &Sample::get("/a")), Ok(6));
    assert_eq!(chosen(&port, &Sample::get("/z")), Ok(0));
}

#[test]
fn ties_go_to_the_oldest_then_to_the_name_then_to_the_order() {
    let attached = |created, name, index| Attached {
        created_milliseconds: created,
        is_grpc: false,
        rules: vec![(vec![prefix("/a")], rule(name, index))],
    };
    let of = |routes| {
        let port = port(routes);
        let choice = choose(&port, &Sample::get("/a")).unwrap();
        (
            choice.rule.unwrap().route.to_string(),
            choice.rule.unwrap().index,
        )
    };
    assert_eq!(
        of(vec![attached(5, "a/a", 0), attached(3, "z/z", 1)]),
        ("z/z".into(), 1)
    );
    assert_eq!(
        of(vec![attached(5, "b/a", 0), attached(5, "a/z", 1)]),
        ("a/z".into(), 1)
    );
    assert_eq!(
        of(vec![attached(5, "a/a", 1), attached(5, "a/a", 0)]),
        ("a/a".into(), 0)
    );
}

#[test]
fn several_lines_of_a_header_are_one_value() {
    let port = one_route(vec![
        vec![with(prefix("/"), "x", "a, b")],
        vec![with(prefix("/"), "x", "a")],
    ]);
    assert_eq!(
        chosen(&port, &Sample::get("/").with("x", "a").with("x", "b")),
        Ok(0)
    );
    assert_eq!(chosen(&port, &Sample::get("/").with("x", "a, b")), Ok(0));
    assert_eq!(chosen(&port, &Sample::get("/").with("x", "a")), Ok(1));
    for lines in [
        &["b", "a"][..],
        &["a", "b", "c"],
        &["a", ""],
        &["a,b"],
        &[""],
        &[],
    ] {
        let request = lines
            .iter()
            .fold(Sample::get("/"), |request, line| request.with("x", line));
        assert_eq!(chosen(&port, &request), Err(Reason::NoRoute), "{lines:?}");
    }
}

#[test]
fn of_equivalent_header_names_only_the_first_counts() {
    let port = one_route(vec![vec![with(with(prefix("/"), "X", "1"), "x", "2")]]);
    assert_eq!(chosen(&port, &Sample::get("/").with("x", "1")), Ok(0));
    assert_eq!(
        chosen(&port, &Sample::get("/").with("x", "2")),
        Err(Reason::NoRoute)
    );
}

#[test]
fn with_path_rules_the_canonical_path_is_judged_and_forwarded() {
    let port = one_route(vec![
        vec![prefix("/Admin")],
        vec![exact("/caf\u{e9}")],
        vec![prefix("/")],
    ]);
    let choice = choose(&port, &Sample::get("/%41dmin/x")).unwrap();
    assert_eq!(
        (choice.rule.unwrap().index, choice.path.as_deref()),
        (0, Some(&b"/Admin/x"[..]))
    );
    let choice = choose(&port, &Sample::get("/caf%c3%a9")).unwrap();
    assert_eq!(
        (choice.rule.unwrap().index, choice.path.as_deref()),
        (1, Some(&b"/caf%C3%A9"[..]))
    );
    assert_eq!(choose(&port, &Sample::get("/Admin/x")).unwrap().path, None);
    for path in ["/x/../Admin", "//Admin", "/%2fAdmin", "*"] {
        assert_eq!(
            chosen(&port, &Sample::get(path)),
            Err(Reason::AmbiguousPath),
            "{path}"
        );
    }
}

#[test]
fn without_path_rules_a_path_is_not_judged() {
    let port = one_route(vec![vec![prefix("/"), with(Match::default(), "x", "1")]]);
    for path in ["/x/../Admin", "//Admin", "/%2fAdmin", "*", "/%41"] {
        assert_eq!(
            choose(&port, &Sample::get(path)).unwrap().path,
            None,
            "{path}"
        );
    }
}

#[test]
fn weights_are_exact_and_an_invalid_backend_gets_its_share_of_500() {
    let (a, b) = (backend(), backend());
    let split = rule_of(
        "shop/split",
        0,
        vec![
            WeightedBackend {
                weight: 70,
                backend: Ok(Arc::clone(&a)),
                filters: None,
            },
            WeightedBackend {
                weight: 20,
                backend: Ok(Arc::clone(&b)),
                filters: None,
            },
            WeightedBackend {
                weight: 10,
                backend: Err("no such service".into()),
                filters: None,
            },
            WeightedBackend {
                weight: 0,
                backend: Err("no such service".into()),
                filters: None,
            },
        ],
    );
    let port = port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: vec![(Vec::new(), split)],
    }]);
    let mut counts: HashMap<_, u32> = HashMap::new();
    for _ in 0..500 {
        let choice = choose(&port, &Sample::get("/"));
        let name = choice.map(|choice| {
            if Arc::ptr_eq(choice.backend, &a) {
                "a"
            } else {
                "b"
            }
        });
        *counts.entry(name).or_default() += 1;
    }
    assert_eq!(
        counts,
        HashMap::from([
            (Ok("a"), 350),
            (Ok("b"), 100),
            (Err(Reason::BackendInvalid), 50)
        ])
    );
}

#[test]
fn weights_are_exact_over_workers() {
    let (a, b) = (backend(), backend());
    let backends = [(9, &a), (1, &b)].map(|(weight, one)| WeightedBackend {
        weight,
        backend: Ok(Arc::clone(one)),
        filters: None,
    });
    let split = rule_of("shop/split", 0, backends.into());
    let port = port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: vec![(Vec::new(), split)],
    }]);
    let count = || {
        (0..2500)
            .filter(|_| Arc::ptr_eq(choose(&port, &Sample::get("/")).unwrap().backend, &b))
            .count()
    };
    let canary: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    assert_eq!(canary, 1000);
}

#[test]
fn all_weights_zero_is_500() {
    let zero = rule_of(
        "shop/zero",
        0,
        vec![WeightedBackend {
            weight: 0,
            backend: Ok(backend()),
            filters: None,
        }],
    );
    let port = port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: vec![(Vec::new(), zero)],
    }]);
    assert_eq!(
        chosen(&port, &Sample::get("/")),
        Err(Reason::BackendInvalid)
    );
}

fn expression(path: &str) -> Match {
    Match {
        path: PathMatch::Expression(Expression::new(path).unwrap()),
        ..Match::default()
    }
}

fn method(mut one: Match, method: &str) -> Match {
    one.method = Some(method.into());
    one
}

fn query(mut one: Match, name: &str, value: &str) -> Match {
    one.query.push(QueryMatch {
        name: name.into(),
        value: Text::Exact(value.into()),
    });
    one
}

/// HTTPRouteRule.matches: "Exact" path, longest prefix, method, most headers,
/// most query parameters. Each rule beats all that follow it.
#[test]
fn precedence_is_path_then_method_then_headers_then_query() {
    let best_first = vec![
        exact("/a/b"),
        expression("/a/.*"),
        expression("/a.*"),
        with(method(prefix("/a/b"), "GET"), "x", "1"),
        method(query(query(prefix("/a/b"), "p", "1"), "q", "1"), "GET"),
        method(prefix("/a/b"), "GET"),
        with(with(prefix("/a/b"), "x", "1"), "y", "1"),
        query(query(with(prefix("/a/b"), "x", "1"), "p", "1"), "q", "1"),
        query(with(prefix("/a/b"), "x", "1"), "p", "1"),
        with(prefix("/a/b"), "x", "1"),
        query(prefix("/a/b"), "p", "1"),
        prefix("/a/b"),
        method(prefix("/a"), "GET"),
        with(prefix("/"), "x", "1"),
        prefix("/"),
    ];
    let request = Sample::get("/a/b")
        .with_query("q=1&p=1")
        .with("x", "1")
        .with("y", "1");
    for from in 0..best_first.len() {
        let left = best_first.get(from..).unwrap();
        // Worst first, so that the order in the route is no help.
        let rules = left.iter().rev().map(|one| vec![one.clone()]).collect();
        let best = u32::try_from(left.len() - 1).unwrap();
        assert_eq!(chosen(&one_route(rules), &request), Ok(best), "{from}");
    }
}

#[test]
fn methods_are_compared_as_they_are_written() {
    let port = one_route(vec![vec![method(prefix("/"), "POST")]]);
    let chosen = |name: &str| chosen(&port, &Sample::get("/").with_method(name));
    assert_eq!(chosen("POST"), Ok(0));
    assert_eq!(chosen("post"), Err(Reason::NoRoute));
    assert_eq!(chosen("GET"), Err(Reason::NoRoute));
}

/// The cases of the conformance test MeshHTTPRouteQueryParamMatching, and what
/// HTTPQueryParamMatch says of repeated parameters.
#[test]
fn query_parameters_match_exactly_and_together() {
    let port = one_route(vec![
        vec![query(prefix("/"), "animal", "whale")],
        vec![query(prefix("/"), "animal", "dolphin")],
        vec![query(
            query(prefix("/"), "animal", "dolphin"),
            "color",
            "blue",
        )],
        vec![
            query(prefix("/path1"), "animal", "whale"),
            with(prefix("/"), "version", "one"),
        ],
        vec![prefix("/path5")],
    ]);
    for (path, sent, expected) in [
        ("/", "animal=whale", Ok(0)),
        ("/", "animal=dolphin", Ok(1)),
        ("/", "animal=dolphin&color=blue", Ok(2)),
        ("/", "color=blue&animal=dolphin", Ok(2)),
        ("/path1", "animal=whale", Ok(3)),
        ("/path5", "animal=whale", Ok(4)),
        ("/", "animal=whale&animal=dolphin", Ok(0)),
        ("/", "animal=%77hale", Ok(0)),
        ("/", "animal=shark", Err(Reason::NoRoute)),
        ("/", "ANIMAL=whale", Err(Reason::NoRoute)),
        ("/", "animal=dolphin2", Err(Reason::NoRoute)),
        ("/", "", Err(Reason::NoRoute)),
    ] {
        let request = Sample::get(path).with_query(sent);
        assert_eq!(chosen(&port, &request), expected, "{path}?{sent}");
    }
}

#[test]
fn expressions_are_of_the_whole_value() {
    let text = |text: &str| Text::Expression(Expression::new(text).unwrap());
    let mut of_header = Match::default();
    of_header.headers.push(HeaderMatch {
        name: "x".into(),
        value: text("a|b, c"),
    });
    let mut of_query = Match::default();
    of_query.query.push(QueryMatch {
        name: "p".into(),
        value: text("[0-9 ]+"),
    });
    let port = one_route(vec![
        vec![expression("/v[0-9]+/.*")],
        vec![of_header],
        vec![of_query],
    ]);
    let get = Sample::get;
    for (request, expected) in [
        (get("/v12/x"), Ok(0)),
        (get("/v12"), Err(Reason::NoRoute)),
        (get("/x/v12/x"), Err(Reason::NoRoute)),
        // The canonical path is what the expression is asked about.
        (get("/%761/x"), Ok(0)),
        (get("/").with("x", "a"), Ok(1)),
        (get("/").with("x", "b").with("x", "c"), Ok(1)),
        (get("/").with("x", "ab"), Err(Reason::NoRoute)),
        (get("/").with_query("p=1+2%20"), Ok(2)),
        (get("/").with_query("p=1"), Ok(2)),
        (get("/").with_query("p=x1"), Err(Reason::NoRoute)),
        (get("/").with_query("p="), Err(Reason::NoRoute)),
    ] {
        assert_eq!(chosen(&port, &request), expected, "{request:?}");
    }
}

fn grpc(service: &str, method: &str, build: fn(&str) -> Text) -> Match {
    let part = |text: &str| (!text.is_empty()).then(|| build(text));
    Match {
        grpc: Some(GrpcMatch {
            service: part(service),
            method: part(method),
        }),
        ..Match::default()
    }
}

fn value(text: &str) -> Text {
    Text::Exact(text.into())
}

fn pattern(text: &str) -> Text {
    Text::Expression(Expression::new(text).unwrap())
}

/// Of a GRPCRoute whose rules are named by their index.
fn grpc_route(matches: Vec<Vec<Match>>) -> ServicePort {
    let rules = matches
        .into_iter()
        .zip(0..)
        .map(|(matches, index)| (matches, rule("shop/g", index)));
    port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: true,
        rules: rules.collect(),
    }])
}

fn call(path: &str) -> Sample {
    Sample::get(path)
        .with_method("POST")
        .with("content-type", "application/grpc+proto")
}

/// GRPCRouteRule.matches: characters of the service, of the method, headers.
#[test]
fn a_grpc_call_is_matched_by_service_then_method_then_headers() {
    let best_first = [
        with(grpc("pkg.Cart", "Add", value), "x", "1"),
        grpc("pkg.Cart", "Add", value),
        grpc("pkg.Cart", "", value),
        grpc("", "Add", value),
        grpc("pkg[.].*", "A.*", pattern),
        grpc("", "A.*", pattern),
        with(grpc("", "", value), "x", "1"),
        grpc("", "", value),
    ];
    let request = call("/pkg.Cart/Add").with("x", "1");
    for from in 0..best_first.len() {
        let left = best_first.get(from..).unwrap();
        let rules = left.iter().rev().map(|one| vec![one.clone()]).collect();
        let best = u32::try_from(left.len() - 1).unwrap();
        assert_eq!(chosen(&grpc_route(rules), &request), Ok(best), "{from}");
    }
}

#[test]
fn a_grpc_match_is_of_whole_parts() {
    for (one, path, expected) in [
        (grpc("pkg.Cart", "Add", value), "/pkg.Cart/Add", true),
        (grpc("pkg.Cart", "Add", value), "/pkg.Cart/AddAll", false),
        (grpc("pkg.Cart", "Add", value), "/pkg.cart/Add", false),
        (grpc("pkg.Cart", "", value), "/pkg.Cart/Remove", true),
        (grpc("pkg.Cart", "", value), "/pkg.CartV2/Add", false),
        (grpc("", "Add", value), "/any/Add", true),
        (grpc("pkg[.].*", "", pattern), "/pkg.Cart/Add", true),
        (grpc("kg[.].*", "", pattern), "/pkg.Cart/Add", false),
        (grpc("", "Add", value), "/Add", false),
        (grpc("", "", value), "/Add", true),
    ] {
        let port = grpc_route(vec![vec![one.clone()]]);
        assert_eq!(
            chosen(&port, &call(path)).is_ok(),
            expected,
            "{one:?} {path}"
        );
    }
}

/// GRPCRouteRule.matches: "If no matches are specified, the implementation
/// MUST match every gRPC request."
#[test]
fn a_grpc_route_takes_grpc_calls_alone() {
    let port = grpc_route(vec![Vec::new()]);
    assert_eq!(chosen(&port, &call("/pkg.Cart/Add")), Ok(0));
    assert_eq!(chosen(&port, &Sample::get("/")), Err(Reason::NoRoute));
    let web = Sample::get("/").with("content-type", "application/grpc-web");
    assert_eq!(chosen(&port, &web), Err(Reason::NoRoute));
    assert_eq!(Reason::NoRoute.grpc_status(), 12);
    assert_eq!(Reason::BackendInvalid.grpc_status(), 14);
}

fn rewriting(matches: Vec<Match>, edit: PathEdit) -> ServicePort {
    let mut filters = Filters::default();
    filters.request.path = Some(edit);
    let mut share = rule_of("shop/r", 0, Vec::new());
    Arc::get_mut(&mut share)
        .unwrap()
        .backends
        .push(WeightedBackend {
            weight: 1,
            backend: Ok(backend()),
            filters: Some(Arc::new(filters)),
        });
    Arc::get_mut(&mut share).unwrap().schedule = Schedule::new([1]);
    port(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: vec![(matches, share)],
    }])
}

/// The path is canonical before it is judged, and edited after.
#[test]
fn a_rewrite_changes_what_is_forwarded_by_the_prefix_that_matched() {
    let port = rewriting(
        vec![prefix("/a"), prefix("/a/b")],
        PathEdit::Prefix("/x".into()),
    );
    let path = |raw: &str| {
        let choice = choose(&port, &Sample::get(raw)).unwrap();
        String::from_utf8(choice.path.unwrap().into()).unwrap()
    };
    assert_eq!(path("/a"), "/x");
    assert_eq!(path("/a/c"), "/x/c");
    assert_eq!(path("/a/b/c"), "/x/c");
    assert_eq!(path("/%61/%63"), "/x/c");
    let everything = rewriting(Vec::new(), PathEdit::Full("/x".into()));
    let choice = choose(&everything, &Sample::get("/a/c")).unwrap();
    assert_eq!(choice.path.as_deref(), Some(&b"/x"[..]));
    // What has no canonical form can't be rewritten.
    let ambiguous = choose(&everything, &Sample::get("/a//c"));
    assert_eq!(ambiguous.unwrap_err(), Reason::AmbiguousPath);
}

fn any_match() -> impl Strategy<Value = Match> {
    let path = prop::sample::select(vec!["", "/a", "/a/b", "/b"]);
    let header = prop::option::of(prop::sample::select(vec!["1", "2"]));
    (path, any::<bool>(), header).prop_map(|(path, is_exact, header)| {
        let one = if is_exact {
            exact(if path.is_empty() { "/" } else { path })
        } else {
            prefix(path)
        };
        match header {
            Some(value) => with(one, "x", value),
            None => one,
        }
    })
}

proptest! {
    /// The order in which routes arrive never matters.
    #[test]
    fn a_table_is_the_same_for_any_order_of_routes(
        routes in prop::collection::vec((0_i64..3, prop::collection::vec(any_match(), 1..4)), 1..5),
        path in prop::sample::select(vec!["/", "/a", "/a/b", "/a/b/c", "/b", "/c"]),
        header in prop::option::of(prop::sample::select(vec!["1", "2"])),
    ) {
        let build = |is_reversed: bool| {
            let mut attached: Vec<_> = routes.iter().enumerate().map(|(at, (created, matches))| Attached {
                created_milliseconds: *created,
                is_grpc: false,
                rules: vec![(matches.clone(), rule(&format!("shop/{at}"), at as u32))],
            }).collect();
            if is_reversed {
                attached.reverse();
            }
            port(attached)
        };
        let request = header.map_or_else(|| Sample::get(path), |value| Sample::get(path).with("x", value));
        prop_assert_eq!(chosen(&build(false), &request), chosen(&build(true), &request));
    }
}
