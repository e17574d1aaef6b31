//! HTTP/1 through two sidecars: every byte that the other end can see.

use std::time::Duration;

use weft_tests::{
    raw::{End, Message, Step, send},
    world,
};

use crate::pair::{Pair, Ran, Script};

/// A client that sends one request and hears everything until the end.
fn once(request: impl AsRef<[u8]>, answer: impl AsRef<[u8]>) -> Script {
    Script {
        client: vec![send(request), Step::HearAll],
        application: vec![vec![Step::Hear("\r\n\r\n"), send(answer)]],
    }
}

/// A client that sends requests one after the other on one connection.
fn kept(exchanges: &[(&str, &str, &'static str)]) -> Script {
    let (mut client, mut application) = (Vec::new(), Vec::new());
    for (request, answer, last) in exchanges {
        client.extend([send(request), Step::Hear(last)]);
        application.extend([Step::Hear("\r\n\r\n"), send(answer)]);
    }
    Script {
        client,
        application: vec![application],
    }
}

/// Without what each hop says to its neighbour alone (RFC 9110 §7.6.1).
fn end_to_end(messages: Vec<Message>) -> Vec<Message> {
    let of_hop = |line: &str| line.to_lowercase().starts_with("connection:");
    let strip = |mut message: Message| {
        let lines: Vec<&str> = message
            .head
            .split("\r\n")
            .filter(|line| !of_hop(line))
            .collect();
        message.head = lines.join("\r\n");
        message
    };
    messages.into_iter().map(strip).collect()
}

/// In what a run with the mesh differs.
fn differences(with: &Ran, without: &Ran) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, with: Vec<Message>, without: Vec<Message>| {
        let (with, without) = (end_to_end(with), end_to_end(without));
        if with != without {
            all.push(format!(
                "{what}:\n  with the mesh {with:#?}\n  without {without:#?}"
            ));
        }
    };
    differ("requests", with.requests(), without.requests());
    differ("answers", with.answers(), without.answers());
    if with.client.end != without.client.end {
        all.push(format!(
            "the client's end: {:?}, without {:?}",
            with.client.end, without.client.end
        ));
    }
    all
}

fn same(pair: &Pair, cases: &[(&str, Script)]) {
    let mut wrong = Vec::new();
    for (name, script) in cases {
        let (with, without) = pair.run(script);
        assert_ne!(
            without.client.end,
            End::TimedOut,
            "{name}: the script is wrong: {without:#?}"
        );
        for difference in differences(&with, &without) {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heads_arrive_as_they_were_written() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let long = "x".repeat(7000);
    let many: String = (0..15)
        .map(|at| format!("X-Long-{at}: {}\r\n", "y".repeat(4000)))
        .collect();
    let cases = [
        (
            "case, order, duplicates, empty values, white space",
            kept(&[(
                "GET /a%2Fb//c/../d?x=1&x=2 HTTP/1.1\r\nhOsT: raw.shop\r\nX-A: 1\r\nx-a: 2\r\nX-Empty:\r\nAccept:*/*\r\nX-Tab:\ta b \r\nUser-Agent: it\r\n\r\n",
                "HTTP/1.1 200 All Right\r\nX-Zed: 1\r\nsEt-CoOkie: a\r\nSet-Cookie: b\r\nServer: mine\r\nx-Empty:\r\nContent-LENGTH: 2\r\n\r\nhi",
                "hi",
            )]),
        ),
        (
            "no reason phrase",
            kept(&[(
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi",
                "hi",
            )]),
        ),
        (
            "unusual status and methods",
            kept(&[
                (
                    "PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 299 Odd Thing\r\nContent-Length: 1\r\n\r\n1",
                    "1",
                ),
                (
                    "M-SEARCH /x HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 799 Odder\r\nContent-Length: 1\r\n\r\n2",
                    "2",
                ),
            ]),
        ),
        (
            "OPTIONS *",
            kept(&[("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ok, "hi")]),
        ),
        (
            "absolute form",
            kept(&[(
                "GET http://raw.shop/x HTTP/1.1\r\nHost: raw.shop\r\n\r\n",
                ok,
                "hi",
            )]),
        ),
        (
            "a long target",
            kept(&[(
                &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
                ok,
                "hi",
            )]),
        ),
        (
            "60 KiB of fields, both ways",
            kept(&[(
                &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
                &format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 2\r\n\r\nhi"),
                "\r\n\r\nhi",
            )]),
        ),
        (
            "bytes that are not ASCII",
            Script {
                client: vec![
                    send(
                        b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: \xe9t\xe9 \xf0\x9f\x98\x80\r\n\r\n",
                    ),
                    Step::Hear("hi"),
                ],
                application: vec![vec![
                    Step::Hear("\r\n\r\n"),
                    send(b"HTTP/1.1 200 \xc3\x96K\r\nX-Name: \xff\r\nContent-Length: 2\r\n\r\nhi"),
                ]],
            },
        ),
        (
            "several requests on one connection",
            kept(&[
                ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", ok, "hi"),
                ("GET /2 HTTP/1.1\r\nHost: b\r\n\r\n", ok, "hi"),
                ("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n", ok, "hi"),
            ]),
        ),
    ];
    same(&pair, &cases);
}

#[test]
fn bodies_keep_their_bytes_trailers_and_ends() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let cases = [
        (
            "a request with a length",
            Script {
                client: vec![
                    send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
                    Step::Hear("hi"),
                ],
                application: vec![vec![
                    Step::Hear("hello"),
                    send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi"),
                ]],
            },
        ),
        (
            "an empty body",
            kept(&[(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "\r\n\r\n",
            )]),
        ),
        (
            "chunks and trailers both ways",
            Script {
                client: vec![
                    send(
                        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                    ),
                    send("5\r\ndefgh\r\n0\r\nX-Sum: 1\r\nx-other: 2\r\n\r\n"),
                    Step::Hear("X-End: 2\r\n\r\n"),
                ],
                application: vec![vec![
                    Step::Hear("x-other: 2\r\n\r\n"),
                    send(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 3\r\nX-End: 2\r\n\r\n",
                    ),
                ]],
            },
        ),
        (
            "HEAD, then another request",
            kept(&[
                (
                    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-H: 1\r\n\r\n",
                    "X-H: 1\r\n\r\n",
                ),
                (
                    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                    "\r\n\r\nhi",
                ),
            ]),
        ),
        (
            "204 and 304, then another request",
            kept(&[
                (
                    "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 204 No Content\r\nX-H: 1\r\n\r\n",
                    "X-H: 1\r\n\r\n",
                ),
                (
                    "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n",
                    "\"x\"\r\n\r\n",
                ),
                (
                    "GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                    "\r\n\r\nhi",
                ),
            ]),
        ),
        (
            "an answer that ends with the connection",
            once(
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nuntil the end",
            ),
        ),
        (
            "HTTP/1.0 without a host",
            once(
                "GET /old HTTP/1.0\r\nX-A: 1\r\n\r\n",
                "HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nuntil the end",
            ),
        ),
        (
            "HTTP/1.0 client of an HTTP/1.1 server",
            once(
                "GET /old HTTP/1.0\r\nHost: a\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            ),
        ),
        (
            "HTTP/1.0 keep-alive",
            kept(&[
                (
                    "GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
                    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
                    "hi",
                ),
                (
                    "GET /2 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
                    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nho",
                    "ho",
                ),
            ]),
        ),
    ];
    same(&pair, &cases);
}

#[test]
fn interim_answers_come_when_and_only_when_the_application_sends_them() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let upload = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let quiet = Step::Silence(Duration::from_millis(300));
    let cases = [
        (
            "100 by the application",
            Script {
                client: vec![
                    send(upload),
                    Step::Hear("HTTP/1.1 100 Go On\r\n\r\n"),
                    send("hello"),
                    Step::Hear("hi"),
                ],
                application: vec![vec![
                    Step::Hear("\r\n\r\n"),
                    send("HTTP/1.1 100 Go On\r\n\r\n"),
                    Step::Hear("hello"),
                    send(ok),
                ]],
            },
        ),
        (
            "no 100: the client waits, then sends",
            Script {
                client: vec![send(upload), quiet.clone(), send("hello"), Step::Hear("hi")],
                application: vec![vec![Step::Hear("hello"), send(ok)]],
            },
        ),
        (
            "417 instead",
            Script {
                client: vec![send(upload), Step::HearAll],
                application: vec![vec![
                    Step::Hear("\r\n\r\n"),
                    send("HTTP/1.1 417 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"),
                ]],
            },
        ),
        (
            "103 and 102, then the answer",
            Script {
                client: vec![
                    send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
                    Step::Hear("103 Early Hints\r\nLink: </a>\r\n\r\n"),
                    Step::Hear("hi"),
                ],
                application: vec![vec![
                    Step::Hear("\r\n\r\n"),
                    send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
                    send("HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\n"),
                    send(ok),
                ]],
            },
        ),
        (
            "an answer during the upload",
            Script {
                client: vec![
                    send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst"),
                    Step::Hear("no"),
                ],
                application: vec![vec![
                    Step::Hear("first"),
                    send(
                        "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
                    ),
                ]],
            },
        ),
    ];
    same(&pair, &cases);
}

#[test]
fn an_answer_after_which_the_connection_ends_says_so() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    for end in [
        "Connection: close\r\nContent-Length: 2\r\n\r\nno",
        "\r\nuntil the end",
    ] {
        let upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst";
        let script = Script {
            client: vec![send(upload), Step::HearAll],
            application: vec![vec![
                Step::Hear("first"),
                send(format!("HTTP/1.1 413 Too Much\r\n{end}")),
            ]],
        };
        let ran = pair.meshed.run(pair.port(), &script);
        let heard = ran.client.text();
        assert!(heard.starts_with("HTTP/1.1 413"), "{heard}");
        assert!(
            heard.to_lowercase().contains("connection: close"),
            "{heard}"
        );
        assert_eq!(ran.client.end, End::Closed);
    }
}

#[test]
fn http_1_0_requests_arrive_byte_by_byte() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    for request in [
        "GET /old HTTP/1.0\r\nX-A: 1\r\n\r\n",
        "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let answer = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let (with, without) = pair.run(&kept(&[(request, answer, "hi")]));
        assert_eq!(
            with.application[0].text().to_lowercase(),
            without.application[0].text().to_lowercase()
        );
    }
}

#[test]
fn websockets_pass_and_other_upgrades_do_not() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let websocket = Script {
        client: vec![
            send(
                "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            ),
            Step::Hear("\r\n\r\n"),
            send(b"\x81\x85\x01\x02\x03\x04ignfn"),
            Step::Hear("\u{2}hi"),
            Step::HearAll,
        ],
        application: vec![vec![
            Step::Hear("\r\n\r\n"),
            send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            ),
            Step::Hear("fn"),
            send(b"\x81\x02hi"),
        ]],
    };
    let (with, without) = pair.run(&websocket);
    assert_eq!(with.client, without.client);
    assert_eq!(with.application[0].bytes, without.application[0].bytes);

    let (with, _) = pair.run(&kept(&[(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "hi",
    )]));
    let heard = with.application[0].text().to_lowercase();
    assert!(
        !heard.contains("upgrade") && !heard.contains("http2-settings"),
        "{heard}"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let answer = |body: &str| {
        send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"
        ))
    };
    let three: String = (1..4)
        .map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let script = Script {
        client: vec![
            send(three),
            Step::Hear("a1"),
            Step::Hear("a2"),
            Step::Hear("a3"),
        ],
        application: vec![vec![
            Step::Hear("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            answer("a1"),
            Step::Hear("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
            answer("a2"),
            Step::Hear("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n"),
            answer("a3"),
        ]],
    };
    same(&pair, &[("pipelined", script)]);
}

#[test]
fn connect_is_refused_by_name_and_never_arrives() {
    if !world::possible() {
        return;
    }
    let pair = Pair::new();
    let script = Script {
        client: vec![
            send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
            Step::Hear("\r\n\r\n"),
        ],
        application: Vec::new(),
    };
    let ran = pair.meshed.run(pair.port(), &script);
    let heard = ran.client.text();
    assert!(heard.starts_with("HTTP/1.1 501"), "{heard}");
    assert!(heard.contains("connect-method"), "{heard}");
}
