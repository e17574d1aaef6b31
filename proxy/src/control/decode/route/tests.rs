//! What a route may say; what it may not is named by its field.

use super::*;
use crate::discovery::{Origin, PathEdit};

fn decoded(route: v1::Route) -> Result<Route, String> {
    let mut routes = routes(vec![route]).map_err(|invalid| invalid.to_string())?;
    Ok(routes.remove(0))
}

fn route(kind: v1::RouteKind, rule: v1::Rule) -> v1::Route {
    v1::Route {
        namespace: "shop".to_owned(),
        name: "r".to_owned(),
        rules: vec![rule],
        kind: kind.into(),
        ..v1::Route::default()
    }
}

fn rule_of(rule: v1::Rule) -> Result<RouteRule, String> {
    let mut route = decoded(route(v1::RouteKind::HttpRoute, rule))?;
    Ok(route.rules.remove(0))
}

fn match_of(kind: v1::RouteKind, one: v1::Match) -> Result<Match, String> {
    let rule = v1::Rule {
        matches: vec![one],
        ..v1::Rule::default()
    };
    let mut route = decoded(route(kind, rule))?;
    Ok(route.rules.remove(0).matches.remove(0))
}

fn http(one: v1::Match) -> Result<Match, String> {
    match_of(v1::RouteKind::HttpRoute, one)
}

#[test]
fn a_match_is_all_that_it_says() {
    let one = http(v1::Match {
        path: Some(v1::PathMatch {
            kind: Some(v1::path_match::Kind::RegularExpression(
                "/v[0-9]".to_owned(),
            )),
        }),
        headers: vec![v1::HeaderMatch {
            name: "X-Canary".to_owned(),
            value: "a|b".to_owned(),
            regular_expression: true,
        }],
        query: vec![v1::QueryMatch {
            name: "p".to_owned(),
            value: "1".to_owned(),
            regular_expression: false,
        }],
        method: "PATCH".to_owned(),
        grpc: None,
    })
    .unwrap();
    assert!(matches!(&one.path, PathMatch::Expression(it) if it.as_str() == "/v[0-9]"));
    assert_eq!(&*one.headers[0].name, "x-canary");
    assert!(one.headers[0].value.is_expression());
    assert_eq!(one.query[0].value, Text::Exact("1".into()));
    assert_eq!((one.method.as_deref(), one.grpc), (Some("PATCH"), None));
}

#[test]
fn a_match_that_can_not_be_read_is_rejected_by_field() {
    let path = |text: &str| v1::Match {
        path: Some(v1::PathMatch {
            kind: Some(v1::path_match::Kind::RegularExpression(text.to_owned())),
        }),
        ..v1::Match::default()
    };
    let query = |name: &str, value: &str| v1::Match {
        query: vec![v1::QueryMatch {
            name: name.to_owned(),
            value: value.to_owned(),
            regular_expression: true,
        }],
        ..v1::Match::default()
    };
    for (one, wrong) in [
        (path("["), "path: \"[\": error: unclosed character class"),
        (path("a)(b"), "path: \"a)(b\": error: unopened group"),
        (query("", "a"), "query[0].name: empty"),
        (
            query("p", "*"),
            "query[0].value: \"*\": error: repetition operator missing expression",
        ),
        (
            v1::Match {
                method: "GET /".to_owned(),
                ..v1::Match::default()
            },
            "method: \"GET /\" is no token",
        ),
        (
            v1::Match {
                grpc: Some(v1::GrpcMatch::default()),
                ..v1::Match::default()
            },
            "grpc: of an HTTPRoute",
        ),
    ] {
        let expected = format!("routes[0].rules[0].matches[0].{wrong}");
        assert_eq!(http(one).unwrap_err(), expected);
    }
}

#[test]
fn a_grpc_match_has_parts_and_a_grpc_route_no_path() {
    let grpc = |one| match_of(v1::RouteKind::GrpcRoute, one);
    let one = grpc(v1::Match {
        grpc: Some(v1::GrpcMatch {
            service: "pkg.Cart".to_owned(),
            ..v1::GrpcMatch::default()
        }),
        ..v1::Match::default()
    });
    let parts = one.unwrap().grpc.unwrap();
    assert_eq!(parts.service, Some(Text::Exact("pkg.Cart".into())));
    assert_eq!(parts.method, None);
    let any = grpc(v1::Match::default()).unwrap();
    assert_eq!(any.grpc, Some(GrpcMatch::default()));
    let with_method = v1::Match {
        method: "GET".to_owned(),
        ..v1::Match::default()
    };
    assert!(grpc(with_method).unwrap_err().ends_with("of a GRPCRoute"));
}

/// GRPCRouteRule.matches: "Merging MUST not be done".
#[test]
fn kinds_of_routes_are_not_mixed() {
    let both = vec![
        route(v1::RouteKind::HttpRoute, v1::Rule::default()),
        route(v1::RouteKind::GrpcRoute, v1::Rule::default()),
    ];
    assert_eq!(
        routes(both).unwrap_err().to_string(),
        "routes[1].kind: another than the first route's"
    );
    let newer = v1::Route {
        kind: 9,
        ..v1::Route::default()
    };
    assert_eq!(
        decoded(newer).unwrap_err(),
        "routes[0].kind: newer than this proxy"
    );
}

fn filters_of(filters: Vec<v1::filter::Kind>) -> Result<Vec<Filter>, String> {
    let filters = filters
        .into_iter()
        .map(|kind| v1::Filter { kind: Some(kind) });
    let rule = v1::Rule {
        filters: filters.collect(),
        ..v1::Rule::default()
    };
    rule_of(rule).map(|rule| rule.filters)
}

fn header(name: &str, value: &str) -> v1::filter::Kind {
    v1::filter::Kind::RequestHeaders(v1::HeaderModifier {
        set: vec![v1::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        }],
        ..v1::HeaderModifier::default()
    })
}

fn prefix(text: &str) -> Option<v1::PathModifier> {
    let kind = Some(v1::path_modifier::Kind::Prefix(text.to_owned()));
    Some(v1::PathModifier { kind })
}

fn full(text: &str) -> Option<v1::PathModifier> {
    let kind = Some(v1::path_modifier::Kind::Full(text.to_owned()));
    Some(v1::PathModifier { kind })
}

fn rewrite(hostname: &str, path: Option<v1::PathModifier>) -> v1::filter::Kind {
    v1::filter::Kind::Rewrite(v1::Rewrite {
        hostname: hostname.to_owned(),
        path,
    })
}

fn redirect(change: impl FnOnce(&mut v1::Redirect)) -> v1::filter::Kind {
    let mut redirect = v1::Redirect {
        status: 302,
        ..v1::Redirect::default()
    };
    change(&mut redirect);
    v1::filter::Kind::Redirect(redirect)
}

fn mirror(numerator: u32, denominator: u32) -> v1::filter::Kind {
    v1::filter::Kind::Mirror(v1::Mirror {
        service: Some(v1::ServiceRef {
            namespace: "shop".to_owned(),
            name: "copy".to_owned(),
            port: 80,
        }),
        invalid: String::new(),
        numerator,
        denominator,
    })
}

fn cors(change: impl FnOnce(&mut v1::Cors)) -> v1::filter::Kind {
    let mut cors = v1::Cors::default();
    change(&mut cors);
    v1::filter::Kind::Cors(cors)
}

#[test]
fn a_filter_is_all_that_it_says() {
    let filters = filters_of(vec![
        header("X-A", "1"),
        rewrite("b.example", prefix("/x/")),
        mirror(1, 4),
        mirror(0, 100),
        cors(|it| {
            it.allow_origins = vec!["https://*.example".to_owned()];
            it.allow_methods = vec!["PUT".to_owned(), "*".to_owned(), "GET".to_owned()];
        }),
    ])
    .unwrap();
    assert!(matches!(&filters[0], Filter::RequestHeaders(it) if it.set[0].0 == "x-a"));
    let Filter::Rewrite { hostname, path } = &filters[1] else {
        panic!("{:?}", filters[1]);
    };
    assert_eq!(hostname.as_ref().unwrap(), "b.example");
    assert_eq!(*path, Some(PathEdit::Prefix("/x".into())));
    assert!(matches!(
        &filters[2],
        Filter::Mirror {
            numerator: 1,
            denominator: 4,
            ..
        }
    ));
    let Filter::Cors(cors) = &filters[4] else {
        panic!("{:?}", filters[4]);
    };
    assert_eq!(cors.origins, [Origin::parse("https://*.example").unwrap()]);
    assert!(cors.methods.any);
    assert_eq!(cors.methods.listed.as_ref().unwrap(), "PUT, GET");
    // HTTPCORSFilter.maxAge.
    assert_eq!(cors.max_age, "5");
}

#[test]
fn a_path_that_is_put_in_is_canonical_and_has_one_meaning() {
    let path = |edit| -> Result<PathEdit, String> {
        match filters_of(vec![rewrite("", edit)])?.remove(0) {
            Filter::Rewrite { path, .. } => Ok(path.unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(path(prefix("")), Ok(PathEdit::Prefix("".into())));
    assert_eq!(path(prefix("/")), Ok(PathEdit::Prefix("".into())));
    assert_eq!(path(full("/a b")), Ok(PathEdit::Full("/a%20b".into())));
    for text in ["/../x", "x", "//x", "/x;y", ""] {
        let wrong = path(full(text)).unwrap_err();
        let expected = format!("rewrite.path: {text:?} has no one meaning");
        assert!(wrong.ends_with(&expected), "{wrong}");
    }
}

#[test]
fn a_filter_that_can_not_be_applied_is_rejected_by_field() {
    let mut cases = vec![
        (
            header("a b", "1"),
            "request_headers.set[0].name: \"a b\"".to_owned(),
        ),
        (
            header("a", "1\n"),
            "request_headers.set[0].value: \"1\\n\"".to_owned(),
        ),
        (
            redirect(|it| it.status = 200),
            "redirect.status: 200".to_owned(),
        ),
        (
            redirect(|it| it.scheme = "ftp".to_owned()),
            "redirect.scheme: \"ftp\"".to_owned(),
        ),
        (
            redirect(|it| it.port = 65_536),
            "redirect.port: 65536 is no port".to_owned(),
        ),
        (
            redirect(|it| it.hostname = "a/b".to_owned()),
            "redirect.hostname: \"a/b\"".to_owned(),
        ),
        (
            rewrite("a:80", None),
            "rewrite.hostname: \"a:80\"".to_owned(),
        ),
        (mirror(2, 1), "mirror.numerator: 2 of 1".to_owned()),
        (mirror(0, 0), "mirror.numerator: 0 of 0".to_owned()),
        (
            cors(|it| it.allow_origins = vec!["a.example".to_owned()]),
            "cors.allow_origins[0].origin: \"a.example\"".to_owned(),
        ),
        (
            cors(|it| it.expose_headers = vec!["a b".to_owned()]),
            "cors.expose_headers: \"a b\" is no token".to_owned(),
        ),
    ];
    for name in [
        "Host",
        "content-length",
        "Transfer_Encoding",
        "upgrade",
        "Weft-Fault",
        "te",
    ] {
        let wrong = "frames the message, names its host or is the mesh's";
        cases.push((
            header(name, "1"),
            format!("request_headers.set[0].name: {name:?} {wrong}"),
        ));
    }
    for (filter, wrong) in cases {
        let expected = format!("routes[0].rules[0].filters[0].{wrong}");
        assert_eq!(filters_of(vec![filter]).unwrap_err(), expected);
    }
    let newer = v1::Rule {
        filters: vec![v1::Filter { kind: None }],
        ..v1::Rule::default()
    };
    let wrong = rule_of(newer).unwrap_err();
    assert!(
        wrong.ends_with("filters[0].kind: missing, or newer than this proxy"),
        "{wrong}"
    );
}

/// HTTPRouteRule.filters.
#[test]
fn filters_that_exclude_one_another_are_rejected() {
    let redirect = || redirect(|_| {});
    for pair in [
        vec![redirect(), rewrite("a", None)],
        vec![rewrite("a", None), redirect()],
        vec![header("a", "1"), header("b", "1")],
    ] {
        let wrong = filters_of(pair).unwrap_err();
        assert!(
            wrong.ends_with("filters[1]: excluded by another before it"),
            "{wrong}"
        );
    }
    assert!(filters_of(vec![mirror(1, 1), header("a", "1"), mirror(1, 1)]).is_ok());
}

/// HTTPPathModifier.replacePrefixMatch: "only compatible with a PathPrefix".
#[test]
fn a_prefix_is_replaced_only_where_every_match_is_one() {
    use v1::path_match::Kind;
    let with = |kind: Kind, edit| {
        rule_of(v1::Rule {
            matches: vec![v1::Match {
                path: Some(v1::PathMatch { kind: Some(kind) }),
                ..v1::Match::default()
            }],
            filters: vec![v1::Filter {
                kind: Some(rewrite("", edit)),
            }],
            ..v1::Rule::default()
        })
    };
    assert!(with(Kind::Prefix("/a".to_owned()), prefix("/b")).is_ok());
    assert!(with(Kind::Exact("/a".to_owned()), full("/b")).is_ok());
    for kind in [
        Kind::Exact("/a".to_owned()),
        Kind::RegularExpression("/a".to_owned()),
    ] {
        let wrong = with(kind, prefix("/b")).unwrap_err();
        assert!(wrong.ends_with("a match of the rule is none"), "{wrong}");
    }
}

#[test]
fn retries_are_of_codes_that_fail() {
    let retry = |codes: Vec<u32>| {
        rule_of(v1::Rule {
            retry: Some(v1::RouteRetry {
                codes,
                attempts: 2,
                backoff_milliseconds: 100,
            }),
            ..v1::Rule::default()
        })
    };
    let expected = RouteRetry {
        codes: vec![500, 503],
        attempts: 2,
        backoff: Some(Duration::from_millis(100)),
    };
    assert_eq!(retry(vec![500, 503]).unwrap().retry, Some(expected));
    let wrong = retry(vec![200]).unwrap_err();
    assert_eq!(wrong, "routes[0].rules[0].retry.codes: 200");
}
