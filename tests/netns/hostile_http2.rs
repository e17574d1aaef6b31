//! Hostile HTTP/2, frame by frame: the attacker's stream or connection ends by
//! name, the application has seen nothing, everybody else is served meanwhile,
//! and the proxy's memory stays where it was.
//!
//! What ends is told by its error code (RFC 9113 §7); a connection that broke
//! the rules is also a fault in the log and in the counters.

use std::{io::Write, net::TcpStream, time::Duration};

use http::{HeaderMap, Request};
use weft_tests::{
    http2::{
        self, Application, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Met, PING,
        PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, preface,
    },
    wait,
    world::{self, Pod, World},
};

const PORT: u16 = 8080;

/// Codes of RFC 9113 §7.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

struct Case {
    name: &'static str,
    /// What is sent behind the preface.
    bytes: fn() -> Vec<u8>,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// The stream or the connection, with one of these codes.
    With(&'static [u32]),
    /// Answered so.
    Answered(u16),
    /// Nothing that is sent is wrong; it may stay open, and be read slowly.
    Endured,
}

const PSEUDO: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "app"),
    (":path", "/hostile"),
];

/// A request with more fields.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    only(&[&PSEUDO[..], fields].concat())
}

/// A request with these fields alone.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))
}

/// A request on stream `id` whose body is to come.
fn open(id: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS,
        id,
        &block(&[&PSEUDO[..], fields].concat()),
    )
}

fn many(count: u32, of: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(of).collect()
}

const MALFORMED: Ends = Ends::With(&[PROTOCOL]);

const CASES: &[Case] = &[
    // ── pseudo fields (§8.3) ────────────────────────────────────────────────
    Case {
        name: "no :path",
        bytes: || only(&PSEUDO[..3]),
        ends: MALFORMED,
    },
    Case {
        name: "no :method",
        bytes: || only(&PSEUDO[1..]),
        ends: MALFORMED,
    },
    Case {
        name: "an empty :path",
        bytes: || only(&[PSEUDO[0], PSEUDO[1], PSEUDO[2], (":path", "")]),
        ends: MALFORMED,
    },
    Case {
        name: "two :method",
        bytes: || with(&[(":method", "POST")]),
        ends: MALFORMED,
    },
    Case {
        name: "two :path",
        bytes: || only(&[PSEUDO[0], PSEUDO[1], PSEUDO[2], PSEUDO[3], (":path", "/b")]),
        ends: MALFORMED,
    },
    Case {
        name: "an unknown pseudo field",
        bytes: || with(&[(":weft", "x")]),
        ends: MALFORMED,
    },
    Case {
        name: ":status in a request",
        bytes: || with(&[(":status", "200")]),
        ends: MALFORMED,
    },
    Case {
        name: "a pseudo field behind the others",
        bytes: || only(&[PSEUDO[0], PSEUDO[1], ("x", "y"), PSEUDO[2], PSEUDO[3]]),
        ends: MALFORMED,
    },
    // ── fields (§8.2) ───────────────────────────────────────────────────────
    Case {
        name: "an upper-case name",
        bytes: || with(&[("X-Upper", "y")]),
        ends: MALFORMED,
    },
    Case {
        name: "an empty name",
        bytes: || with(&[("", "y")]),
        ends: MALFORMED,
    },
    Case {
        name: "a space in a name",
        bytes: || with(&[("x y", "z")]),
        ends: MALFORMED,
    },
    Case {
        name: "a line feed in a value",
        bytes: || with(&[("x", "y\r\nz: 1")]),
        ends: MALFORMED,
    },
    Case {
        name: "a NUL in a value",
        bytes: || with(&[("x", "y\0z")]),
        ends: MALFORMED,
    },
    Case {
        name: "connection",
        bytes: || with(&[("connection", "close")]),
        ends: MALFORMED,
    },
    Case {
        name: "keep-alive",
        bytes: || with(&[("keep-alive", "5")]),
        ends: MALFORMED,
    },
    Case {
        name: "proxy-connection",
        bytes: || with(&[("proxy-connection", "x")]),
        ends: MALFORMED,
    },
    Case {
        name: "transfer-encoding",
        bytes: || with(&[("transfer-encoding", "chunked")]),
        ends: MALFORMED,
    },
    Case {
        name: "upgrade",
        bytes: || with(&[("upgrade", "websocket")]),
        ends: MALFORMED,
    },
    Case {
        name: "te that is not trailers",
        bytes: || with(&[("te", "gzip")]),
        ends: MALFORMED,
    },
    Case {
        name: "CONNECT",
        bytes: || only(&[(":method", "CONNECT"), (":authority", "app:80")]),
        ends: Ends::Answered(501),
    },
    Case {
        name: "a lane of our own",
        bytes: || {
            only(&[
                (":method", "CONNECT"),
                (":protocol", "weft1-h1"),
                PSEUDO[1],
                PSEUDO[2],
                PSEUDO[3],
            ])
        },
        ends: Ends::Answered(501),
    },
    Case {
        name: ":protocol without CONNECT",
        bytes: || only(&[&[(":protocol", "websocket")][..], &PSEUDO].concat()),
        ends: MALFORMED,
    },
    // ── the length of a body (§8.1.1) ───────────────────────────────────────
    Case {
        name: "a body shorter than its length",
        bytes: || {
            [
                open(1, &[("content-length", "5")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    Case {
        name: "a body longer than its length",
        bytes: || {
            [
                open(1, &[("content-length", "2")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    Case {
        name: "a length and no body",
        bytes: || with(&[("content-length", "5")]),
        ends: MALFORMED,
    },
    Case {
        name: "two lengths",
        bytes: || {
            [
                open(1, &[("content-length", "3"), ("content-length", "4")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    Case {
        name: "a length with a sign",
        bytes: || {
            [
                open(1, &[("content-length", "+3")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    // ── streams and frames (§5, §6) ─────────────────────────────────────────
    Case {
        name: "an even stream",
        bytes: || frame(HEADERS, END_STREAM | END_HEADERS, 2, &block(&PSEUDO)),
        ends: MALFORMED,
    },
    Case {
        name: "fields on stream 0",
        bytes: || frame(HEADERS, END_STREAM | END_HEADERS, 0, &block(&PSEUDO)),
        ends: MALFORMED,
    },
    Case {
        name: "data on an idle stream",
        bytes: || frame(DATA, END_STREAM, 1, b"abc"),
        ends: Ends::With(&[PROTOCOL, STREAM_CLOSED]),
    },
    Case {
        name: "a reset of an idle stream",
        bytes: || frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        ends: MALFORMED,
    },
    Case {
        name: "a promise of a client",
        bytes: || {
            [
                open(1, &[]),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    Case {
        name: "a frame between fields and their continuation",
        bytes: || {
            [
                frame(HEADERS, END_STREAM, 1, &block(&PSEUDO[..2])),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat()
        },
        ends: MALFORMED,
    },
    Case {
        name: "a continuation of nothing",
        bytes: || frame(CONTINUATION, END_HEADERS, 1, &block(&PSEUDO)),
        ends: MALFORMED,
    },
    Case {
        name: "a frame over the limit",
        bytes: || frame(DATA, 0, 1, &vec![0; 20_000]),
        ends: Ends::With(&[FRAME_SIZE]),
    },
    Case {
        name: "a ping of seven bytes",
        bytes: || frame(PING, 0, 0, &[0; 7]),
        ends: Ends::With(&[FRAME_SIZE, PROTOCOL]),
    },
    Case {
        name: "settings of five bytes",
        bytes: || frame(SETTINGS, 0, 0, &[0; 5]),
        ends: Ends::With(&[FRAME_SIZE, PROTOCOL]),
    },
    Case {
        name: "more padding than frame",
        bytes: || frame(DATA, 8, 1, &[200, 1, 2]),
        ends: MALFORMED,
    },
    Case {
        name: "an index that no table has",
        bytes: || frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0x03]),
        ends: Ends::With(&[COMPRESSION, PROTOCOL]),
    },
    Case {
        name: "a window over 2^31-1",
        bytes: || frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ends: Ends::With(&[FLOW_CONTROL]),
    },
    Case {
        name: "a window that grows by nothing",
        bytes: || frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ends: MALFORMED,
    },
    // ── floods ──────────────────────────────────────────────────────────────
    Case {
        name: "rapid resets",
        bytes: || {
            many(3000, |it| {
                [
                    open(2 * it + 1, &[]),
                    frame(RST_STREAM, 0, 2 * it + 1, &[0, 0, 0, 8]),
                ]
                .concat()
            })
        },
        ends: Ends::With(&[CALM]),
    },
    Case {
        name: "requests that have to be reset",
        bytes: || {
            many(3000, |it| {
                frame(
                    HEADERS,
                    END_STREAM | END_HEADERS,
                    2 * it + 1,
                    &block(&PSEUDO[..3]),
                )
            })
        },
        ends: Ends::With(&[CALM]),
    },
    Case {
        name: "continuations without end",
        bytes: || {
            [
                frame(HEADERS, END_STREAM, 1, &block(&PSEUDO)),
                many(2000, |_| {
                    frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(8000))]))
                }),
            ]
            .concat()
        },
        ends: Ends::With(&[CALM, PROTOCOL, COMPRESSION]),
    },
    Case {
        name: "empty continuations without end",
        bytes: || {
            [
                frame(HEADERS, END_STREAM, 1, &block(&PSEUDO)),
                many(100_000, |_| frame(CONTINUATION, 0, 1, &[])),
            ]
            .concat()
        },
        ends: Ends::With(&[CALM, PROTOCOL]),
    },
    Case {
        name: "a field list over the limit",
        bytes: || {
            many(1, |_| {
                [
                    frame(HEADERS, END_STREAM, 1, &block(&PSEUDO)),
                    many(11, |it| {
                        frame(
                            CONTINUATION,
                            if it == 10 { END_HEADERS } else { 0 },
                            1,
                            &block(&[("x", &"y".repeat(8000))]),
                        )
                    }),
                ]
                .concat()
            })
        },
        ends: Ends::Answered(431),
    },
    Case {
        name: "one small field over and over",
        bytes: || {
            frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &block(&[&PSEUDO[..], &[("x", "y"); 1000]].concat()),
            )
        },
        ends: Ends::Answered(431),
    },
    Case {
        name: "pings",
        bytes: || many(50_000, |_| frame(PING, 0, 0, &[7; 8])),
        ends: Ends::Endured,
    },
    Case {
        name: "settings",
        bytes: || many(50_000, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ends: Ends::Endured,
    },
    Case {
        name: "window updates",
        bytes: || many(50_000, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ends: Ends::Endured,
    },
    Case {
        name: "empty data",
        bytes: || [open(1, &[]), many(50_000, |_| frame(DATA, 0, 1, &[]))].concat(),
        ends: Ends::Endured,
    },
];

const FLOOD: usize = 64 << 10;

fn attack(client: &Pod, case: &Case) -> Result<(), String> {
    let bytes = [preface(), (case.bytes)()].concat();
    let mut stream = client.connect("app.shop", PORT);
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .map_err(|error| error.to_string())?;
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .map_err(|error| error.to_string())?;
    // The peer may end it before it has heard everything, or stop reading.
    let _ = stream.write_all(&bytes);
    if case.ends == Ends::Endured {
        return Ok(());
    }
    // Of the last stream, for floods of them.
    let met = met_any(&mut stream)?;
    let is_right = match (case.ends, met) {
        (Ends::With(codes), Met::Reset(code) | Met::GoneAway(code)) => codes.contains(&code),
        // Closing with a flood unread is a reset, which may overtake GOAWAY.
        (Ends::With(_), Met::Closed) => bytes.len() > FLOOD,
        (Ends::Answered(_), Met::Answered(status)) => status != Some(200),
        _ => false,
    };
    is_right
        .then_some(())
        .ok_or_else(|| format!("{met:?} instead of {:?}", case.ends))
}

/// How stream 1 or the connection ended; a flood is met by GOAWAY alone.
fn met_any(stream: &mut TcpStream) -> Result<Met, String> {
    let first = http2::met(stream, 1).map_err(|error| error.to_string())?;
    match first {
        Met::Reset(8 | 0) | Met::Closed => http2::met(stream, 1).map_err(|error| error.to_string()),
        other => Ok(other),
    }
}

#[test]
fn hostile_http2_ends_by_name_and_hurts_nobody_else() {
    if !world::possible() {
        return;
    }
    let mesh = World::with(
        true,
        &world::service("shop/app", &[PORT]),
        &[("WEFT_ACCESS_LOG_PER_SECOND", "100000")],
    );
    let app = mesh.idle("shop/app-0");
    let application = Application::start(app.listen(PORT), HeaderMap::new(), HeaderMap::new());
    let client = mesh.idle("shop/client-0");
    let other = mesh.idle("shop/other-0");
    let is_served = |from: &Pod| {
        let request = Request::get("http://app/other")
            .body(())
            .expect("a path is a URI");
        match http2::call(from.connect("app.shop", PORT), request) {
            Ok(call) if call.status == 200 => Ok(()),
            other => Err(format!("{}: {other:?}", from.name())),
        }
    };
    wait::until("the application", || is_served(&client).ok());
    wait::until("the application", || is_served(&other).ok());
    let before = client.proxy_memory();
    let _ = application.take();

    let mut wrong = Vec::new();
    for case in CASES {
        if let Err(why) = attack(&client, case) {
            wrong.push(format!("{}: {why}", case.name));
        }
        // Whole requests of an attacker may arrive; those that were wrong may not.
        let seen = application.take();
        if !may_arrive(case) && !seen.is_empty() {
            wrong.push(format!(
                "{}: the application got {} requests",
                case.name,
                seen.len()
            ));
        }
        for from in [&client, &other] {
            if let Err(why) = is_served(from) {
                wrong.push(format!("{}: served no longer: {why}", case.name));
            }
        }
        let _ = application.take();
    }
    let grown = client.proxy_memory().saturating_sub(before);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(grown < 24 << 20, "the proxy grew by {grown} bytes");
    let labels = [("reason", "malformed-request"), ("side", "outbound")];
    assert!(client.metrics().sum("weft_traffic_faults_total", &labels) > 10.0);
}

/// Bodies stream, so their head goes on before they turn out to be wrong.
fn may_arrive(case: &Case) -> bool {
    let begins = ["a body ", "a promise", "empty data", "rapid resets"];
    begins.iter().any(|begin| case.name.starts_with(begin))
}
