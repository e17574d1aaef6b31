//! Who gets in, over time and around corners: a policy that changes under open
//! connections, callers from outside of the mesh, and applications that talk
//! like sidecars.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request};
use weft_tests::{
    http2::{self, Application},
    probe::{Ended, Raw},
    recorder::{Recorder, Say, has_head},
    wait,
    world::{self, Pod, World},
};

const HTTP: u16 = 8080;
const OPAQUE: u16 = 8081;
const TWO: u16 = 8082;

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: app}}}}\n  {spec}\n---\n"
    )
}

fn ready(client: &Pod, port: u16) {
    wait::until("the application through both sidecars", || {
        let mut raw = Raw::new(client.connect("app.shop", port));
        let answer = raw.ask(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n");
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
}

#[test]
fn a_changed_policy_meets_the_next_request_and_cuts_opaque_connections_by_name() {
    if !world::possible() {
        return;
    }
    let mesh = World::new(&world::service("shop/app", &[HTTP, OPAQUE]));
    let app = mesh.idle("shop/app-0");
    let _http = Recorder::http(app.listen(HTTP));
    let echo = Recorder::echo(app.listen(OPAQUE));
    let client = mesh.idle("shop/client-0");
    ready(&client, HTTP);
    let mut open = Raw::new(client.connect("app.shop", HTTP));
    let get = b"GET /before HTTP/1.1\r\nHost: app\r\n\r\n";
    assert_eq!(open.ask(get).map(|answer| answer.status), Ok(200));
    let mut opaque = Raw::new(client.connect("app.shop", OPAQUE));
    opaque.send(b"\0hello");
    assert_eq!(opaque.exactly(6).unwrap(), b"\0hello");

    let nobody = "rules: [{action: Allow, from: {identities: ['spiffe://cluster.local/ns/shop/sa/nobody']}}]";
    mesh.write_manifest("closed.yaml", &policy("closed", nobody));
    let denied = wait::until(
        "the next request on the same connection to be denied",
        || {
            let answer = open.ask(get).expect("the connection stays");
            (answer.status != 200).then_some(answer)
        },
    );
    assert_eq!(denied.status, 403);
    assert_eq!(
        denied.field("proxy-status"),
        Some("weft-inbound; error=http_request_denied; details=\"access-denied\"")
    );
    assert_eq!(opaque.ended(), Ended::Reset);
    let line = app.logs("the connection that was cut", |line| {
        line["kind"] == "connection" && line["fault"]["reason"] == "access-denied"
    });
    assert_eq!(line["fault"]["side"], "inbound");
    let explained = mesh.explain("shop/client-0", "http://app.shop:8080/before");
    let verdict = &explained["inbound"][0];
    assert_eq!(verdict["pod"], "shop/app-0", "{explained}");
    assert_eq!(verdict["refused"]["reason"], "access-denied", "{explained}");

    let _ = echo.take();
    let mut next = Raw::new(client.connect("app.shop", OPAQUE));
    next.send(b"\0again");
    assert_eq!(next.ended(), Ended::Reset);
    assert!(
        echo.take().is_empty(),
        "a denied connection reached the application"
    );

    mesh.remove_manifest("closed.yaml");
    wait::until("the same connection to be let in again", || {
        (open.ask(get).expect("the connection stays").status == 200).then_some(())
    });
    let explained = mesh.explain("shop/client-0", "http://app.shop:8080/before");
    assert!(explained["inbound"][0]["refused"].is_null(), "{explained}");
}

/// A test's own connection from a pod, also to an IPv6 address.
fn dial(from: &Pod, to: IpAddr, port: u16) -> Raw {
    let to = SocketAddr::new(to, port);
    let stream = from.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)));
    let stream = stream.unwrap_or_else(|error| panic!("{to}: {error}"));
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("not zero");
    Raw::new(stream)
}

/// Addresses of both families.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let shown = pod.inside(|| {
        let command = [
            "-brief", "address", "show", "dev", "eth0", "scope", "global",
        ];
        std::process::Command::new("ip")
            .args(command)
            .output()
            .expect("ip is installed")
    });
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let words = text.split_whitespace();
    words
        .filter_map(|word| word.split_once('/')?.0.parse().ok())
        .collect()
}

#[test]
fn nothing_from_outside_of_the_mesh_reaches_a_strict_port_over_either_family() {
    if !world::possible() {
        return;
    }
    let strict = policy(
        "strict",
        &format!("ports: [{HTTP}, {OPAQUE}]\n  mtls: Strict"),
    );
    let mesh = World::new(&(world::service("shop/app", &[HTTP, OPAQUE, TWO]) + &strict));
    let app = mesh.idle("shop/app-0");
    let http = Recorder::http(app.listen(HTTP));
    let echo = Recorder::echo(app.listen(OPAQUE));
    let open = Recorder::http(app.listen(TWO));
    let client = mesh.idle("shop/client-0");
    ready(&client, HTTP);
    let _ = http.take();
    let stranger = mesh
        .pod("shop/stranger-0")
        .flag("--no-mesh")
        .run(["sleep", "infinity"]);

    let addresses = addresses(&app);
    assert!(addresses.iter().any(IpAddr::is_ipv4), "{addresses:?}");
    for address in &addresses {
        let mut asks = dial(&stranger, *address, HTTP);
        let answer = asks
            .ask(b"GET /stranger HTTP/1.1\r\nHost: app\r\n\r\n")
            .expect("an answer");
        assert_eq!(answer.status, 403, "{address}");
        assert_eq!(
            answer.field("proxy-status"),
            Some("weft-inbound; error=connection_terminated; details=\"plaintext-refused\"")
        );
        // HTTP/2 with prior knowledge, opaque bytes, a TLS of its own, half a greeting.
        let mut stream = dial(&stranger, *address, HTTP)
            .stream()
            .try_clone()
            .unwrap();
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "app"),
            (":path", "/two"),
        ];
        let met = http2::ask(&mut stream, &fields).unwrap();
        assert!(!matches!(met, http2::Met::Answered(Some(200))), "{met:?}");
        for bytes in [
            &b"\0opaque"[..],
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
            b"PRI * HTT",
        ] {
            for port in [HTTP, OPAQUE] {
                let mut raw = dial(&stranger, *address, port);
                raw.send(bytes);
                let _ = raw.stream().shutdown(std::net::Shutdown::Write);
                assert_ne!(
                    raw.ended(),
                    Ended::Open,
                    "{address}:{port} {}",
                    bytes.escape_ascii()
                );
            }
        }
        // A permissive port takes it, and says so.
        let mut asks = dial(&stranger, *address, TWO);
        let answer = asks
            .ask(b"GET /open HTTP/1.1\r\nHost: app\r\n\r\n")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{address}");
    }
    assert!(
        http.take().is_empty(),
        "a stranger's bytes reached the application"
    );
    assert!(
        echo.take().is_empty(),
        "a stranger's bytes reached the application"
    );
    assert!(!open.take().is_empty());
    let metrics = app.metrics();
    let refused = [("reason", "plaintext-refused"), ("side", "inbound")];
    assert!(metrics.sum("weft_traffic_faults_total", &refused) >= 2.0 * addresses.len() as f64);
    assert!(metrics.sum("weft_inbound_plaintext_accepted_total", &[]) >= addresses.len() as f64);
}

/// An application that says what only sidecars may say to one another.
fn liar() -> Vec<u8> {
    b"HTTP/1.1 103 Early Hints\r\nWeft-Fault: inbound/connect-refused\r\n\r\n\
      HTTP/1.1 200 OK\r\nweft-fault: inbound/connect-refused\r\nWeft-Attempt: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
      2\r\nok\r\n0\r\nweft-fault: inbound/connect-refused\r\nx-own: kept\r\n\r\n"
        .to_vec()
}

#[test]
fn an_application_that_talks_like_a_sidecar_is_neither_believed_nor_passed_on() {
    if !world::possible() {
        return;
    }
    let mesh = World::new(&world::service("shop/app", &[HTTP, TWO]));
    // Two of them, so that a believed fault would be tried again elsewhere.
    let pods = [mesh.idle("shop/app-0"), mesh.idle("shop/app-1")];
    let ours = || {
        let fault = HeaderValue::from_static("inbound/connect-refused");
        HeaderMap::from_iter([(http::HeaderName::from_static("weft-fault"), fault)])
    };
    let one = pods.each_ref().map(|pod| {
        Recorder::start(pod.listen(HTTP), |said| match has_head(said) {
            false => Say::Wait,
            true => Say::Bytes(liar()),
        })
    });
    let two = pods
        .each_ref()
        .map(|pod| Application::start(pod.listen(TWO), ours(), ours()));
    let client = mesh.idle("shop/client-0");
    ready(&client, HTTP);
    for recorder in &one {
        let _ = recorder.take();
    }

    let mut raw = Raw::new(client.connect("app.shop", HTTP));
    raw.send(b"POST /one HTTP/1.1\r\nHost: app\r\nweft-attempt: 9\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let mut said = Vec::new();
    let ended = raw.everything(&mut said);
    let said = String::from_utf8_lossy(&said).to_lowercase();
    assert_eq!(ended, Ended::Closed, "{said}");
    assert!(
        said.contains("200 ok") && said.contains("x-own: kept"),
        "{said}"
    );
    assert!(!said.contains("weft-"), "{said}");
    let heard: Vec<u8> = one.iter().flat_map(Recorder::take).collect();
    let heard = String::from_utf8_lossy(&heard).to_lowercase();
    assert_eq!(heard.matches("post /one").count(), 1, "{heard}");
    assert!(!heard.contains("weft-"), "{heard}");

    let request = Request::post("http://app/two")
        .header("weft-attempt", "9")
        .body(())
        .unwrap();
    let call = http2::call(client.connect("app.shop", TWO), request).unwrap();
    assert_eq!(call.status, 200);
    assert!(!call.fields.contains_key("weft-fault"), "{:?}", call.fields);
    assert!(
        !call.trailers.contains_key("weft-fault"),
        "{:?}",
        call.trailers
    );
    let asked: Vec<_> = two.iter().flat_map(Application::take).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(!asked[0].fields.contains_key("weft-attempt"), "{asked:?}");
    assert_eq!(
        client.metrics().sum("weft_traffic_peer_faults_total", &[]),
        0.0
    );
}

#[test]
fn a_client_that_is_slow_to_speak_http_is_heard_where_only_http_is_carried() {
    if !world::possible() {
        return;
    }
    let rules = format!("ports: [{HTTP}]\n  rules: [{{action: Allow, to: {{pathPrefixes: [/]}}}}]");
    let mesh = World::new(&(world::service("shop/app", &[HTTP]) + &policy("paths", &rules)));
    let app = mesh.idle("shop/app-0");
    let _http = Recorder::http(app.listen(HTTP));
    let client = mesh.idle("shop/client-0");
    ready(&client, HTTP);
    let accepted = || app.metrics().sum("weft_tls_accepted_handshakes_total", &[]);
    let before = accepted();
    let mut slow = Raw::new(client.connect("app.shop", HTTP));
    wait::until(
        "the speculative connection at the application's proxy",
        || (accepted() > before).then_some(()),
    );
    // A round trip behind it: a refusal would have been heard by now.
    ready(&client, HTTP);
    let answer = slow.ask(b"GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
    assert_eq!(answer.map(|answer| answer.status), Ok(200));

    let mut other = Raw::new(client.connect("app.shop", HTTP));
    other.send(b"\0\x01 no HTTP");
    assert_eq!(other.ended(), Ended::Reset);
    let refused = [("reason", "opaque-refused"), ("side", "inbound")];
    assert_eq!(
        app.metrics().sum("weft_traffic_faults_total", &refused),
        1.0
    );
}
