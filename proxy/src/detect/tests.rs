//! Verdicts over bytes however they are cut, and the driver under a paused clock.

use std::{future, pin::pin, sync::Arc};

use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

#[test]
fn each_protocol_is_told_by_its_first_bytes() {
    for (bytes, verdict) in [
        (&b"GET / HTTP/1.1\r\n"[..], Verdict::Http1),
        (b"GET /", Verdict::Http1),
        (b"PROPFIND /x", Verdict::Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", Verdict::Http1),
        (b"OPTIONS * HTTP/1.1\r\n", Verdict::Http1),
        (b"CONNECT example.org:443 HTTP/1.1\r\n", Verdict::Http1),
        (b"GET http://example.org/ HTTP/1.1\r\n", Verdict::Http1),
        (b"\r\nGET / HTTP/1.1\r\n", Verdict::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::Http2),
        (b"\x16\x03\x01\x02\x00", Verdict::Tls),
        (b"\x16\x03", Verdict::Tls),
        (b"*1\r\n$4\r\nPING\r\n", Verdict::Opaque),
        (b"PING\r\n", Verdict::Opaque),
        (b"SET key value\r\n", Verdict::Opaque),
        (b"GET key\r\n", Verdict::Opaque),
        (b"EHLO example.org\r\n", Verdict::Opaque),
        (b"INVITE sip:bob@example.org SIP/2.0\r\n", Verdict::Opaque),
        (b"CONNECT\naccept-version:1.2\n", Verdict::Opaque),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Verdict::Opaque),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Verdict::Opaque),
        (b"AMQP\x00\x00\x09\x01", Verdict::Opaque),
        (b"{\"method\": \"ping\"}", Verdict::Opaque),
        (b"\x16\x02\x01", Verdict::Opaque),
    ] {
        assert_eq!(
            classify(bytes),
            verdict,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn a_malformed_request_line_is_left_to_the_strict_parser() {
    for line in [
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "get / HTTP/1.1",
        "GET/ HTTP/1.1",
        "GET foo HTTP/1.1",
        "GET / HTTP/9.9",
        "GET / http/1.1",
        "GET /",
        "GET /a b c",
        "GET /\0 HTTP/1.1",
        "TOOLONGBUTSTILLAMETHOD / HTTP/1.1",
    ] {
        for end in ["\r\n\r\n", "\n\n"] {
            let bytes = format!("{line}{end}");
            assert_eq!(classify(bytes.as_bytes()), Verdict::Http1, "{bytes:?}");
        }
    }
    assert_eq!(classify(b"PRI * HTTP/2.0\r\n\r\n"), Verdict::NeedMore);
    assert_eq!(settle(b"PRI * HTTP/2.0\r\n\r\n"), Verdict::Http1);
    assert_eq!(settle(b"GE"), Verdict::Opaque);
}

#[test]
fn nothing_is_waited_for_without_bound() {
    assert_eq!(classify(&[b'A'; METHOD_LIMIT + 1]), Verdict::Opaque);
    let long = |start: &str| format!("{start} {}", "x".repeat(LINE_LIMIT));
    assert_eq!(classify(long("GET").as_bytes()), Verdict::Http1);
    assert_eq!(classify(long("AUTH").as_bytes()), Verdict::Opaque);
    let mut endless = vec![0x16, 3, 1, 0xff, 0xff];
    endless.resize(HELLO_LIMIT, 0);
    assert_eq!(client_hello(&endless), Hello::Unreadable);
    assert_eq!(
        client_hello(endless.get(..HELLO_LIMIT - 1).unwrap()),
        Hello::NeedMore
    );
}

proptest! {
    #[test]
    fn a_verdict_does_not_depend_on_how_the_bytes_were_cut(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[\r\n]{0,3}[A-Za-z@-]{0,40}[ \t]?[/*a-z]{0,4}[ \t]?(HTTP/)?[12.\0]{0,3}\r?\n?[a-z]{0,9}".prop_map(String::into_bytes),
            "PRI \\* HTTP/2.0\r\n\r\nSM[\r\n]{0,4}x?".prop_map(String::into_bytes),
            "\u{16}[\u{3}\u{2}]?[\u{0}-\u{7f}]{0,8}".prop_map(String::into_bytes),
        ],
        cut in 0..64usize,
    ) {
        let whole = classify(&bytes);
        let part = classify(bytes.get(..cut).unwrap_or(&bytes));
        prop_assert!(part == Verdict::NeedMore || part == whole, "{part:?}, then {whole:?}");
    }

    #[test]
    fn a_client_hello_of_any_bytes_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _any = client_hello(&bytes);
        let mut record = vec![0x16, 3, 1, 0, bytes.len().min(255) as u8, 1, 0, 0];
        record.extend(bytes);
        let _any = client_hello(&record);
    }
}

/// What a client with these protocols says first.
fn hello_of(alpn: &[&str], fragment: Option<usize>) -> Vec<u8> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.max_fragment_size = fragment;
    let mut client =
        ClientConnection::new(Arc::new(config), "cart.shop".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn a_client_hello_is_read_over_records_and_segments() {
    for fragment in [None, Some(64)] {
        let bytes = hello_of(&["weft1-h2", "h2"], fragment);
        assert_eq!(classify(&bytes), Verdict::Tls);
        for cut in 0..bytes.len() {
            assert_eq!(
                client_hello(bytes.get(..cut).unwrap()),
                Hello::NeedMore,
                "{cut} of {}",
                bytes.len()
            );
        }
        let Hello::Complete(hello) = client_hello(&bytes) else {
            panic!("unreadable")
        };
        assert_eq!(hello.server_name.as_deref(), Some("cart.shop"));
        assert!(hello.is_mesh());
    }
}

#[test]
fn an_applications_own_tls_is_not_taken_for_a_sidecars() {
    for alpn in [&[][..], &["h2", "http/1.1"], &["weft1"], &["weft1-h2x"]] {
        let Hello::Complete(hello) = client_hello(&hello_of(alpn, None)) else {
            panic!("unreadable")
        };
        assert!(!hello.is_mesh(), "{alpn:?}");
    }
}

/// A connection over loopback: the client's end and ours.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (client, listener.accept().await.unwrap().0)
}

const PATIENCE: Patience = Patience {
    silence: Duration::from_millis(5),
    stall: Duration::from_secs(1),
    refusal: Duration::from_secs(1),
};

/// The driver, with a server that speaks `after` it was first asked.
async fn detect(stream: &TcpStream, after: Option<Duration>) -> (First<Instant>, BytesMut) {
    let mut buffer = BytesMut::new();
    let server = pin!(async {
        match after {
            Some(after) => sleep(after).await,
            None => future::pending().await,
        }
        Instant::now()
    });
    let first = first_bytes(stream, &mut buffer, server, &PATIENCE)
        .await
        .unwrap();
    (first, buffer)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_first_is_asked_after_the_silence() {
    let (_client, ours) = pair().await;
    let started = Instant::now();
    let (first, buffer) = detect(&ours, Some(Duration::from_millis(3))).await;
    let First::Server(spoke) = first else {
        panic!("{first:?}")
    };
    let waited = spoke - started;
    assert!(
        (Duration::from_millis(8)..Duration::from_millis(11)).contains(&waited),
        "{waited:?}"
    );
    assert_eq!(buffer.capacity(), 0);
}

#[tokio::test]
async fn a_client_that_speaks_at_once_is_not_made_to_wait_for_the_server() {
    let (mut client, ours) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut buffer = BytesMut::new();
    let server = pin!(async { panic!("the server was asked") });
    let long = Patience {
        silence: Duration::from_secs(60),
        ..PATIENCE
    };
    let first: First<()> = first_bytes(&ours, &mut buffer, server, &long)
        .await
        .unwrap();
    assert!(matches!(first, First::Client(Verdict::Http1)));
    assert_eq!(&buffer[..], b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_idles_for_long_and_then_speaks_http_is_http() {
    let (mut client, ours) = pair().await;
    let talk = async {
        sleep(Duration::from_secs(50)).await;
        client.write_all(b"GET /").await.unwrap();
    };
    let ((first, buffer), ()) = tokio::join!(detect(&ours, None), talk);
    assert!(matches!(first, First::Client(Verdict::Http1)));
    assert_eq!(&buffer[..], b"GET /");
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_stalls_is_opaque_and_none_of_it_is_lost() {
    let (mut client, ours) = pair().await;
    client.write_all(b"GE").await.unwrap();
    let started = Instant::now();
    let (first, buffer) = detect(&ours, None).await;
    assert!(matches!(first, First::Client(Verdict::Opaque)));
    assert!(started.elapsed() >= PATIENCE.stall);
    assert_eq!(&buffer[..], b"GE");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_begun_is_not_silent() {
    let (mut client, ours) = pair().await;
    client.write_all(b"GE").await.unwrap();
    let talk = async {
        sleep(PATIENCE.silence * 20).await;
        client.write_all(b"T /").await.unwrap();
    };
    let mut buffer = BytesMut::new();
    let server = pin!(async { panic!("the server was asked") });
    let (first, ()) = tokio::join!(first_bytes(&ours, &mut buffer, server, &PATIENCE), talk);
    let first: First<()> = first.unwrap();
    assert!(matches!(first, First::Client(Verdict::Http1)));
}

#[tokio::test(start_paused = true)]
async fn a_preface_in_pieces_is_http2() {
    let (mut client, ours) = pair().await;
    let talk = async {
        for piece in PREFACE.chunks(5) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let ((first, buffer), ()) = tokio::join!(detect(&ours, None), talk);
    assert!(matches!(first, First::Client(Verdict::Http2)));
    assert_eq!(&buffer[..], PREFACE);
}

#[tokio::test]
async fn a_client_that_sends_fin_first_may_still_wait_for_the_server() {
    let (mut client, ours) = pair().await;
    client.shutdown().await.unwrap();
    assert!(matches!(detect(&ours, None).await.0, First::ClientFinished));
    let (client, ours) = pair().await;
    crate::sock::reset(client);
    let mut buffer = BytesMut::new();
    let never = pin!(future::pending::<()>());
    assert!(
        first_bytes(&ours, &mut buffer, never, &PATIENCE)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_client_hello_is_awaited_whole() {
    let (mut client, ours) = pair().await;
    let bytes = hello_of(&["weft1-tcp"], None);
    let talk = async {
        for piece in bytes.chunks(100) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut buffer = BytesMut::new();
    let (hello, ()) = tokio::join!(
        read_client_hello(&ours, &mut buffer, Duration::from_secs(10)),
        talk
    );
    assert!(matches!(hello.unwrap(), Hello::Complete(hello) if hello.is_mesh()));
    assert_eq!(&buffer[..], bytes);
}

#[test]
fn settings_of_an_http2_server_are_no_greeting_and_others_are() {
    let none = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let two = [
        0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100, 0, 5, 0, 0, 64, 0,
    ];
    for greeting in [&none[..], &two] {
        assert!(is_http2_greeting(greeting), "{greeting:?}");
    }
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let ragged = [0, 0, 7, 4, 0, 0, 0, 0, 0];
    for other in [
        &b"220 mail\r\n"[..],
        b"",
        &none[..8],
        &acknowledged,
        &ragged,
    ] {
        assert!(!is_http2_greeting(other), "{other:?}");
    }
}
