//! Precedence, segments, headers and shares.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    discovery::{Protocol, RuleCells, Schedule, WeightedBackend, samples},
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
        }],
    )
}

fn exact(path: &str) -> Match {
    Match {
        path: PathMatch::Exact(path.into()),
        headers: Vec::new(),
    }
}

fn prefix(path: &str) -> Match {
    Match {
        path: PathMatch::Prefix(path.into()),
        headers: Vec::new(),
    }
}

fn with(mut one: Match, name: &str, value: &str) -> Match {
    one.headers.push(HeaderMatch {
        name: name.into(),
        value: value.into(),
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
        rules: vec![(vec![one], rule("shop/old", index))],
    };
    let new = |index, one| Attached {
        created_milliseconds: 2,
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
            },
            WeightedBackend {
                weight: 20,
                backend: Ok(Arc::clone(&b)),
            },
            WeightedBackend {
                weight: 10,
                backend: Err("no such service".into()),
            },
            WeightedBackend {
                weight: 0,
                backend: Err("no such service".into()),
            },
        ],
    );
    let port = port(vec![Attached {
        created_milliseconds: 0,
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
    });
    let split = rule_of("shop/split", 0, backends.into());
    let port = port(vec![Attached {
        created_milliseconds: 0,
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
        }],
    );
    let port = port(vec![Attached {
        created_milliseconds: 0,
        rules: vec![(Vec::new(), zero)],
    }]);
    assert_eq!(
        chosen(&port, &Sample::get("/")),
        Err(Reason::BackendInvalid)
    );
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
