//! `Location`, part by part, and what becomes of an answer's head.

use super::*;
use crate::{
    discovery::{Cors, Names, Origin, PathEdit},
    request::samples::Sample,
};

fn to() -> Redirect {
    Redirect {
        scheme: "http",
        hostname: None,
        port: "".into(),
        path: None,
        status: 302,
        service_host: "cart.shop".into(),
    }
}

fn filters(redirect: Redirect) -> Filters {
    Filters {
        redirect: Some(redirect),
        ..Filters::default()
    }
}

fn location(redirect: Redirect, request: &Sample, path: Option<&[u8]>) -> String {
    let reply = reply(&filters(redirect), request, path).unwrap();
    let (name, value) = &reply.fields[0];
    assert_eq!((name, reply.fields.len()), (&header::LOCATION, 1));
    value.to_str().unwrap().to_owned()
}

/// HTTPRequestRedirectFilter: hostname "when empty, the hostname in the Host
/// header is used", scheme, port and path likewise. Which port is named was
/// decided before (`Redirect::port`).
#[test]
fn a_location_is_made_of_what_is_given_and_else_of_what_was_asked() {
    let asked = Sample::get("/a/b").with("host", "cart.shop:8080");
    assert_eq!(location(to(), &asked, None), "http://cart.shop/a/b");
    let given = Redirect {
        scheme: "https",
        hostname: Some("example.org".into()),
        port: ":8443".into(),
        ..to()
    };
    assert_eq!(
        location(given, &asked, None),
        "https://example.org:8443/a/b"
    );
    assert_eq!(
        location(to(), &asked.clone().with_query("x=1&y"), Some(b"/c")),
        "http://cart.shop/c?x=1&y"
    );
}

#[test]
fn the_host_that_was_asked_for_loses_its_port_whatever_its_form() {
    for (host, expected) in [
        ("cart", "cart"),
        ("cart:80", "cart"),
        ("10.0.0.1:8080", "10.0.0.1"),
        ("[fd00::1]", "[fd00::1]"),
        ("[fd00::1]:80", "[fd00::1]"),
        ("cart:", "cart"),
        // None, or an empty one: the service that was called.
        ("", "cart.shop"),
    ] {
        let asked = Sample::get("/").with("host", host);
        assert_eq!(
            location(to(), &asked, None),
            format!("http://{expected}/"),
            "{host}"
        );
    }
    assert_eq!(location(to(), &Sample::get("*"), None), "http://cart.shop/");
}

#[test]
fn each_status_is_the_one_that_was_given() {
    for status in [301, 302, 303, 307, 308] {
        let redirect = Redirect { status, ..to() };
        let reply = reply(&filters(redirect), &Sample::get("/"), None).unwrap();
        assert_eq!(reply.status, status);
    }
}

fn modified() -> FieldEdits {
    let mut edits = FieldEdits::default();
    edits.set(
        &HeaderName::from_static("x-mesh"),
        HeaderValue::from_static("1"),
    );
    edits
}

fn cors() -> Cors {
    Cors {
        origins: vec![Origin::Any],
        credentials: false,
        methods: Names::default(),
        headers: Names::default(),
        expose: Names::default(),
        max_age: HeaderValue::from(5),
    }
}

#[test]
fn a_redirect_is_decorated_as_any_answer_and_a_preflight_comes_before_it() {
    let filters = Filters {
        response: Arc::new(modified()),
        cors: Some(cors()),
        ..filters(to())
    };
    let request = Sample::get("/").with("origin", "https://a.example");
    let names = |reply: Reply| {
        let names = reply.fields.iter().map(|(name, _)| name.to_string());
        names.collect::<Vec<_>>()
    };
    let redirect = reply(&filters, &request, None).unwrap();
    assert_eq!(
        names(redirect),
        ["location", "x-mesh", "vary", "access-control-allow-origin"]
    );
    let asks = request
        .with_method("OPTIONS")
        .with("access-control-request-method", "PUT");
    let preflight = reply(&filters, &asks, None).unwrap();
    assert_eq!(preflight.status, 204);
}

#[test]
fn an_answer_gets_the_modifiers_and_behind_them_cors_for_its_origin() {
    let plain = Sample::get("/");
    let across = plain.clone().with("origin", "https://a.example");
    let count =
        |filters: &Filters, request| response(filters, request).map(|edits| edits.added().count());
    assert_eq!(count(&Filters::default(), &across), None);
    let both = Filters {
        response: Arc::new(modified()),
        cors: Some(cors()),
        ..Filters::default()
    };
    assert_eq!(count(&both, &plain), Some(2));
    assert_eq!(count(&both, &across), Some(3));
    // What every answer gets is not copied.
    let modified = Filters { cors: None, ..both };
    let edits = response(&modified, &plain).unwrap();
    assert!(Arc::ptr_eq(&edits, &modified.response));
}

#[test]
fn without_a_filter_that_answers_a_request_goes_on() {
    let rewrite = Filters {
        request: crate::discovery::RequestEdits {
            path: Some(PathEdit::Full("/x".into())),
            ..Default::default()
        },
        ..Filters::default()
    };
    assert!(reply(&rewrite, &Sample::get("/"), Some(b"/x")).is_none());
}
