//! How each fault is provoked.
//!
//! A row does what a client or an attacker would do and returns what each of
//! them saw of the fault, once for each time that it happened.

use std::io::Write;

use http::Request;
use nix::sys::signal::Signal;
use weft_tests::{
    http2,
    probe::{Answer, Ended, Raw},
    rogue::{self, Authority, Validity},
    wait,
    world::Pod,
};

use super::shop::Shop;

pub(super) struct Row {
    pub(super) fault: &'static str,
    /// What is done.
    pub(super) how: &'static str,
    pub(super) tells: Tells,
    pub(super) reach: Reach,
    pub(super) provoke: fn(&Shop) -> Vec<Seen>,
}

/// Whose proxy makes the fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tells {
    Caller,
    Called,
    /// Of a pod whose proxy has lost its certificate: as caller.
    Uncertified,
    /// Of a pod whose proxy has lost its policy: as called.
    Unconfigured,
}

/// What the application gets of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    Nothing,
    /// The fault comes behind it.
    Request,
}

/// What a client saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Answer(Answer),
    Grpc {
        status: u16,
        grpc: Option<u8>,
        told: String,
    },
    Broken(Ended),
}

impl From<Result<Answer, Ended>> for Seen {
    fn from(result: Result<Answer, Ended>) -> Self {
        match result {
            Ok(answer) => Self::Answer(answer),
            Err(ended) => Self::Broken(ended),
        }
    }
}

/// Not provoked here, and why.
pub(super) const ELSEWHERE: &[(&str, &str)] = &[(
    "shutting-down",
    "what a stopping proxy drops when its grace is over: `record`'s own tests",
)];

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// A request with HTTP/1 and one with gRPC.
fn both(shop: &Shop, service: &str) -> Vec<Seen> {
    vec![get(shop, service), grpc(shop, service, "/shop.Cart/Add")]
}

fn get(shop: &Shop, service: &str) -> Seen {
    shop.connect(service).ask(GET).into()
}

fn ask(shop: &Shop, service: &str, request: &[u8]) -> Vec<Seen> {
    vec![shop.connect(service).ask(request).into()]
}

fn grpc(shop: &Shop, service: &str, path: &str) -> Seen {
    let stream = shop.client.connect(service, 80);
    match http2::grpc(stream, path) {
        Ok(call) => Seen::Grpc {
            status: call.status,
            grpc: call.grpc_status,
            told: call.field("proxy-status").unwrap_or_default().to_owned(),
        },
        Err(_) => Seen::Broken(Ended::Reset),
    }
}

/// A request with HTTP/2.
fn call(shop: &Shop, service: &str, request: Request<()>) -> Seen {
    let stream = shop.client.connect(service, 80);
    match http2::call(stream, request) {
        Ok(call) => Seen::Answer(Answer {
            status: call.status,
            head: call
                .fields
                .iter()
                .fold(String::new(), |head, (name, value)| {
                    let value = value.to_str().expect("ours are text");
                    format!("{head}\n{name}: {value}")
                }),
            body: call.body,
        }),
        Err(_) => Seen::Broken(Ended::Reset),
    }
}

/// Bytes, and how the connection ended; a reset may meet it at once.
fn broken(from: &Pod, host: &str, port: u16, bytes: &[u8]) -> Vec<Seen> {
    let Ok(stream) = from.try_connect(host, port) else {
        return vec![Seen::Broken(Ended::Reset)];
    };
    stream
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("not zero");
    let mut raw = Raw::new(stream);
    raw.send(bytes);
    vec![Seen::Broken(raw.ended())]
}

/// One that stays at the application until the row is over.
fn hold(shop: &Shop, service: &str, request: &[u8]) {
    let mut raw = shop.connect(service);
    raw.send(request);
    shop.held.borrow_mut().push(raw);
}

/// A mesh connection of our own to the application's port, and how it ends.
fn intrude(shop: &Shop, authority: &Authority, validity: Validity) -> Vec<Seen> {
    let stream = shop.stranger.connect(&shop.app.address().to_string(), 8008);
    let raw = stream.try_clone().expect("descriptors suffice");
    let identity = rogue::identity("shop", "client");
    let mut tls = rogue::client(
        stream,
        Some(authority.issue(&identity, validity)),
        rogue::TCP,
    );
    let _ = tls.write_all(b"GET /intruder HTTP/1.1\r\nHost: app\r\n\r\n");
    let _ = tls.flush();
    // An alert, and then the end: to a stranger that is as good as a reset.
    match Raw::new(raw).ended() {
        Ended::Open => vec![Seen::Broken(Ended::Open)],
        Ended::Closed | Ended::Reset => vec![Seen::Broken(Ended::Reset)],
    }
}

pub(super) const TABLE: &[Row] = &[
    // ── what the caller sends ───────────────────────────────────────────────
    Row {
        fault: "malformed-request",
        how: "white space before a colon",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| ask(shop, "plain", b"GET / HTTP/1.1\r\nHost : app\r\n\r\n"),
    },
    Row {
        fault: "malformed-request",
        how: "the same, from outside of the mesh",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let mut raw = shop.dial(&shop.stranger, &shop.app.address().to_string(), 8000);
            vec![raw.ask(b"GET / HTTP/1.1\r\nHost : app\r\n\r\n").into()]
        },
    },
    Row {
        fault: "ambiguous-path",
        how: "an encoded slash where path rules hold",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let mut seen = ask(
                shop,
                "guarded",
                b"GET /open%2fsecret HTTP/1.1\r\nHost: app\r\n\r\n",
            );
            seen.push(grpc(shop, "guarded", "/open%2fsecret"));
            seen
        },
    },
    Row {
        fault: "headers-too-large",
        how: "a field longer than WEFT_MAX_HEADER_BYTES",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            let long = "x".repeat(9000);
            ask(
                shop,
                "plain",
                format!("GET / HTTP/1.1\r\nHost: app\r\nX: {long}\r\n\r\n").as_bytes(),
            )
        },
    },
    Row {
        fault: "target-too-long",
        how: "a target longer than WEFT_MAX_TARGET_BYTES",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            let long = "x".repeat(2100);
            let mut seen = ask(
                shop,
                "plain",
                format!("GET /{long} HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes(),
            );
            seen.push(grpc(shop, "plain", &format!("/{long}")));
            seen
        },
    },
    Row {
        fault: "header-timeout",
        how: "a head that never ends",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| ask(shop, "plain", b"GET / HTTP/1.1\r\nHost: app\r\n"),
    },
    Row {
        fault: "connect-method",
        how: "CONNECT",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            ask(
                shop,
                "plain",
                b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n",
            )
        },
    },
    Row {
        fault: "connect-method",
        how: "CONNECT over HTTP/2",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            [
                http2::connect("app:80", None),
                http2::connect("http://app/", Some("connect-udp")),
                http2::connect("http://app/", Some("weft1-h1")),
            ]
            .map(|request| call(shop, "two", request))
            .into()
        },
    },
    Row {
        fault: "websocket-unsupported",
        how: "a WebSocket over HTTP/2 to an application that announces none",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let request = http2::connect("http://app/chat", Some("websocket"));
            vec![call(shop, "two", request)]
        },
    },
    // ── where it should go ──────────────────────────────────────────────────
    Row {
        fault: "no-route",
        how: "a path that no rule of the route has",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "routed"),
    },
    Row {
        fault: "backend-invalid",
        how: "a rule whose Service doesn't exist",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "broken"),
    },
    Row {
        fault: "no-endpoints",
        how: "a Service that selects nobody",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "empty"),
    },
    Row {
        fault: "no-local-endpoints",
        how: "a Service with internalTrafficPolicy: Local whose endpoint is on another node",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "elsewhere"),
    },
    Row {
        fault: "discovery-unavailable",
        how: "an address never asked for, while the control plane is frozen",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            shop.mesh.signal_control_plane(Signal::SIGSTOP);
            shop.frozen();
            let seen = broken(&shop.client, "10.96.200.200", 80, GET);
            shop.mesh.signal_control_plane(Signal::SIGCONT);
            seen
        },
    },
    Row {
        fault: "certificate-missing",
        how: "a proxy that restarts without its certificate while nobody issues one",
        tells: Tells::Uncertified,
        reach: Reach::Nothing,
        provoke: |shop| {
            shop.amnesia(
                &shop.uncertified,
                "identity.pem",
                &["plain", "tcp", "app-0"],
            );
            let mut seen = vec![shop.dial(&shop.uncertified, "plain", 80).ask(GET).into()];
            seen.extend(broken(&shop.uncertified, "tcp", 80, b"opaque"));
            shop.mesh.signal_control_plane(Signal::SIGCONT);
            seen
        },
    },
    Row {
        fault: "policy-missing",
        how: "a proxy that restarts without its configuration while nobody tells it",
        tells: Tells::Unconfigured,
        reach: Reach::Nothing,
        provoke: |shop| {
            shop.amnesia(&shop.unconfigured, "configuration.pb", &[]);
            let address = shop.unconfigured.address().to_string();
            let seen = broken(&shop.stranger, &address, 8000, GET);
            shop.mesh.signal_control_plane(Signal::SIGCONT);
            seen
        },
    },
    // ── limits ──────────────────────────────────────────────────────────────
    Row {
        fault: "too-many-connections",
        how: "one opaque connection, one waiting, and a third",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| {
            hold(shop, "tcp", b"first");
            shop.reached(b"first");
            hold(shop, "tcp", b"second");
            shop.waits("weft_endpoints_connections_pending");
            broken(&shop.client, "tcp", 80, b"third")
        },
    },
    Row {
        fault: "pending-timeout",
        how: "one opaque connection, and the next waits too long",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| {
            hold(shop, "brief", b"the only one");
            shop.reached(b"the only one");
            broken(&shop.client, "brief", 80, b"second")
        },
    },
    Row {
        fault: "too-many-requests",
        how: "one in flight, one waiting, and a third",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| {
            hold(shop, "busy", b"GET /busy HTTP/1.1\r\nHost: app\r\n\r\n");
            shop.reached(b"/busy");
            hold(shop, "busy", GET);
            shop.waits("weft_endpoints_requests_pending");
            both(shop, "busy")
        },
    },
    Row {
        fault: "pending-timeout",
        how: "one in flight, and the next waits too long",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| {
            hold(
                shop,
                "waiting",
                b"GET /waiting HTTP/1.1\r\nHost: app\r\n\r\n",
            );
            shop.reached(b"/waiting");
            both(shop, "waiting")
        },
    },
    // ── the way there ───────────────────────────────────────────────────────
    Row {
        fault: "connect-refused",
        how: "nothing listens in the pod",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "refused"),
    },
    Row {
        fault: "connect-timeout",
        how: "a listener whose backlog is full",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "full"),
    },
    Row {
        fault: "connect-unreachable",
        how: "an address that no route leads to",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "nowhere"),
    },
    Row {
        fault: "tls-handshake",
        how: "a peer that speaks no TLS",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "garbled"),
    },
    Row {
        fault: "peer-untrusted",
        how: "the right name, from somebody else's root",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "foreign"),
    },
    Row {
        fault: "peer-untrusted",
        how: "a caller with a certificate of somebody else's root",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| intrude(shop, &Authority::unknown(), Validity::Now),
    },
    Row {
        fault: "peer-expired",
        how: "a certificate of yesterday, one of tomorrow",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| {
            let mut seen = both(shop, "expired");
            seen.extend(both(shop, "early"));
            seen
        },
    },
    Row {
        fault: "peer-expired",
        how: "a caller whose certificate has ended",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let authority = Authority::of_mesh(shop.mesh.directory());
            intrude(shop, &authority, Validity::Past)
        },
    },
    Row {
        fault: "peer-identity-mismatch",
        how: "an address that belongs to another pod by now",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "mismatch"),
    },
    Row {
        fault: "certificate-refused",
        how: "a peer that trusts another root",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "refusing"),
    },
    Row {
        fault: "stream-refused",
        how: "a peer that refuses each stream, unread",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| both(shop, "streamless"),
    },
    // ── who may ─────────────────────────────────────────────────────────────
    Row {
        fault: "plaintext-refused",
        how: "HTTP from outside of the mesh to a strict port",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let mut raw = shop.dial(&shop.stranger, &shop.app.address().to_string(), 8008);
            vec![raw.ask(GET).into()]
        },
    },
    Row {
        fault: "plaintext-refused",
        how: "other bytes from outside of the mesh to a strict port",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let address = shop.app.address().to_string();
            broken(
                &shop.stranger,
                &address,
                8008,
                b"\x16\x03\x01\x00\x02no TLS either",
            )
        },
    },
    Row {
        fault: "access-denied",
        how: "a path that no rule allows, one that a rule denies, and a method",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            let mut seen = both(shop, "guarded");
            seen.extend(ask(
                shop,
                "guarded",
                b"GET /open/secret/x HTTP/1.1\r\nHost: app\r\n\r\n",
            ));
            seen.extend(ask(
                shop,
                "guarded",
                b"DELETE /open HTTP/1.1\r\nHost: app\r\n\r\n",
            ));
            seen
        },
    },
    Row {
        fault: "opaque-refused",
        how: "bytes that are no HTTP to a port with path rules",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| {
            broken(
                &shop.client,
                "guarded",
                80,
                b"\x00\x01\x02\x03 not HTTP at all",
            )
        },
    },
    Row {
        fault: "direct-connection",
        how: "to the inbound port itself",
        tells: Tells::Called,
        reach: Reach::Nothing,
        provoke: |shop| broken(&shop.stranger, &shop.app.address().to_string(), 15006, GET),
    },
    Row {
        fault: "direct-connection",
        how: "to the outbound port itself",
        tells: Tells::Caller,
        reach: Reach::Nothing,
        provoke: |shop| broken(&shop.client, "127.0.0.1", 15001, GET),
    },
    // ── what the application does ───────────────────────────────────────────
    Row {
        fault: "upstream-reset",
        how: "the application resets before it answers",
        tells: Tells::Called,
        reach: Reach::Request,
        provoke: |shop| vec![get(shop, "resets")],
    },
    Row {
        fault: "response-truncated",
        how: "the application ends in the middle of its answer",
        tells: Tells::Called,
        reach: Reach::Request,
        provoke: |shop| vec![get(shop, "short")],
    },
    Row {
        fault: "malformed-response",
        how: "white space before a colon",
        tells: Tells::Called,
        reach: Reach::Request,
        provoke: |shop| vec![get(shop, "garbage")],
    },
    Row {
        fault: "response-headers-too-large",
        how: "a field longer than WEFT_MAX_HEADER_BYTES",
        tells: Tells::Called,
        reach: Reach::Request,
        provoke: |shop| vec![get(shop, "large")],
    },
    Row {
        fault: "first-byte-timeout",
        how: "an application that never answers",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| both(shop, "late"),
    },
    Row {
        fault: "request-timeout",
        how: "an application that never answers",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| both(shop, "total"),
    },
    Row {
        fault: "idle-timeout",
        how: "an answer that stops in the middle",
        tells: Tells::Caller,
        reach: Reach::Request,
        provoke: |shop| {
            let mut raw = shop.connect("idle");
            raw.send(GET);
            // The head came; breaking off is all that is left to say.
            vec![Seen::Broken(raw.ended())]
        },
    },
];
