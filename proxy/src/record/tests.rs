use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{atomic::Ordering, mpsc},
};

use super::*;
use crate::{
    discovery::{
        BackendPolicy, EndpointCells, EndpointKey, EndpointState, Health, Hints, Meaning, Protocol,
        Security, ServiceName, Snapshot, Stream,
    },
    outcome::Reason,
};

/// Hands each write to the test.
struct Lines(mpsc::Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    registry: Registry,
    recorder: Recorder,
    lines: mpsc::Receiver<Vec<u8>>,
    phases: drain::Control,
}

impl World {
    fn new(access: Mode, series: usize) -> Self {
        let mut registry = Registry::new();
        let config = Config {
            series,
            series_idle: Duration::from_secs(1800),
        };
        let (sender, lines) = mpsc::channel();
        let log = AccessLog::start(&mut registry, access, 10, Lines(sender)).unwrap();
        let wall = Wall::fixed(Duration::from_secs(951_782_400));
        let (phases, phase) = drain::channel();
        let shared = Shared::new(&mut registry, &config, log, wall, phase);
        Self {
            registry,
            recorder: Recorder::new(shared),
            lines,
            phases,
        }
    }

    fn outbound(&self) -> ConnectionRecord {
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        self.recorder.connection(
            Side::Outbound,
            PeerAddr(address(40_000)),
            OrigDst(address(80)),
        )
    }

    fn page(&self) -> String {
        self.registry.encode().unwrap()
    }

    fn line(&self) -> serde_json::Value {
        serde_json::from_slice(&self.lines.recv_timeout(Duration::from_secs(10)).unwrap()).unwrap()
    }

    /// Sample lines of traffic metrics.
    fn samples(&self) -> usize {
        self.page()
            .lines()
            .filter(|line| line.starts_with("weft_traffic_"))
            .count()
    }
}

fn backend(name: &str) -> Arc<Backend> {
    let cells = Arc::default();
    let endpoint = Endpoint {
        key: EndpointKey(1),
        uid: "uid".into(),
        address: SocketAddr::from(([10, 0, 0, 2], 8080)),
        namespace: "shop".into(),
        pod: "cart-0".into(),
        security: Security::Unmeshed,
        protocol: Protocol::Detect,
        node: "".into(),
        zone: "".into(),
        hints: Hints::default(),
        weight: 1,
        state: EndpointState::Ready,
        cells: EndpointCells::new(&cells),
    };
    let name = ServiceName {
        namespace: "shop".into(),
        name: name.into(),
    };
    Arc::new(Backend::new(
        name,
        80,
        Arc::new(BackendPolicy::default()),
        vec![Arc::new(endpoint)],
        cells,
    ))
}

fn head<'a>(path: &'a [u8], authority: &'a [u8]) -> Head<'a> {
    Head {
        method: b"GET",
        path,
        authority,
        traceparent: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_counted_once_with_its_destination() {
    let world = World::new(Mode::Off, 100);
    let connection = world.outbound();
    let cart = backend("cart");
    let mut record = connection.request(&head(b"/", b"cart"));
    record.planned(None, &cart);
    record.attempt(cart.endpoints.first().unwrap());
    record.retried(Retried::Unsent);
    record.attempt(cart.endpoints.first().unwrap());
    record.status(204);
    record.sent(5);
    record.finish(Outcome::Answered);

    let page = world.page();
    let labels = r#"side="outbound",service="",port="",route="",backend="shop/cart:80",peer_namespace="",peer_service_account="""#;
    for line in [
        format!(r#"weft_traffic_requests_total{{{labels},result="2xx"}} 1"#),
        format!("weft_traffic_attempts_total{{{labels}}} 2"),
        format!(r#"weft_traffic_retries_total{{{labels},reason="unsent"}} 1"#),
        format!("weft_traffic_sent_bytes_total{{{labels}}} 5"),
        format!("weft_traffic_request_duration_seconds_count{{{labels}}} 1"),
        "weft_connections_outbound_open 1".to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    drop(connection);
    assert!(world.page().contains("weft_connections_outbound_open 0"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_dropped_says_that_the_caller_left() {
    let world = World::new(Mode::Errors, 100);
    drop(world.outbound().request(&head(b"/a", b"cart")));
    assert!(world.page().contains(r#"result="caller-left"} 1"#));
    assert_eq!(world.line()["outcome"], "caller-left");
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_counted_by_the_proxy_that_made_it_alone() {
    let world = World::new(Mode::Off, 100);
    let refused = Reason::AccessDenied.at(Side::Inbound);
    world
        .outbound()
        .request(&Head::default())
        .finish(Outcome::PeerFaulted(refused));
    let page = world.page();
    assert!(!page.contains("weft_traffic_faults_total{"));
    assert!(page.contains(r#"weft_traffic_peer_faults_total{side="outbound""#));
    let made = Reason::NoEndpoints.at(Side::Outbound);
    world.outbound().opaque().finish(Outcome::Faulted(made));
    assert!(world.page().lines().any(|line| {
        line.starts_with("weft_traffic_faults_total{")
            && line.ends_with(r#"reason="no-endpoints"} 1"#)
    }));
}

#[tokio::test(start_paused = true)]
async fn what_requests_say_adds_no_series() {
    let world = World::new(Mode::Off, 100);
    let cart = backend("cart");
    let request = |at: u32| {
        let connection = world.outbound();
        let (path, host) = (format!("/{at}?{at}"), format!("host-{at}.example"));
        let mut record = connection.request(&head(path.as_bytes(), host.as_bytes()));
        record.planned(None, &cart);
        record.status(200);
        record.finish(Outcome::Answered);
    };
    request(0);
    let before = world.samples();
    (1..100_000).for_each(request);
    assert_eq!(world.samples(), before);
    assert!(before <= 40, "{before} samples for one destination");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_cap_everything_counts_as_other() {
    let world = World::new(Mode::Off, 10);
    for at in 0..50 {
        let mut record = world.outbound().request(&Head::default());
        record.planned(None, &backend(&format!("service-{at}")));
        record.finish(Outcome::Answered);
    }
    let page = world.page();
    let of = |label: &str| {
        page.lines()
            .filter(|line| line.starts_with("weft_traffic_requests_total{") && line.contains(label))
            .count()
    };
    assert_eq!(of("shop/service-"), 10);
    assert_eq!(of(r#"backend="other""#), 1);
    assert!(page.contains(r#"result="2xx"} 40"#));
    assert!(page.contains("weft_traffic_series_overflow_total 40"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_series_is_forgotten_and_a_used_one_is_not() {
    let world = World::new(Mode::Off, 100);
    let (gone, kept) = (backend("gone"), backend("kept"));
    let request = |connection: &ConnectionRecord, of: &Arc<Backend>| {
        let mut record = connection.request(&Head::default());
        record.planned(None, of);
        record.finish(Outcome::Answered);
    };
    request(&world.outbound(), &gone);
    let connection = world.outbound();
    request(&connection, &kept);
    world.page();
    tokio::time::advance(Duration::from_secs(1801)).await;
    let page = world.page();
    assert!(!page.contains("shop/gone"));
    assert!(page.contains("shop/kept"), "its connection is open");
}

#[tokio::test(start_paused = true)]
async fn a_connection_finds_its_destinations_again_by_pointer() {
    let world = World::new(Mode::Off, 100);
    let connection = world.outbound();
    let backends: Vec<_> = (0..20).map(|at| backend(&format!("b-{at}"))).collect();
    let series = |of: &Arc<Backend>| connection.0.series(None, Some(of));
    let (first, second) = (series(&backends[0]), series(&backends[1]));
    assert!(Arc::ptr_eq(&first, &series(&backends[0])));
    assert!(!Arc::ptr_eq(&first, &second));
    for of in &backends {
        series(of);
    }
    assert_eq!(connection.0.known.borrow().len(), KNOWN_PER_CONNECTION);
    // Looked up again after it was pushed out: the same series.
    assert!(Arc::ptr_eq(&first, &series(&backends[0])));
}

#[tokio::test(start_paused = true)]
async fn labels_of_an_inbound_request_name_the_proved_peer() {
    let world = World::new(Mode::All, 100);
    let address = SocketAddr::from(([10, 0, 0, 1], 8080));
    let connection = world
        .recorder
        .connection(Side::Inbound, PeerAddr(address), OrigDst(address));
    connection.peer(&Peer::Identified(
        "spiffe://d/ns/shop/sa/web".parse().unwrap(),
    ));
    connection.port(8080);
    let mut record = connection.request(&Head {
        method: b"GET",
        path: b"/\xff\"",
        authority: b"cart",
        traceparent: Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    });
    record.judged_by(&"shop/only-cart#0".into());
    record.status(403);
    record.finish(Outcome::Faulted(Reason::AccessDenied.at(Side::Inbound)));

    assert!(world.page().contains(
        r#"port="8080",route="",backend="",peer_namespace="shop",peer_service_account="web""#
    ));
    let line = world.line();
    assert_eq!(line["time"], "2000-02-29T00:00:00.000Z");
    assert_eq!(line["target"], "access");
    assert_eq!(
        line["fault"],
        serde_json::json!({"side": "inbound", "reason": "access-denied"})
    );
    assert_eq!(line["path"], "/\u{fffd}\"");
    assert_eq!(line["peer"], "spiffe://d/ns/shop/sa/web");
    assert_eq!(line["policy"], "shop/only-cart#0");
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(line.get("service"), None);
}

#[tokio::test(start_paused = true)]
async fn errors_alone_are_logged_and_at_a_bounded_rate() {
    let world = World::new(Mode::Errors, 100);
    let connection = world.outbound();
    let answer = |status| {
        let mut record = connection.request(&head(b"/", b"cart"));
        record.status(status);
        record.finish(Outcome::Answered);
    };
    answer(200);
    answer(404);
    answer(503);
    assert_eq!(world.line()["status"], 503);
    (0..100).for_each(|_| answer(500));
    (0..9).for_each(|_| assert_eq!(world.line()["status"], 500));
    assert!(
        world
            .page()
            .contains("weft_access_log_suppressed_lines_total 91")
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    answer(502);
    assert_eq!(world.line()["status"], 502);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_stalls_loses_lines_and_never_the_path_time() {
    struct Stalled(mpsc::Receiver<()>);
    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ended = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_hold, stall) = mpsc::channel();
    let mut registry = Registry::new();
    let config = Config {
        series: 10,
        series_idle: Duration::from_secs(1),
    };
    let log = AccessLog::start(&mut registry, Mode::All, 1, Stalled(stall)).unwrap();
    let recorder = Recorder::new(Shared::new(
        &mut registry,
        &config,
        log,
        Wall::System,
        drain::channel().1,
    ));
    let address = SocketAddr::from(([10, 0, 0, 1], 1));
    let connection = recorder.connection(Side::Outbound, PeerAddr(address), None);
    for _ in 0..2000 {
        connection.opaque().finish(Outcome::Carried);
    }
    let page = registry.encode().unwrap();
    let dropped = page
        .lines()
        .find_map(|line| line.strip_prefix("weft_access_log_dropped_lines_total "));
    // One is with the writer, 1,024 wait.
    assert!(
        dropped.is_some_and(|lines| (974..=976).contains(&lines.parse::<u32>().unwrap())),
        "{dropped:?}"
    );
}

/// A snapshot in which the service `cart` has one endpoint, which is out.
fn one_ejected() -> Snapshot {
    let cart = backend("cart");
    let out = cart.endpoints.first().unwrap();
    out.cells
        .breaker
        .store(EndpointCells::OUT, Ordering::Relaxed);
    cart.cells.requests.taken.store(3, Ordering::Relaxed);
    let service = ServicePort {
        service: cart.service.clone(),
        port: 80,
        protocol: Protocol::Detect,
        routes: None,
        default: cart,
    };
    let address = SocketAddr::from(([10, 96, 0, 1], 80));
    let meaning = Meaning::Service(Arc::new(service));
    Snapshot {
        addresses: [(address, meaning.into())].into(),
        ..Snapshot::default()
    }
}

#[test]
fn what_a_stopping_proxy_drops_is_its_own_fault() {
    let world = World::new(Mode::All, 100);
    let connection = world.outbound();
    drop(connection.request(&Head::default()));
    assert_eq!(world.line()["outcome"], "caller-left");
    world.phases.advance(Phase::Stopping);
    drop(connection.request(&Head::default()));
    let line = world.line();
    assert_eq!(line["outcome"], "faulted");
    assert_eq!(line["fault"]["reason"], "shutting-down");
    connection
        .request(&Head::default())
        .finish(Outcome::Answered);
    assert_eq!(world.line()["outcome"], "answered");
}

#[tokio::test(start_paused = true)]
async fn gauges_of_endpoints_and_of_the_control_plane_are_read_at_the_scrape() {
    let mut registry = Registry::new();
    let snapshot = Arc::new(one_ejected());
    let health = Arc::new(Health::default());
    observe(
        &mut registry,
        Box::new(move || Arc::clone(&snapshot)),
        Arc::clone(&health),
        crate::clock::Epoch::start(),
    );
    assert!(
        !registry
            .encode()
            .unwrap()
            .contains("weft_control_age_seconds ")
    );

    health.update(|status| {
        status.heard = Some(Instant::now());
        status.stream = Stream::Open;
    });
    tokio::time::advance(Duration::from_secs(7)).await;
    let page = registry.encode().unwrap();
    for line in [
        r#"weft_endpoints_known{service="shop/cart",port="80",state="ejected"} 1"#,
        r#"weft_endpoints_known{service="shop/cart",port="80",state="ready"} 0"#,
        r#"weft_endpoints_ejected{service="shop/cart",port="80",pod="shop/cart-0"} 1"#,
        r#"weft_endpoints_requests_in_flight{service="shop/cart",port="80"} 3"#,
        "weft_control_stream_open 1.0",
        "weft_control_age_seconds 7.0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
}

#[test]
fn a_proxy_without_traffic_has_few_series() {
    let mut world = World::new(Mode::Off, 100);
    observe(
        &mut world.registry,
        Box::new(Arc::default),
        Arc::default(),
        crate::clock::Epoch::start(),
    );
    let samples = world
        .page()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    assert!(samples <= 100, "{samples} samples before any traffic");
}
