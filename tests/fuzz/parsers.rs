//! The smaller parsers: detection, ClientHello, canonical paths, header values
//! and discovery responses. Nothing panics, and what is accepted keeps its promise.

use prost::Message;
use weft_proto::v1;
use weft_proxy::seams::parsers;

use crate::runner::{Campaign, INPUTS};

fn seeds(texts: &[&[u8]]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.to_vec()).collect()
}

#[test]
fn a_verdict_stands_whatever_follows() {
    let seeds = seeds(&[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO me\r\n",
    ]);
    let pieces: &[&[u8]] = &[b"\r\n", b" ", b"/", b"HTTP/", b"\x16\x03", b"PRI ", b"\0"];
    Campaign {
        seeds: &seeds,
        pieces,
    }
    .run(INPUTS, 1, |bytes, random| {
        let cut = random.usize(..=bytes.len());
        let early = parsers::classify(&bytes[..cut]);
        assert!(early == "need-more" || early == parsers::classify(bytes));
    });
}

#[test]
fn a_client_hello_is_read_or_refused() {
    let seeds = seeds(&[HELLO]);
    let pieces: &[&[u8]] = &[
        b"\x16\x03\x01",
        b"\x00\x10",
        b"weft1-h2",
        b"\x00\x00",
        b"\x01\x00",
    ];
    assert_eq!(
        parsers::client_hello(HELLO).unwrap(),
        [b"weft1-h2".to_vec()]
    );
    Campaign {
        seeds: &seeds,
        pieces,
    }
    .run(INPUTS / 5, 2, |bytes, _| {
        if let Some(names) = parsers::client_hello(bytes) {
            assert!(names.iter().all(|name| name.len() < 256));
        }
    });
}

#[test]
fn a_canonical_path_is_its_own_canonical_form() {
    let seeds = seeds(&[
        b"/",
        b"/a/b",
        b"/%41%2d/x;y",
        b"/a/../b",
        b"//a",
        b"/a%2fb",
        b"/caf%c3%a9",
    ]);
    let pieces: &[&[u8]] = &[
        b"/", b"%2f", b"%2e", b"..", b".", b"%", b"%00", b"\\", b";", b"%25", b"\xff",
    ];
    Campaign {
        seeds: &seeds,
        pieces,
    }
    .run(INPUTS, 3, |bytes, _| {
        if let Some(canonical) = parsers::canonical_path(bytes) {
            assert_eq!(parsers::canonical_path(&canonical), Some(canonical.clone()));
            let text = String::from_utf8(canonical).expect("ASCII");
            assert!(
                !text.contains("//") && !text.contains("/../") && !text.contains("/./"),
                "{text}"
            );
        }
    });
}

#[test]
fn header_values_are_read_or_ignored() {
    let seeds = seeds(&[
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"0000000000000000000000000000000000000000000000000000000",
        b"100m",
        b"99999999H",
        b"inbound/access-denied",
    ]);
    let pieces: &[&[u8]] = &[b"-", b"00", b"ff", b"/", b"S", b"n", b"\xff", b" "];
    Campaign {
        seeds: &seeds,
        pieces,
    }
    .run(INPUTS, 4, |bytes, _| {
        if let Some(id) = parsers::traceparent(bytes) {
            assert!(
                id.len() == 32 && id.bytes().any(|byte| byte != b'0'),
                "{id}"
            );
        }
        if let Some(milliseconds) = parsers::grpc_timeout(bytes) {
            assert!(milliseconds <= 99_999_999 * 3_600_000);
        }
        if let Some((side, reason)) = parsers::fault(bytes) {
            assert_eq!(format!("{side}/{reason}").as_bytes(), bytes);
        }
    });
}

#[test]
fn a_discovery_response_is_read_or_refused() {
    let address = v1::Address {
        meaning: Some(v1::address::Meaning::Workload(v1::Endpoint {
            uid: "shop/cart-0/1:80".to_owned(),
            address: "10.0.0.1".to_owned(),
            port: 80,
            identity: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
            mesh_protocols: vec!["weft1-h2".to_owned()],
            weight: 1,
            ..Default::default()
        })),
    };
    let response = v1::WatchResponse {
        nonce: 1,
        resources: vec![v1::Resource {
            name: Some(v1::Name {
                kind: v1::Kind::Address.into(),
                name: "10.0.0.1:80".to_owned(),
            }),
            version: 7,
            body: Some(v1::resource::Body::Address(address)),
        }],
        ..Default::default()
    };
    let seeds = [response.encode_to_vec()];
    assert!(parsers::discovery(&seeds[0]));
    let pieces: &[&[u8]] = &[
        b"\x08",
        b"\x12",
        b"\xff\xff\xff\xff\x0f",
        b"10.0.0.1",
        b"spiffe://",
    ];
    Campaign {
        seeds: &seeds,
        pieces,
    }
    .run(INPUTS, 5, |bytes, _| {
        parsers::discovery(bytes);
    });
}

/// The least ClientHello of TLS 1.3 (RFC 8446 §4.1.2): one cipher, one group,
/// one signature scheme, and our ALPN.
const HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x7f, 0x01, 0x00, 0x00, 0x7b, 0x03, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x13, 0x01,
    0x01, 0x00, 0x00, 0x50, 0x00, 0x2b, 0x00, 0x03, 0x02, 0x03, 0x04, 0x00, 0x0a, 0x00, 0x04, 0x00,
    0x02, 0x00, 0x1d, 0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03, 0x00, 0x33, 0x00, 0x26, 0x00,
    0x24, 0x00, 0x1d, 0x00, 0x20, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
    0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a,
    0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x00, 0x10, 0x00, 0x0b, 0x00, 0x09, 0x08, 0x77, 0x65, 0x66, 0x74,
    0x31, 0x2d, 0x68, 0x32,
];
