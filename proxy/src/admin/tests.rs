use std::{
    io::{Read, Write},
    net::{TcpListener as Listener, TcpStream},
    time::Duration,
};

use http_body_util::BodyExt as _;

use super::{socket::command, *};

fn sources() -> Sources {
    let (control, phase) = drain::channel();
    Sources {
        registry: Registry::new(),
        snapshot: Box::new(Arc::default),
        epoch: Epoch::start(),
        health: Arc::default(),
        wall: Wall::System,
        sections: vec![(
            "certificates",
            Box::new(|| {
                Box::pin(async { serde_json::json!([{"identity": "spiffe://d/ns/a/sa/b"}]) })
            }),
        )],
        control: Arc::new(control),
        phase,
    }
}

async fn body(answer: Answer) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn readiness_says_exactly_what_it_waits_for() {
    let sources = sources();
    sources.health.update(|status| {
        status.has_bundle = true;
        status.is_configured = true;
        status.renewal_error = Some("token expired".to_owned());
    });

    let answer = health(&sources, "/ready");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let page: serde_json::Value = serde_json::from_str(&body(answer).await).unwrap();
    assert_eq!(page["waiting_for"], serde_json::json!(["certificate"]));
    assert_eq!(page["certificate_error"], "token expired");

    let ends = sources.wall.now() + Duration::from_secs(60);
    sources
        .health
        .update(|status| status.certificate_ends = Some(ends));
    assert_eq!(health(&sources, "/ready").status(), StatusCode::OK);
}

#[tokio::test]
async fn a_draining_proxy_is_live_and_not_ready() {
    let sources = sources();
    sources.control.advance(Phase::Draining);
    assert_eq!(health(&sources, "/live").status(), StatusCode::OK);
    let answer = health(&sources, "/ready");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(body(answer).await.contains("draining"));
}

#[tokio::test]
async fn each_port_has_its_own_pages_and_no_others() {
    let sources = sources();
    for (port, own) in [
        (Port::Metrics, "/metrics"),
        (Port::Health, "/live"),
        (Port::Debug, "/dump"),
    ] {
        let answer = port.answer(&sources, own).await;
        assert_eq!(answer.status(), StatusCode::OK, "{own}");
        for other in [
            "/",
            "/metrics",
            "/live",
            "/ready",
            "/dump",
            "/drain",
            "/shutdown",
            "/quitquitquit",
        ] {
            let is_own = other == own || (own == "/live" && other == "/ready");
            let answer = port.answer(&sources, other).await;
            let is_page = answer.status() != StatusCode::NOT_FOUND;
            assert_eq!(is_page, is_own, "{own} {other}");
        }
    }
}

#[tokio::test]
async fn the_dump_holds_the_sections_of_other_modules() {
    let page = body(debug(&sources(), "/dump").await).await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["certificates"][0]["identity"], "spiffe://d/ns/a/sa/b");
    assert_eq!(page["workload"], serde_json::Value::Null);
}

#[test]
fn silent_connections_keep_no_probe_from_any_port() {
    served(|ports, _| {
        for port in ports {
            let connect = || {
                let stream = TcpStream::connect(port).unwrap();
                let patience = Some(Duration::from_secs(60));
                stream.set_read_timeout(patience).unwrap();
                stream
            };
            // Half of a head is no request.
            let mut silent: Vec<TcpStream> = (0..2 * room::MOST).map(|_| connect()).collect();
            for stream in &mut silent {
                // It may have given way already.
                let _ = stream.write_all(b"GET /live HTTP/1.1\r\n");
            }
            for _ in 0..3 {
                let mut stream = connect();
                stream
                    .write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
                    .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            }
            let oldest = silent[0].read(&mut [0]);
            assert!(matches!(oldest, Ok(0) | Err(_)), "it gave way");
        }
    });
}

/// Runs `client` on a thread beside a served admin.
fn served<T: Send + 'static>(
    client: impl FnOnce([SocketAddr; 3], PathBuf) -> T + Send + 'static,
) -> (T, Phase) {
    served_with(Probes::default(), ApplicationMetrics::default(), client)
}

fn served_with<T: Send + 'static>(
    probes: Probes,
    application: ApplicationMetrics,
    client: impl FnOnce([SocketAddr; 3], PathBuf) -> T + Send + 'static,
) -> (T, Phase) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config {
        metrics: any,
        health: any,
        debug: any,
        socket: directory.path().join("admin.sock"),
        probes,
        application,
        mark: None,
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let bound = bind(&config).await.unwrap();
        let addresses = bound.addresses().unwrap();
        let sources = sources();
        let phase = sources.phase.clone();
        let client = tokio::task::spawn_blocking(move || client(addresses, config.socket));
        tokio::select! {
            () = bound.serve(sources) => unreachable!("it serves until it is dropped"),
            result = client => (result.unwrap(), phase.phase()),
        }
    })
}

#[test]
fn the_drain_command_begins_draining_and_another_is_refused() {
    let (answer, phase) = served(|_, socket| {
        let refused = command(&socket, "quit").unwrap_err().to_string();
        (refused, command(&socket, "drain").unwrap())
    });
    assert_eq!(
        answer,
        (
            "the only command is drain".to_owned(),
            "draining".to_owned()
        )
    );
    assert_eq!(phase, Phase::Draining);
}

#[test]
fn nothing_over_tcp_changes_the_phase() {
    use std::io::{Read as _, Write as _};
    let (answers, phase) = served(|addresses, _| {
        let mut answers = String::new();
        for address in addresses {
            for request in [
                "POST /drain",
                "PUT /ready",
                "DELETE /",
                "GET /drain",
                "POST /metrics",
            ] {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(
                    stream,
                    "{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
                )
                .unwrap();
                stream.read_to_string(&mut answers).unwrap();
            }
        }
        answers
    });
    assert_eq!(answers.matches("HTTP/1.1 405").count(), 12);
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 3);
    assert_eq!(phase, Phase::Serving);
}

#[test]
fn the_socket_of_an_earlier_proxy_is_replaced_and_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    runtime.block_on(async {
        drop(socket::Listener::bind(&path).unwrap());
        let _second = socket::Listener::bind(&path).unwrap();
    });
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_failed_hook_sees_the_connection_end_and_a_failed_probe_a_503() {
    use std::io::{Read as _, Write as _};
    // Nothing listens on port 1.
    let written = r#"{"token":"t","probes":{
        "app/pre-stop":{"timeoutSeconds":1,"httpGet":{"port":1}},
        "app/liveness":{"timeoutSeconds":1,"tcpSocket":{"port":1}}}}"#;
    let application = ApplicationMetrics::default();
    let (answers, _) = served_with(
        written.parse().unwrap(),
        application,
        |[_, health, _], _| {
            ["pre-stop", "liveness"].map(|kind| {
                let mut stream = TcpStream::connect(health).unwrap();
                let request =
                    format!("GET /probe/app/{kind} HTTP/1.1\r\nhost: x\r\nweft-probe: t\r\n\r\n");
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                let _ended = stream.read_to_string(&mut answer);
                answer
            })
        },
    );
    assert_eq!(answers[0], "");
    assert!(answers[1].starts_with("HTTP/1.1 503"), "{}", answers[1]);
}

#[test]
fn the_applications_metrics_are_on_the_port_of_metrics_and_on_no_other() {
    let listener = Listener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let application = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        let page = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nup 1\n";
        stream.write_all(page.as_bytes()).unwrap();
    });
    let metrics = format!("{port}/metrics").parse().unwrap();
    let (answers, _) = served_with(Probes::default(), metrics, |addresses, _| {
        addresses.map(|address| {
            let mut stream = TcpStream::connect(address).unwrap();
            let request = "GET /application/metrics HTTP/1.1\r\nhost: x\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    });
    application.join().unwrap();
    let [metrics, health, debug] = answers;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.ends_with("up 1\n"),
        "{metrics}"
    );
    for other in [health, debug] {
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    }
}
