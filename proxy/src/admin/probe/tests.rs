use std::{cell::RefCell, net::Ipv4Addr, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{grpc::HealthCheckResponse, *};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((OWN, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn probes(kind: &str, handler: &str) -> Probes {
    let text = format!(
        r#"{{"token":"secret","probes":{{"app/{kind}":{{"timeoutSeconds":1,{handler}}}}}}}"#
    );
    text.parse().unwrap()
}

fn brought(token: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TOKEN, HeaderValue::from_static(token));
    let agent = HeaderValue::from_static("kube-probe/1.34");
    headers.insert(header::USER_AGENT, agent);
    headers
}

async fn carried_out(kind: &str, handler: &str) -> Option<Answered> {
    let path = format!("/probe/app/{kind}");
    let headers = brought("secret");
    probes(kind, handler)
        .carry_out(&path, &headers, OWN, None)
        .await
}

/// Answers each connection with the next of `answers`, and keeps what was asked.
async fn application(listener: &TcpListener, answers: &[&str], asked: &RefCell<Vec<String>>) {
    for answer in answers {
        let (mut stream, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)));
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        asked.borrow_mut().push(String::from_utf8(request).unwrap());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    // What comes beyond is not accepted, which no test waits for.
    std::future::pending::<()>().await;
}

/// The probe's answer, and what the application was asked.
async fn http(handler: &str, answers: &[&str]) -> (Answered, Vec<String>) {
    let (listener, port) = listener().await;
    let handler = handler.replace("PORT", &port.to_string());
    let answers: Vec<_> = answers
        .iter()
        .map(|it| it.replace("PORT", &port.to_string()))
        .collect();
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let asked = RefCell::default();
    let answered = tokio::select! {
        it = Box::pin(carried_out("liveness", &handler)) => it.unwrap(),
        () = application(&listener, &answers, &asked) => unreachable!("it serves on"),
    };
    let asked = asked.take().into_iter();
    let asked = asked.map(|it| it.replace(&port.to_string(), "PORT"));
    (answered, asked.collect())
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const GET: &str = r#""httpGet":{"port":PORT}"#;

#[tokio::test]
async fn the_application_is_asked_as_the_kubelet_asks() {
    let headers = r#"{"name":"X-Probe","value":"1"},{"name":"X-Probe","value":"2"},{"name":"Host","value":"shop.example"}"#;
    let handler = format!(
        r#""httpGet":{{"port":PORT,"path":"healthz?full=1#top","httpHeaders":[{headers}]}}"#
    );
    for (handler, request) in [
        (
            GET,
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        ),
        (
            &handler,
            "GET /healthz?full=1 HTTP/1.1\r\nX-Probe: 1\r\nX-Probe: 2\r\nHost: shop.example\r\n\
             User-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        ),
    ] {
        let (answered, asked) = http(handler, &[OK]).await;
        assert_eq!(answered, Answered::Status(StatusCode::OK));
        assert_eq!(asked, [request]);
    }
}

#[tokio::test]
async fn statuses_reach_the_kubelet_as_they_are() {
    for status in [204, 302, 404, 500, 503] {
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        let (answered, _) = http(GET, &[&answer]).await;
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(answered, Answered::Status(status));
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_alone() {
    let to = |location: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    };
    for (location, then) in [
        ("/ready?a=1", Some("/ready?a=1")),
        ("sub", Some("/sub")),
        ("/in?to=http://a.example", Some("/in?to=http://a.example")),
        ("http://127.0.0.1:PORT/there", Some("/there")),
        ("//127.0.0.1:PORT/there#x", Some("/there")),
        ("http://shop.example/there", None),
        ("https://192.0.2.1/", None),
        ("ftp://127.0.0.1/", None),
    ] {
        let (answered, asked) = http(GET, &[&to(location), OK]).await;
        let paths: Vec<_> = asked
            .iter()
            .map(|it| it.split(' ').nth(1).unwrap())
            .collect();
        match then {
            Some(path) => {
                assert_eq!(answered, Answered::Status(StatusCode::OK), "{location}");
                assert_eq!(paths, ["/", path]);
            }
            None => {
                assert_eq!(answered, Answered::Status(StatusCode::FOUND), "{location}");
                assert_eq!(paths, ["/"]);
            }
        }
    }
    let round = to("/");
    let (answered, asked) = http(GET, &[round.as_str(); 20]).await;
    assert_eq!(
        answered,
        Answered::Badly("stopped after 10 redirects".to_owned())
    );
    assert_eq!(asked.len(), 11);
}

#[tokio::test]
async fn an_application_that_breaks_off_is_not_well() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok";
    for answer in [short, "", "SSH-2.0-x\r\n"] {
        let (answered, _) = http(GET, &[answer]).await;
        assert!(
            matches!(answered, Answered::Badly(_)),
            "{answer} {answered:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_application_costs_the_probe_its_own_time() {
    let (_listener, port) = listener().await;
    let begun = tokio::time::Instant::now();
    let handler = format!(r#""httpGet":{{"port":{port}}}"#);
    let answered = carried_out("readiness", &handler).await;
    assert_eq!(
        answered,
        Some(Answered::Badly("no answer within 1 s".to_owned()))
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_will_do() {
    let (listener, port) = listener().await;
    let authority = crate::tls::authority::Authority::new("nobody's");
    let wanted = crate::tls::authority::Wanted::of(&["spiffe://d/ns/a/sa/b"]);
    let (chain, key) = authority.issue(&wanted);
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der());
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let application = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut some = [0; 16];
        let _some = stream.read(&mut some).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    let handler = format!(r#""httpGet":{{"port":{port},"scheme":"HTTPS"}}"#);
    let answered = tokio::select! {
        it = carried_out("liveness", &handler) => it,
        () = application => None,
    };
    assert_eq!(answered, Some(Answered::Status(StatusCode::OK)));
}

#[tokio::test]
async fn a_socket_is_well_when_it_is_open() {
    let (listener, port) = listener().await;
    let handler = format!(r#""tcpSocket":{{"port":{port}}}"#);
    assert_eq!(carried_out("startup", &handler).await, Some(Answered::Well));
    drop(listener);
    let answered = carried_out("startup", &handler).await;
    assert!(matches!(answered, Some(Answered::Badly(_))), "{answered:?}");
}

/// A server of grpc.health.v1 that answers once.
async fn health(listener: &TcpListener, status: Option<i32>, grpc_status: &'static str) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let path = request.uri().path().to_owned();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(grpc_status));
    let mut response = http::Response::new(());
    match status {
        Some(status) => {
            let message = prost::Message::encode_to_vec(&HealthCheckResponse { status });
            let length = u8::try_from(message.len()).unwrap();
            let framed = [&[0, 0, 0, 0, length], message.as_slice()].concat();
            let mut body = respond.send_response(response, false).unwrap();
            body.send_data(framed.into(), false).unwrap();
            body.send_trailers(trailers).unwrap();
        }
        None => {
            *response.headers_mut() = trailers;
            respond.send_response(response, true).unwrap();
        }
    }
    while connection.accept().await.is_some() {}
    path
}

#[tokio::test]
async fn a_grpc_service_is_well_when_it_serves() {
    for (status, grpc_status, expected) in [
        (Some(1), "0", Answered::Well),
        (
            Some(2),
            "0",
            Answered::Badly("service unhealthy (responded with NOT_SERVING)".to_owned()),
        ),
        (None, "12", Answered::Badly("gRPC status 12".to_owned())),
        (Some(1), "14", Answered::Badly("gRPC status 14".to_owned())),
    ] {
        let (listener, port) = listener().await;
        let handler = format!(r#""grpc":{{"port":{port},"service":"web"}}"#);
        let path = Rc::new(RefCell::new(String::new()));
        let asked = Rc::clone(&path);
        let (answered, ()) = tokio::join!(carried_out("startup", &handler), async move {
            *asked.borrow_mut() = health(&listener, status, grpc_status).await;
        });
        assert_eq!(answered, Some(expected));
        assert_eq!(*path.borrow(), "/grpc.health.v1.Health/Check");
    }
}

#[tokio::test]
async fn without_the_token_nobody_is_asked() {
    let (listener, port) = listener().await;
    let handler = format!(r#""tcpSocket":{{"port":{port}}}"#);
    let probes = probes("liveness", &handler);
    for (path, token) in [
        ("/probe/app/liveness", "Secret"),
        ("/probe/app/liveness", ""),
        ("/probe/app/liveness", "secret2"),
        ("/probe/app/readiness", "secret"),
        ("/live", "secret"),
    ] {
        let answered = probes.carry_out(path, &brought(token), OWN, None).await;
        assert_eq!(answered, None, "{path} {token}");
    }
    let absent = HeaderMap::new();
    let answered = probes
        .carry_out("/probe/app/liveness", &absent, OWN, None)
        .await;
    assert_eq!(answered, None);
    let empty: Probes =
        r#"{"token":"","probes":{"a/liveness":{"timeoutSeconds":1,"tcpSocket":{"port":1}}}}"#
            .parse()
            .unwrap();
    let answered = empty
        .carry_out("/probe/a/liveness", &brought(""), OWN, None)
        .await;
    assert_eq!(answered, None);
    assert!(futures_util::FutureExt::now_or_never(listener.accept()).is_none());
}

#[tokio::test]
async fn a_hook_that_came_to_nothing_gets_no_answer() {
    let (listener, port) = listener().await;
    drop(listener);
    let handler = format!(r#""httpGet":{{"port":{port}}}"#);
    for (kind, expected) in [
        ("post-start", true),
        ("pre-stop", true),
        ("liveness", false),
    ] {
        let answered = carried_out(kind, &handler).await;
        assert_eq!(answered == Some(Answered::Nothing), expected, "{kind}");
    }
}

#[test]
fn what_the_injector_writes_is_read() {
    let written = r#"{"token":"t","probes":{
        "app/liveness":{"timeoutSeconds":3,"httpGet":{"httpHeaders":[{"name":"X","value":"1"}],"path":"/h","port":9000,"scheme":"HTTPS"}},
        "app/startup":{"timeoutSeconds":1,"grpc":{"port":50051,"service":"web"}},
        "cache/pre-stop":{"timeoutSeconds":600,"tcpSocket":{"port":6379}}}}"#;
    let read: Probes = written.parse().unwrap();
    assert_eq!(read.longest(), Duration::from_secs(600));
    assert!("".parse::<Probes>().unwrap().probes.is_empty());
    assert!("{}".parse::<Probes>().is_err());
}
