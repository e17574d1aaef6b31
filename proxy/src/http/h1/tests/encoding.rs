//! What is written that did not arrive.

use http::{HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::discovery::FieldEdits;

const GET: Asked = Asked {
    version: Version::Http11,
    head: false,
    upgrade: false,
};

fn edit(framing: Framing, persistence: Persistence) -> Edit<'static> {
    Edit {
        framing,
        persistence,
        path: None,
        host: None,
        fields: None,
        extra: &[],
    }
}

fn written_request(text: &str, edit: &Edit<'_>) -> String {
    let mut out = BytesMut::new();
    encode_request(&mut out, &request(text), edit);
    String::from_utf8(out.to_vec()).expect("text")
}

fn written_response(text: &str, asked: Asked, edit: &Edit<'_>) -> String {
    let mut out = BytesMut::new();
    encode_response(&mut out, &response(text), asked, edit);
    String::from_utf8(out.to_vec()).expect("text")
}

#[test]
fn extra_fields_come_last() {
    let extra = [(
        HeaderName::from_static("weft-attempt"),
        HeaderValue::from_static("2"),
    )];
    let edit = Edit {
        extra: &extra,
        ..edit(Framing::None, Persistence::Close)
    };
    assert_eq!(
        written_request("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &edit),
        "GET / HTTP/1.1\r\nHost: a\r\nconnection: close\r\nweft-attempt: 2\r\n\r\n"
    );
}

#[test]
fn fields_of_the_mesh_are_never_passed_on() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nweft-attempt: 2\r\nWEFT-x: 3\r\n\r\n";
    assert_eq!(
        written_request(text, &edit(Framing::None, Persistence::KeepAlive)),
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn an_upgrade_is_never_answered_with_close() {
    let text = "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let asked = Asked {
        upgrade: true,
        ..GET
    };
    assert_eq!(
        written_response(text, asked, &edit(Framing::None, Persistence::Close)),
        text
    );
}

#[test]
fn close_is_announced_once() {
    let text =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        written_response(text, GET, &edit(Framing::Length(0), Persistence::Close)),
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn framing_is_announced_where_the_head_does_not() {
    let text = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
    assert_eq!(
        written_response(
            text,
            GET,
            &edit(Framing::Length(70), Persistence::KeepAlive)
        ),
        "HTTP/1.1 200 OK\r\nX: y\r\ncontent-length: 70\r\n\r\n"
    );
    assert_eq!(
        written_response(text, GET, &edit(Framing::Chunked, Persistence::KeepAlive)),
        "HTTP/1.1 200 OK\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(
        written_response(text, GET, &edit(Framing::UntilClose, Persistence::Close)),
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    );
}

#[test]
fn an_answer_of_our_own_is_framed_for_its_asker() {
    let fields = [(
        HeaderName::from_static("proxy-status"),
        HeaderValue::from_static("weft; error=x"),
    )];
    let written = |asked, persistence| {
        let mut out = BytesMut::new();
        encode_answer(
            &mut out,
            StatusCode::SERVICE_UNAVAILABLE,
            &fields,
            b"no\n",
            asked,
            persistence,
        );
        String::from_utf8(out.to_vec()).expect("text")
    };
    let head =
        "HTTP/1.1 503 Service Unavailable\r\nproxy-status: weft; error=x\r\ncontent-length: 3\r\n";
    assert_eq!(
        written(GET, Persistence::KeepAlive),
        format!("{head}\r\nno\n")
    );
    assert_eq!(
        written(GET, Persistence::Close),
        format!("{head}connection: close\r\n\r\nno\n")
    );
    assert_eq!(
        written(Asked { head: true, ..GET }, Persistence::KeepAlive),
        format!("{head}\r\n")
    );
    let old = Asked {
        version: Version::Http10,
        ..GET
    };
    assert_eq!(
        written(old, Persistence::KeepAlive),
        format!("{head}connection: keep-alive\r\n\r\nno\n")
    );
}

#[test]
fn chunk_sizes_are_hexadecimal() {
    for length in [1, 9, 10, 15, 16, 255, 256, 65_535, 65_536, 0x1234_5678] {
        let mut out = BytesMut::new();
        encode_chunk_start(&mut out, length);
        assert_eq!(&out[..], format!("{length:x}\r\n").as_bytes());
    }
    let mut out = BytesMut::new();
    encode_chunk(&mut out, b"");
    assert!(out.is_empty(), "an empty chunk would end the body");
}

fn edits() -> FieldEdits {
    let value = HeaderValue::from_static;
    let mut edits = FieldEdits::default();
    edits.set(&HeaderName::from_static("x-set"), value("new"));
    edits.add(&HeaderName::from_static("x-add"), value("2"));
    edits.remove(&HeaderName::from_static("x-remove"));
    edits
}

#[test]
fn a_filter_changes_its_fields_and_leaves_the_others_as_they_came() {
    let edits = edits();
    let edit = Edit {
        fields: Some(&edits),
        ..edit(Framing::None, Persistence::KeepAlive)
    };
    let head = "X-Set: a\r\nX-oDd:  b \r\nx-set: c\r\nX-Add: 1\r\nX-REMOVE: d\r\nx-last:e\r\n\r\n";
    let expected = "X-oDd:  b \r\nX-Add: 1\r\nx-last:e\r\nx-set: new\r\nx-add: 2\r\n\r\n";
    assert_eq!(
        written_request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{head}"), &edit),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}")
    );
    let edit = Edit {
        framing: Framing::Length(0),
        ..edit
    };
    assert_eq!(
        written_response(
            &format!("HTTP/1.1 299 So  So\r\nContent-Length: 0\r\n{head}"),
            GET,
            &edit
        ),
        format!("HTTP/1.1 299 So  So\r\nContent-Length: 0\r\n{expected}")
    );
}

#[test]
fn a_rewritten_host_stands_wherever_the_host_stood() {
    let edit = Edit {
        host: Some(b"b.example"),
        ..edit(Framing::None, Persistence::KeepAlive)
    };
    for (asked, expected) in [
        (
            "GET /x?y=/z HTTP/1.1\r\nA: 1\r\nHOST: a:80\r\nB: 2\r\n\r\n",
            "GET /x?y=/z HTTP/1.1\r\nA: 1\r\nHOST: b.example\r\nB: 2\r\n\r\n",
        ),
        (
            "GET http://a:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET http://b.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nA: 1\r\n\r\n",
            "GET / HTTP/1.0\r\nA: 1\r\nhost: b.example\r\nconnection: keep-alive\r\n\r\n",
        ),
    ] {
        assert_eq!(written_request(asked, &edit), expected);
    }
    let both = Edit {
        path: Some(b"/new"),
        ..edit
    };
    assert_eq!(
        written_request("GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", &both),
        "GET http://b.example/new?y HTTP/1.1\r\nHost: b.example\r\n\r\n"
    );
}

/// RFC 9110 §8.6.
#[test]
fn an_answer_without_content_tells_no_length() {
    let mut out = BytesMut::new();
    let status = StatusCode::NO_CONTENT;
    encode_answer(&mut out, status, &[], b"", GET, Persistence::KeepAlive);
    assert_eq!(&out[..], b"HTTP/1.1 204 No Content\r\n\r\n");
}
