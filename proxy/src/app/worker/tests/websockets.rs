//! WebSockets over HTTP/2 (RFC 8441) through two sidecars: what is carried,
//! what is refused and by whom.

use ::http::{HeaderMap, Method, Request, Response, StatusCode, Version, header::HeaderValue};
use h2::{
    Reason, RecvStream, SendStream, client::SendRequest, ext::Protocol, server::SendResponse,
};

use super::*;

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Hands each request that it is asked to the test.
fn application(world: &mut World, announces: bool) -> mpsc::UnboundedReceiver<Asked> {
    let listener = std::net::TcpListener::bind(world.net.application()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    world.tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut builder = h2::server::Builder::new();
            if announces {
                builder.enable_connect_protocol();
            }
            let Ok(mut connection) = builder.handshake(stream).await else {
                continue;
            };
            while let Some(Ok(asked)) = connection.accept().await {
                let _ = tell.send(asked);
            }
        }
    });
    told
}

async fn client(world: &mut World) -> SendRequest<Bytes> {
    let stream = world.connect().await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

fn connect(uri: &str, protocol: Option<&'static str>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.parse().unwrap();
    if let Some(protocol) = protocol {
        let extensions = request.extensions_mut();
        extensions.insert(Protocol::from_static(protocol));
    }
    request
}

fn websocket() -> Request<()> {
    connect("http://cart/chat?room=1", Some("websocket"))
}

/// One end of a tunnel.
struct End {
    to: SendStream<Bytes>,
    from: RecvStream,
}

impl End {
    fn say(&mut self, text: &'static str) {
        self.to
            .send_data(Bytes::from_static(text.as_bytes()), false)
            .unwrap();
    }

    fn end(&mut self) {
        self.to.send_data(Bytes::new(), true).unwrap();
    }

    async fn hears(&mut self, text: &str) {
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            let data = self.from.data().await.expect("more").unwrap();
            let _ = self.from.flow_control().release_capacity(data.len());
            heard.extend_from_slice(&data);
        }
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }

    async fn hears_the_end(&mut self) {
        while let Some(data) = self.from.data().await {
            assert_eq!(data.unwrap(), "");
        }
    }

    async fn hears_a_reset(&mut self, code: Reason) {
        let error = loop {
            match self.from.data().await.expect("no orderly end") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_reset(), "{error}");
        assert_eq!(error.reason(), Some(code));
    }
}

/// The caller's and the application's ends of an accepted one.
async fn opened(
    sender: &mut SendRequest<Bytes>,
    told: &mut mpsc::UnboundedReceiver<Asked>,
) -> (End, End) {
    let (response, to) = sender.send_request(websocket(), false).unwrap();
    let (request, mut respond) = told.recv().await.unwrap();
    let application = End {
        to: respond.send_response(Response::new(()), false).unwrap(),
        from: request.into_body(),
    };
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let caller = End {
        to,
        from: response.into_body(),
    };
    (caller, application)
}

async fn refused(sender: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, HeaderMap) {
    let (response, _to) = sender.send_request(request, false).unwrap();
    let (head, _) = response.await.unwrap().into_parts();
    (head.status, head.headers)
}

fn told_by(side: &str, error: &str, reason: &str) -> HeaderValue {
    let told = format!("weft-{side}; error={error}; details=\"{reason}\"");
    told.parse().unwrap()
}

#[test]
fn a_websocket_over_http2_crosses_with_its_head_and_bytes_both_ways() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        let mut request = websocket();
        let version = HeaderValue::from_static("13");
        request
            .headers_mut()
            .insert("sec-websocket-version", version.clone());
        let (response, to) = sender.send_request(request, false).unwrap();
        let mut caller = to;
        // Before it is accepted: it waits for that.
        caller
            .send_data(Bytes::from_static(b"early"), false)
            .unwrap();
        let (request, mut respond) = told.recv().await.unwrap();
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "http://cart/chat?room=1");
        assert_eq!(request.headers()["sec-websocket-version"], version);
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
        let mut head = Response::new(());
        let chat = HeaderValue::from_static("chat");
        head.headers_mut()
            .insert("sec-websocket-protocol", chat.clone());
        let mut application = End {
            to: respond.send_response(head, false).unwrap(),
            from: request.into_body(),
        };
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["sec-websocket-protocol"], chat);
        assert!(sender.is_extended_connect_protocol_enabled());
        let mut caller = End {
            to: caller,
            from: response.into_body(),
        };
        application.hears("early").await;
        for _ in 0..3 {
            caller.say("ping");
            application.hears("ping").await;
            application.say("pong");
            caller.hears("pong").await;
        }
    });
}

#[test]
fn each_side_of_a_websocket_over_http2_ends_for_itself() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        let (mut caller, mut application) = opened(&mut sender, &mut told).await;
        caller.end();
        application.hears_the_end().await;
        application.say("still here");
        caller.hears("still here").await;
        application.end();
        caller.hears_the_end().await;

        let (mut caller, mut application) = opened(&mut sender, &mut told).await;
        application.end();
        caller.hears_the_end().await;
        caller.say("still here");
        application.hears("still here").await;
        caller.end();
        application.hears_the_end().await;
    });
}

#[test]
fn resets_of_a_websocket_over_http2_keep_their_code() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        for ended in [false, true] {
            for code in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
                let (mut caller, mut application) = opened(&mut sender, &mut told).await;
                if ended {
                    application.end();
                    caller.hears_the_end().await;
                }
                caller.to.send_reset(code);
                application.hears_a_reset(code).await;

                let (mut caller, mut application) = opened(&mut sender, &mut told).await;
                if ended {
                    caller.end();
                    application.hears_the_end().await;
                }
                application.to.send_reset(code);
                caller.hears_a_reset(code).await;
            }
        }
    });
}

#[test]
fn an_application_that_does_not_announce_websockets_over_http2_is_not_asked() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, false);
        let mut sender = client(&mut world).await;
        for _ in 0..2 {
            let (status, fields) = refused(&mut sender, websocket()).await;
            assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
            let due = told_by("inbound", "http_upgrade_failed", "websocket-unsupported");
            assert_eq!(fields["proxy-status"], due);
        }
        // Nor did its connection end over it.
        let get = Request::get("http://cart/").body(()).unwrap();
        let (response, _) = sender.send_request(get, true).unwrap();
        let (request, mut respond) = told.recv().await.unwrap();
        assert_eq!(request.method(), Method::GET);
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn every_other_connect_is_refused_by_name() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        for request in [
            connect("cart:80", None),
            connect("http://cart/", Some("connect-udp")),
            connect("http://cart/", Some("weft1-h1")),
        ] {
            let (status, fields) = refused(&mut sender, request).await;
            assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
            let due = told_by("outbound", "http_request_denied", "connect-method");
            assert_eq!(fields["proxy-status"], due);
        }
        assert!(told.try_recv().is_err());
    });
}

#[test]
fn a_websocket_over_http2_is_authorized_by_its_method_and_path() {
    within(async {
        for rule in [
            AccessRule {
                methods: vec!["CONNECT".into()],
                ..AccessRule::default()
            },
            AccessRule {
                path_prefixes: vec!["/chat".into()],
                ..AccessRule::default()
            },
        ] {
            let mut world = World::new();
            world.access.deny.push(AccessRule {
                policy: "shop/no-chat#0".into(),
                ..rule
            });
            let mut told = application(&mut world, true);
            let mut sender = client(&mut world).await;
            let (status, fields) = refused(&mut sender, websocket()).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            let due = told_by("inbound", "http_request_denied", "access-denied");
            assert_eq!(fields["proxy-status"], due);
            assert!(told.try_recv().is_err());
        }
    });
}

#[test]
fn an_application_may_decline_a_websocket_over_http2() {
    within(async {
        let mut world = World::new();
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        let (response, to) = sender.send_request(websocket(), false).unwrap();
        let (_request, mut respond) = told.recv().await.unwrap();
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::UNAUTHORIZED;
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"who?"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let mut caller = End {
            to,
            from: response.into_body(),
        };
        caller.hears("who?").await;
        caller.hears_the_end().await;
    });
}

const TIME: Duration = Duration::from_secs(5);

/// The request's time passes. The clock stands still but for that.
async fn outlive() {
    tokio::time::pause();
    tokio::time::advance(TIME + Duration::from_secs(1)).await;
    tokio::time::resume();
}

#[test]
fn a_websocket_over_http2_outlives_its_requests_time() {
    within(async {
        let mut world = World::new();
        world.policy.timeouts.request = Some(TIME);
        world.policy.retries.per_try_timeout = Some(TIME);
        let mut told = application(&mut world, true);
        let mut sender = client(&mut world).await;
        let (mut caller, mut application) = opened(&mut sender, &mut told).await;
        outlive().await;
        caller.say("ping");
        application.hears("ping").await;
        application.say("pong");
        caller.hears("pong").await;
    });
}

#[test]
fn a_websocket_over_http1_outlives_its_requests_time() {
    within(async {
        let mut world = World::new();
        world.policy.timeouts.request = Some(TIME);
        let _told = world.answer(&[
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "pong",
        ]);
        let mut caller = world.connect().await;
        let request = "GET /chat HTTP/1.1\r\nhost: cart\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        caller.write_all(request.as_bytes()).await.unwrap();
        let head = message(&mut caller).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        outlive().await;
        caller.write_all(b"ping\r\n\r\n").await.unwrap();
        assert_eq!(body(&mut caller, 4).await, "pong");
    });
}
