//! What the codec accepts, refuses and writes. Whole messages come from
//! `tests/corpus/http1`, which the end-to-end tests read too.

mod corpus;
mod encoding;
mod pieces;

#[path = "../../../../tests/src/corpus.rs"]
#[allow(
    unreachable_pub,
    reason = "the reader of the corpus is shared with the crate of the tests"
)]
mod reader;

use super::*;
use bytes::BytesMut;

fn request(bytes: &str) -> RequestHead {
    let mut buffer = BytesMut::from(bytes);
    parse_request(&mut buffer, &mut Scanner::new(), &Limits::default())
        .expect("a good head")
        .expect("a whole head")
}

fn response(bytes: &str) -> ResponseHead {
    let mut buffer = BytesMut::from(bytes);
    parse_response(&mut buffer, &mut Scanner::new(), &Limits::default())
        .expect("a good head")
        .expect("a whole head")
}

#[test]
fn a_head_is_taken_and_nothing_behind_it() {
    let mut buffer = BytesMut::from("GET /a?b HTTP/1.1\r\nHost: h:1\r\nX: y\r\n\r\nbody");
    let head = parse_request(&mut buffer, &mut Scanner::new(), &Limits::default())
        .expect("good")
        .expect("whole");
    assert_eq!(&buffer[..], b"body");
    assert_eq!((head.method(), head.target()), ("GET", &b"/a?b"[..]));
    assert_eq!((head.path(), head.query()), (&b"/a"[..], Some(&b"b"[..])));
    assert_eq!(head.authority(), Some(&b"h:1"[..]));
    assert_eq!((head.version(), head.fields().len()), (Version::Http11, 2));
    assert_eq!(head.fields().get_all("x").collect::<Vec<_>>(), [b"y"]);
}

#[test]
fn path_and_query_are_found_in_every_form() {
    for (line, path, query, authority) in [
        ("GET / HTTP/1.0", "/", None, None),
        ("GET /a?b?c HTTP/1.0", "/a", Some("b?c"), None),
        ("GET /? HTTP/1.0", "/", Some(""), None),
        ("OPTIONS * HTTP/1.0", "*", None, None),
        ("GET http://h HTTP/1.0", "/", None, Some("h")),
        ("GET http://h?q HTTP/1.0", "/", Some("q"), Some("h")),
        ("GET HTTPS://h:1/p?q HTTP/1.0", "/p", Some("q"), Some("h:1")),
        ("GET /http://h/ HTTP/1.0", "/http://h/", None, None),
    ] {
        let head = request(&format!("{line}\r\n\r\n"));
        assert_eq!(head.path(), path.as_bytes(), "{line}");
        assert_eq!(head.query(), query.map(str::as_bytes), "{line}");
        assert_eq!(head.authority(), authority.map(str::as_bytes), "{line}");
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, connection, keeps) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = request(&format!("GET / {version}\r\nHost: a\r\n{connection}\r\n"));
        assert_eq!(head.keeps_alive(), keeps, "{version} {connection:?}");
        let head = response(&format!("{version} 200 OK\r\n{connection}\r\n"));
        assert_eq!(head.keeps_alive(), keeps, "{version} {connection:?}");
    }
}

#[test]
fn a_client_waits_for_100_only_with_a_body_and_in_http_1_1() {
    let expects = |version: &str, fields: &str| {
        request(&format!("PUT / {version}\r\nHost: a\r\n{fields}\r\n")).expects_continue()
    };
    assert!(expects(
        "HTTP/1.1",
        "Expect: 100-Continue\r\nContent-Length: 1\r\n"
    ));
    assert!(expects(
        "HTTP/1.1",
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
    ));
    assert!(!expects("HTTP/1.1", "Expect: 100-continue\r\n"));
    assert!(!expects("HTTP/1.1", "Content-Length: 1\r\n"));
    assert!(!expects(
        "HTTP/1.0",
        "Expect: 100-continue\r\nContent-Length: 1\r\n"
    ));
}

#[test]
fn a_response_is_framed_by_what_was_asked() {
    let asked = |version, head, upgrade| Asked {
        version,
        head,
        upgrade,
    };
    let get = asked(Version::Http11, false, false);
    let head = asked(Version::Http11, true, false);
    let old = asked(Version::Http10, false, false);
    let framing = |text: &str, asked| response_framing(&response(text), asked);
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", get),
        Ok(Framing::Length(5))
    );
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head),
        Ok(Framing::None)
    );
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", get),
        Ok(Framing::Chunked)
    );
    assert_eq!(
        framing("HTTP/1.1 200 OK\r\n\r\n", get),
        Ok(Framing::UntilClose)
    );
    assert_eq!(
        framing("HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n", get),
        Ok(Framing::None)
    );
    assert_eq!(framing("HTTP/1.1 103 OK\r\n\r\n", get), Ok(Framing::None));
    assert_eq!(
        framing("HTTP/1.1 101 OK\r\n\r\n", get),
        Err(Bad::UpgradeUnasked)
    );
    assert_eq!(old.reframe(Framing::Chunked), Framing::UntilClose);
    assert_eq!(get.reframe(Framing::Chunked), Framing::Chunked);
}

#[test]
fn a_slow_head_is_told_from_an_idle_connection() {
    let mut scanner = Scanner::new();
    let mut buffer = BytesMut::new();
    assert!(matches!(
        parse_request(&mut buffer, &mut scanner, &Limits::default()),
        Ok(None)
    ));
    assert!(!scanner.has_begun());
    // What an old client sends after a body (RFC 9112 §2.2).
    buffer.extend_from_slice(b"\r\n");
    assert!(matches!(
        parse_request(&mut buffer, &mut scanner, &Limits::default()),
        Ok(None)
    ));
    assert!(!scanner.has_begun());
    buffer.extend_from_slice(b"G");
    assert!(matches!(
        parse_request(&mut buffer, &mut scanner, &Limits::default()),
        Ok(None)
    ));
    assert!(scanner.has_begun());
    buffer.extend_from_slice(b"ET / HTTP/1.0\r\n\r\n");
    assert!(matches!(
        parse_request(&mut buffer, &mut scanner, &Limits::default()),
        Ok(Some(_))
    ));
    assert!(!scanner.has_begun());
}

#[test]
fn limits_are_met_exactly() {
    let limits = Limits {
        head_bytes: 64,
        fields: 2,
        target_bytes: 8,
        ..Limits::default()
    };
    let read = |text: String| {
        let mut buffer = BytesMut::from(text.as_str());
        parse_request(&mut buffer, &mut Scanner::new(), &limits).map(|head| head.is_some())
    };
    assert_eq!(
        read(format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "a".repeat(7)
        )),
        Ok(true)
    );
    assert_eq!(
        read(format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "a".repeat(8)
        )),
        Err(Bad::TargetTooLong)
    );
    let padded = |length: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        head.replace("X: ", &format!("X: {}", "y".repeat(length - head.len())))
    };
    assert_eq!(read(padded(64)), Ok(true));
    assert_eq!(read(padded(65)), Err(Bad::HeadTooLarge));
    assert_eq!(
        read("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n".into()),
        Ok(true)
    );
    assert_eq!(
        read("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX: y\r\n".into()),
        Err(Bad::TooManyFields)
    );
}

#[test]
fn no_configuration_raises_the_number_of_fields_over_what_the_stack_holds() {
    let limits = Limits {
        fields: usize::MAX,
        ..Limits::default()
    };
    let text = |fields| format!("GET / HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(fields));
    let read = |fields| {
        let mut buffer = BytesMut::from(text(fields).as_str());
        parse_request(&mut buffer, &mut Scanner::new(), &limits).map(|head| head.is_some())
    };
    assert_eq!(read(MAX_FIELDS), Ok(true));
    assert_eq!(read(MAX_FIELDS + 1), Err(Bad::TooManyFields));
}

#[test]
fn a_head_at_its_limits_survives_the_second_sidecar() {
    let limits = Limits::default();
    let text = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(limits.fields - 1)
    );
    let head = request(&text);
    let mut out = BytesMut::new();
    let extra = [(
        http::HeaderName::from_static("weft-attempt"),
        http::HeaderValue::from_static("2"),
    )];
    let edit = Edit {
        framing: Framing::None,
        persistence: Persistence::Close,
        path: None,
        host: None,
        fields: None,
        extra: &extra,
    };
    encode_request(&mut out, &head, &edit);
    let read = |limits| {
        parse_request(&mut out.clone(), &mut Scanner::new(), limits).map(|head| head.is_some())
    };
    assert_eq!(read(&limits), Err(Bad::TooManyFields));
    assert_eq!(read(&limits.of_mesh()), Ok(true));
}
