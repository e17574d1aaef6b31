//! Each filter of a route once through two sidecars, in both versions of HTTP.

use http::{HeaderName, HeaderValue};

use super::*;
use crate::discovery::{
    Cors, FieldEdits, GrpcMatch, Match, Mirror, Names, Origin as Allowed, PathEdit, Redirect,
    RequestEdits, Rule, RuleCells, Schedule, Text, WeightedBackend,
};
use crate::route::{Attached, table};

fn rule(backend: &Arc<Backend>, filters: Option<Filters>) -> Arc<Rule> {
    Arc::new(Rule {
        route: "shop/r".into(),
        index: 0,
        backends: vec![WeightedBackend {
            weight: 1,
            backend: Ok(Arc::clone(backend)),
            filters: filters.map(Arc::new),
        }],
        schedule: Schedule::new([1]),
        request_timeout: None,
        backend_timeout: None,
        cells: Arc::new(RuleCells::default()),
    })
}

/// One rule that takes everything.
pub(super) fn of_all(backend: &Arc<Backend>, filters: Filters) -> RouteTable {
    table(vec![Attached {
        created_milliseconds: 0,
        is_grpc: false,
        rules: vec![(Vec::new(), rule(backend, Some(filters)))],
    }])
}

fn fields(set: &'static str, add: &'static str, remove: &'static str) -> FieldEdits {
    let name = HeaderName::from_static;
    let mut edits = FieldEdits::default();
    edits.set(&name(set), HeaderValue::from_static("set"));
    edits.add(&name(add), HeaderValue::from_static("added"));
    edits.remove(&name(remove));
    edits
}

/// An endpoint without a sidecar, of a backend of its own.
fn plain(address: SocketAddr, policy: BackendPolicy) -> Arc<Backend> {
    let cells = Arc::new(BackendCells::default());
    let endpoint = Endpoint {
        key: EndpointKey(1),
        uid: "copy".into(),
        address,
        namespace: "shop".into(),
        pod: "copy-0".into(),
        security: Security::Unmeshed,
        protocol: Protocol::Detect,
        node: "".into(),
        zone: "".into(),
        hints: Hints::default(),
        weight: 1,
        state: EndpointState::Ready,
        cells: EndpointCells::new(&cells),
    };
    Arc::new(Backend::new(
        samples::service("copy"),
        8080,
        Arc::new(policy),
        vec![Arc::new(endpoint)],
        cells,
    ))
}

fn mirrored(to: SocketAddr) -> Filters {
    mirrored_within(to, BackendPolicy::default())
}

fn mirrored_within(to: SocketAddr, policy: BackendPolicy) -> Filters {
    Filters {
        mirrors: vec![Mirror {
            backend: Ok(plain(to, policy)),
            numerator: 1,
            denominator: 1,
        }],
        ..Filters::default()
    }
}

async fn ask(caller: &mut TcpStream, request: &str) -> String {
    caller.write_all(request.as_bytes()).await.unwrap();
    message(caller).await.unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn headers_are_modified_both_ways_and_the_rest_is_untouched() {
    within(async {
        let mut world = World::new();
        world.filters = Some(Filters {
            request: RequestEdits {
                fields: fields("x-set", "x-add", "x-remove"),
                ..RequestEdits::default()
            },
            response: Arc::new(fields("server", "x-also", "x-secret")),
            ..Filters::default()
        });
        let mut told = world.answer(&[
            "HTTP/1.1 299 So  So\r\nX-CaSe:  a\r\nServer: app\r\nX-Secret: b\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut caller = world.connect().await;
        let head = ask(
            &mut caller,
            "GET / HTTP/1.1\r\nHOST: cart\r\nX-Set: old\r\nX-oDd:  b\r\nX-Remove: c\r\n\r\n",
        )
        .await;
        assert_eq!(
            told.recv().await.unwrap(),
            "GET / HTTP/1.1\r\nHOST: cart\r\nX-oDd:  b\r\nx-set: set\r\nx-add: added\r\n\r\n"
        );
        assert_eq!(
            head,
            "HTTP/1.1 299 So  So\r\nX-CaSe:  a\r\ncontent-length: 0\r\nserver: set\r\nx-also: added\r\n\r\n"
        );
    });
}

#[test]
fn a_rewrite_changes_host_and_path_and_keeps_the_query() {
    within(async {
        let mut world = World::new();
        world.filters = Some(Filters {
            request: RequestEdits {
                host: Some(HeaderValue::from_static("b.example")),
                path: Some(PathEdit::Prefix("/new".into())),
                ..RequestEdits::default()
            },
            ..Filters::default()
        });
        let mut told = world.answer(&[OK]);
        let mut caller = world.connect().await;
        let head = ask(&mut caller, "GET /a?b=%41 HTTP/1.1\r\nHost: cart\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(
            told.recv().await.unwrap(),
            "GET /new/a?b=%41 HTTP/1.1\r\nHost: b.example\r\n\r\n"
        );
    });
}

fn redirect() -> Filters {
    Filters {
        redirect: Some(Redirect {
            scheme: "https",
            hostname: None,
            port: "".into(),
            path: Some(PathEdit::Full("/there".into())),
            status: 308,
            service_host: "cart.shop".into(),
        }),
        ..Filters::default()
    }
}

#[test]
fn a_redirect_is_answered_and_the_connection_serves_on() {
    within(async {
        let mut world = World::new();
        world.filters = Some(redirect());
        let mut told = world.answer(&[]);
        let mut caller = world.connect().await;
        for _ in 0..2 {
            let head = ask(
                &mut caller,
                "GET /here?a=b HTTP/1.1\r\nHost: cart:80\r\n\r\n",
            )
            .await;
            assert_eq!(
                head,
                "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://cart/there?a=b\r\ncontent-length: 0\r\n\r\n"
            );
        }
        // What it would have sent is not waited for.
        let head = ask(
            &mut caller,
            "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 9\r\n\r\n",
        )
        .await;
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert!(told.try_recv().is_err());
    });
}

#[test]
fn a_mirror_gets_a_copy_and_its_answer_is_thrown_away() {
    within(async {
        let mut world = World::new();
        let copy = world.net.at(4, 8080);
        world.filters = Some(Filters {
            request: RequestEdits {
                fields: fields("x-set", "x-add", "x-remove"),
                ..RequestEdits::default()
            },
            ..mirrored(copy)
        });
        let mut told = world.answer(&[OK; 2]);
        let mut copied = world.answer_at(
            copy,
            &["HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad", OK],
        );
        let mut caller = world.connect().await;
        for request in [
            "GET /a?b HTTP/1.1\r\nHost: cart\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: cart\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ] {
            let head = ask(&mut caller, request).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let (sent, copy) = (told.recv().await.unwrap(), copied.recv().await.unwrap());
            assert!(sent.contains("x-add: added\r\n"), "{sent}");
            assert_eq!(sent, copy);
            if request.starts_with("POST") {
                assert_eq!(copied.recv().await.unwrap(), "4\r\nbody\r\n0\r\n\r\n");
            }
        }
    });
}

#[test]
fn a_mirror_that_is_not_there_or_never_answers_is_not_noticed() {
    within(async {
        for answers in [None, Some(&[] as &[&str])] {
            let mut world = World::new();
            let copy = world.net.at(4, 8080);
            world.filters = Some(mirrored(copy));
            let _told = world.answer(&[OK; 2]);
            let _copied = answers.map(|answers| world.answer_at(copy, answers));
            let mut caller = world.connect().await;
            for _ in 0..2 {
                let head = ask(&mut caller, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            }
        }
    });
}

#[test]
fn a_mirror_never_takes_the_last_place() {
    within(async {
        for (connections, requests) in [(Some(1), None), (None, Some(1)), (Some(2), Some(2))] {
            let mut policy = BackendPolicy::default();
            policy.limits.connections = connections;
            policy.limits.requests = requests;
            let mut world = World::new();
            let copy = world.net.at(4, 8080);
            world.filters = Some(mirrored_within(copy, policy));
            let _told = world.answer(&[OK; 2]);
            let mut copied = world.answer_at(copy, &[OK; 2]);
            let mut caller = world.connect().await;
            let head = ask(&mut caller, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            if connections == requests {
                assert!(copied.recv().await.is_some());
            } else {
                // An answer later it would be on its way.
                ask(&mut caller, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
                assert!(copied.try_recv().is_err());
            }
        }
    });
}

#[test]
fn what_is_larger_than_a_replay_goes_to_its_backend_alone() {
    within(async {
        let mut world = World::new();
        let copy = world.net.at(4, 8080);
        world.filters = Some(mirrored(copy));
        let mut copied = world.answer_at(copy, &[OK; 2]);
        let length = 64 * 1024 + 1;
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        world.tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            message(&mut stream).await.unwrap();
            body(&mut stream, length).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
            message(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        });
        let mut caller = world.connect().await;
        let large = format!(
            "POST /large HTTP/1.1\r\nHost: cart\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        );
        assert!(ask(&mut caller, &large).await.starts_with("HTTP/1.1 200 "));
        let small = "GET /small HTTP/1.1\r\nHost: cart\r\n\r\n";
        assert!(ask(&mut caller, small).await.starts_with("HTTP/1.1 200 "));
        // The first copy that ever comes is the second request's.
        let first = copied.recv().await.unwrap();
        assert!(first.starts_with("GET /small "), "{first}");
    });
}

#[test]
fn a_browser_is_answered_and_the_actual_answer_decorated() {
    within(async {
        let mut world = World::new();
        let names = |text| Names {
            any: false,
            listed: Some(HeaderValue::from_static(text)),
        };
        world.filters = Some(Filters {
            cors: Some(Cors {
                origins: vec![Allowed::parse("https://*.example").unwrap()],
                credentials: true,
                methods: names("PUT"),
                headers: names("x-token"),
                expose: names("x-id"),
                max_age: HeaderValue::from(600),
            }),
            ..Filters::default()
        });
        let mut told = world.answer(&[
            "HTTP/1.1 200 OK\r\nVary: Accept\r\nAccess-Control-Allow-Origin: *\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut caller = world.connect().await;
        let head = ask(
            &mut caller,
            "OPTIONS / HTTP/1.1\r\nHost: cart\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
        )
        .await;
        assert_eq!(
            head,
            "HTTP/1.1 204 No Content\r\nvary: Origin\r\n\
             access-control-allow-origin: https://a.example\r\naccess-control-allow-credentials: true\r\n\
             access-control-allow-methods: PUT\r\naccess-control-allow-headers: x-token\r\n\
             access-control-max-age: 600\r\n\r\n"
        );
        assert!(told.try_recv().is_err());
        let head = ask(
            &mut caller,
            "GET / HTTP/1.1\r\nHost: cart\r\nOrigin: https://a.example\r\n\r\n",
        )
        .await;
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nVary: Accept\r\ncontent-length: 0\r\n\
             vary: Origin\r\naccess-control-allow-origin: https://a.example\r\naccess-control-allow-credentials: true\r\n\
             access-control-expose-headers: x-id\r\n\r\n"
        );
        assert!(told.recv().await.is_some());
    });
}

/// What an HTTP/2 application is asked: method, target and one header.
async fn h2_application(world: &mut World) -> mpsc::UnboundedReceiver<::http::Request<()>> {
    let (tell, told) = mpsc::unbounded_channel();
    let listener = TcpListener::bind(world.net.application()).await.unwrap();
    world.tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (parts, _) = request.into_parts();
            let _ = tell.send(::http::Request::from_parts(parts, ()));
            let head = ::http::Response::builder()
                .header("server", "app")
                .header("x-secret", "1")
                .body(())
                .unwrap();
            let _stream = respond.send_response(head, true).unwrap();
        }
    });
    told
}

async fn h2_caller(world: &mut World) -> h2::client::SendRequest<Bytes> {
    let caller = world.connect().await;
    let (sender, connection) = h2::client::handshake(caller).await.unwrap();
    world.tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

#[test]
fn http2_is_modified_and_rewritten_alike() {
    within(async {
        let mut world = World::new();
        world.filters = Some(Filters {
            request: RequestEdits {
                fields: fields("x-set", "x-add", "x-remove"),
                host: Some(HeaderValue::from_static("b.example")),
                path: Some(PathEdit::Full("/new".into())),
            },
            response: Arc::new(fields("server", "x-also", "x-secret")),
            ..Filters::default()
        });
        let mut told = h2_application(&mut world).await;
        let mut sender = h2_caller(&mut world).await;
        let request = ::http::Request::get("http://cart/old?q=1")
            .header("x-set", "old")
            .header("x-add", "own")
            .header("x-remove", "1")
            .body(())
            .unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let answer = response.await.unwrap();
        let asked = told.recv().await.unwrap();
        assert_eq!(asked.uri(), "http://b.example/new?q=1");
        let values = |name| {
            let values = asked.headers().get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(values("x-set"), ["set"]);
        assert_eq!(values("x-add"), ["own", "added"]);
        assert_eq!(values("x-remove"), [""; 0]);
        assert_eq!(answer.headers()["server"], "set");
        assert_eq!(answer.headers()["x-also"], "added");
        assert!(!answer.headers().contains_key("x-secret"));
    });
}

#[test]
fn http2_is_redirected_alike() {
    within(async {
        let mut world = World::new();
        world.filters = Some(redirect());
        let mut sender = h2_caller(&mut world).await;
        let request = ::http::Request::post("http://cart/here").body(()).unwrap();
        let (response, _body) = sender.send_request(request, false).unwrap();
        let answer = response.await.unwrap();
        assert_eq!(answer.status(), 308);
        assert_eq!(answer.headers()["location"], "https://cart/there");
        assert!(answer.into_body().is_end_stream());
    });
}

/// A GRPCRoute that takes "pkg.Cart/Add" and has no backend for it.
fn add_alone() -> RouteTable {
    let exact = |text: &str| Some(Text::Exact(text.into()));
    let one = Match {
        grpc: Some(GrpcMatch {
            service: exact("pkg.Cart"),
            method: exact("Add"),
        }),
        ..Match::default()
    };
    let mut rule = rule(&plain(SERVICE, BackendPolicy::default()), None);
    if let Some(rule) = Arc::get_mut(&mut rule) {
        rule.backends[0].backend = Err("no such service".into());
    }
    table(vec![Attached {
        created_milliseconds: 0,
        is_grpc: true,
        rules: vec![(vec![one], rule)],
    }])
}

/// GRPCRouteRule: unmatched is UNIMPLEMENTED, an invalid backend UNAVAILABLE,
/// both told in gRPC's own way, Trailers-Only.
#[test]
fn a_grpc_call_that_goes_nowhere_is_told_by_its_status() {
    within(async {
        let mut world = World::new();
        world.routes = Some(add_alone());
        let mut sender = h2_caller(&mut world).await;
        for (path, status) in [("/pkg.Cart/Remove", "12"), ("/pkg.Cart/Add", "14")] {
            let request = ::http::Request::post(format!("http://cart{path}"))
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let answer = response.await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert_eq!(answer.headers()["grpc-status"], status, "{path}");
            assert_eq!(answer.headers()["content-type"], "application/grpc");
            assert!(answer.into_body().is_end_stream(), "{path}");
        }
    });
}
