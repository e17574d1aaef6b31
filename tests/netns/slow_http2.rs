//! HTTP/2 whose caller begins something and never finishes it: the connection
//! ends by name when the time for header sections is over, wherever it comes
//! from, and one that only idles between requests stays.

use std::io::{Read, Write};

use http::HeaderMap;
use weft_tests::{
    http2::{self, Application, END_HEADERS, END_STREAM, HEADERS, Met, block, frame, preface},
    rogue::{self, Authority, Validity},
    wait,
    world::{self, Pod, World},
};

const PORT: u16 = 8080;
/// ENHANCE_YOUR_CALM (RFC 9113 §7).
const CALM: Met = Met::GoneAway(11);

const FIELDS: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "app"),
    (":path", "/"),
];

fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_STREAM | flags, stream, &block(&FIELDS))
}

/// Says this and no more; how it was met.
fn stall(mut stream: impl Read + Write, bytes: &[u8]) -> Met {
    stream.write_all(bytes).expect("somebody listens");
    stream.flush().expect("somebody listens");
    http2::met(&mut stream, 1).expect("it ends while we are patient")
}

fn timeouts(of: &Pod, side: &str) -> f64 {
    let labels = [("reason", "header-timeout"), ("side", side)];
    of.metrics().sum("weft_traffic_faults_total", &labels)
}

#[test]
fn an_unfinished_header_section_ends_its_connection_and_idling_does_not() {
    if !world::possible() {
        return;
    }
    let knobs = [("WEFT_HEADER_TIMEOUT", "500ms")];
    let mesh = World::with(true, &world::service("shop/app", &[PORT]), &knobs);
    let app = mesh.idle("shop/app-0");
    let application = Application::start(app.listen(PORT), HeaderMap::new(), HeaderMap::new());
    let client = mesh.idle("shop/client-0");
    let stranger = mesh
        .pod("shop/stranger-0")
        .flag("--no-mesh")
        .run(["sleep", "infinity"]);
    let address = app.address().to_string();
    let whole = [preface(), request(1, END_HEADERS)].concat();
    let mut idle = wait::until("the application through both sidecars", || {
        let mut stream = client.connect("app.shop", PORT);
        stream.write_all(&whole).expect("somebody listens");
        let met = http2::met(&mut stream, 1).expect("it is answered");
        (met == Met::Answered(Some(200))).then_some(stream)
    });
    let _ = application.take();

    let no_end = [preface(), request(1, 0)].concat();
    let half_a_frame = [preface(), vec![0, 0, 9]].concat();
    let no_settings = preface().split_off(0)[..24].to_vec();
    for begun in [&no_end, &half_a_frame, &no_settings] {
        assert_eq!(stall(client.connect("app.shop", PORT), begun), CALM);
        assert_eq!(stall(stranger.connect(&address, PORT), begun), CALM);
    }
    let peer = || {
        let identity = rogue::identity("shop", "client");
        let leaf = Authority::of_mesh(mesh.directory()).issue(&identity, Validity::Now);
        rogue::client(stranger.connect(&address, PORT), Some(leaf), rogue::HTTP)
    };
    assert_eq!(stall(peer(), &no_end), CALM);
    // A peer proxy opens connections to use them: its first byte is due too.
    assert_eq!(stall(peer(), b""), Met::Closed);

    assert_eq!(timeouts(&client, "outbound"), 3.0);
    assert_eq!(timeouts(&app, "inbound"), 5.0);
    let line = client.logs("the fault", |line| {
        line["fault"]["reason"] == "header-timeout"
    });
    assert_eq!(line["fault"]["side"], "outbound");
    assert!(
        application.take().is_empty(),
        "the application got something"
    );

    // It has been idle all this while.
    idle.write_all(&request(3, END_HEADERS))
        .expect("it is open");
    let met = http2::met(&mut idle, 3).expect("it is answered");
    assert!(matches!(met, Met::Answered(_)), "{met:?}");
}
