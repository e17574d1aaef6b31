//! Two sidecars in one process, on loopback, without redirection: the caller's
//! outbound side and the callee's inbound side, with snapshots made by hand.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;
use crate::{
    clock::Wall,
    discovery::{
        Access, AccessRule, BackendCells, BackendPolicy, Endpoint, EndpointCells, EndpointState,
        Filters, Here, Hints, Known, Protocol, RouteTable, Security, ServicePort, Workload,
        WorkloadPort, samples,
    },
    drain::{Control, Phase},
    record::{self, AccessLog, Mode},
    runtime,
    telemetry::Registry,
    tls::{self, Alpn, authority::Authority},
};

mod places;
mod routes;
mod websockets;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);

/// Every test has loopback addresses of its own.
struct Net(u8);

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn at(&self, host: u8, port: u16) -> SocketAddr {
        // The process's number keeps parallel runs of this test apart.
        let process = (std::process::id() % 200) as u8 + 20;
        SocketAddr::from((Ipv4Addr::new(127, process, self.0, host), port))
    }

    fn caller(&self) -> SocketAddr {
        self.at(1, 15001)
    }

    fn callee(&self) -> SocketAddr {
        self.at(2, 15006)
    }

    fn application(&self) -> SocketAddr {
        self.at(3, 8080)
    }
}

struct World {
    net: Net,
    policy: BackendPolicy,
    access: Access,
    protocol: Protocol,
    /// Endpoints before the live one that nobody listens on.
    dead: u8,
    /// Of a route that takes everything.
    filters: Option<Filters>,
    routes: Option<RouteTable>,
    /// Instead of the live endpoint, and where the caller is.
    pods: Vec<places::Pod>,
    here: Here,
    tasks: Tasks,
    phases: Vec<Control>,
    /// Of the caller, and of the callee.
    looks: Vec<mpsc::Sender<Look>>,
}

impl World {
    fn new() -> Self {
        Self {
            net: Net::new(),
            policy: BackendPolicy::default(),
            access: Access::default(),
            protocol: Protocol::Detect,
            dead: 0,
            filters: None,
            routes: None,
            pods: Vec::new(),
            here: Here::default(),
            tasks: Tasks::new(),
            phases: Vec::new(),
            looks: Vec::new(),
        }
    }

    /// Starts both sidecars and connects the caller's application.
    async fn connect(&mut self) -> TcpStream {
        let authority = Authority::new("root");
        let caller = (self.net.caller(), self.net.at(1, 15006), SERVICE);
        let snapshot = self.callers_snapshot();
        self.start(caller, snapshot, authority.store(WEB)).await;
        self.start_callee(&authority).await;
        self.dial().await
    }

    async fn start_callee(&mut self, authority: &Authority) {
        let callee = (
            self.net.at(2, 15001),
            self.net.callee(),
            self.net.application(),
        );
        let snapshot = Snapshot {
            revision: 1,
            workload: Some(Arc::new(self.workload())),
            ..Snapshot::default()
        };
        self.start(callee, snapshot, authority.store(CART)).await;
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.net.caller()).await.unwrap()
    }

    async fn start(
        &mut self,
        (outbound, inbound, destination): (SocketAddr, SocketAddr, SocketAddr),
        snapshot: Snapshot,
        store: Store,
    ) {
        let config = Config::from_source(|name| match name {
            "WEFT_POD_NAMESPACE" => Some("shop".to_owned()),
            "WEFT_POD_NAME" => Some("cart-0".to_owned()),
            "WEFT_CONTROL_ADDRESS" => Some("unix:/nowhere".to_owned()),
            _ => None,
        });
        let origins = [outbound.ip(), inbound.ip()].map(|ip| (ip, destination));
        let settings = Settings {
            outbound_listen: outbound,
            inbound_listen: inbound,
            origin: Origin::Fixed(Arc::new(HashMap::from(origins))),
            ..Settings::new(&config.unwrap())
        };
        let mut registry = Registry::new();
        let log = AccessLog::start(&mut registry, Mode::Off, 1, io::sink()).unwrap();
        let recording = record::Config {
            series: 100,
            series_idle: Duration::from_secs(60),
        };
        let (phases, phase) = drain::channel();
        let (publish, snapshots) = watch::channel(Arc::new(snapshot));
        let shares = Shares {
            asker: Asker::channel(1).0,
            snapshots,
            certificates: Arc::new(store),
            shared: Shared::new(
                &mut registry,
                &recording,
                log,
                Wall::default(),
                phase.clone(),
            ),
            epoch: Epoch::start(),
            phase,
        };
        let (bound, listening) = oneshot::channel();
        let (looks, looked) = mpsc::channel(1);
        self.tasks.spawn(async move {
            run(settings, shares, bound, looked).await;
            drop(publish);
        });
        listening.await.unwrap().unwrap();
        self.looks.push(looks);
        self.phases.push(phases);
    }

    fn callers_snapshot(&mut self) -> Snapshot {
        let cells = Arc::new(BackendCells::default());
        let dead =
            (0..self.dead).map(|number| self.endpoint(self.net.at(100 + number, 15006), &cells));
        let live = self.endpoint(self.net.callee(), &cells);
        let endpoints = match self.pods.as_slice() {
            [] => dead.chain([live]).collect(),
            pods => pods.iter().map(|it| it.endpoint(self, &cells)).collect(),
        };
        let service = samples::service("cart");
        let backend = Backend::seen_from(
            &self.here,
            service.clone(),
            80,
            Arc::new(self.policy.clone()),
            endpoints,
            cells,
        );
        let default = Arc::new(backend);
        let filters = self.filters.take();
        let routes = filters.map(|filters| routes::of_all(&default, filters));
        let port = ServicePort {
            service,
            port: 80,
            protocol: self.protocol,
            routes: routes.or_else(|| self.routes.take()),
            default,
        };
        let meaning = Known::from(Meaning::Service(Arc::new(port)));
        Snapshot {
            revision: 1,
            ranges: Arc::new(["10.96.0.0/16".parse().unwrap()]),
            addresses: HashMap::from([(SERVICE, meaning)]),
            workload: None,
        }
    }

    fn endpoint(&self, address: SocketAddr, cells: &Arc<BackendCells>) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            key: EndpointKey(u64::from(u32::from_be_bytes(match address.ip() {
                IpAddr::V4(ip) => ip.octets(),
                IpAddr::V6(_) => [0; 4],
            }))),
            uid: address.to_string().into(),
            address,
            namespace: "shop".into(),
            pod: "cart-0".into(),
            security: Security::Mesh {
                identity: CART.parse().unwrap(),
                http: true,
                tcp: true,
            },
            protocol: Protocol::Detect,
            node: "".into(),
            zone: "".into(),
            hints: Hints::default(),
            weight: 1,
            state: EndpointState::Ready,
            cells: EndpointCells::new(cells),
        })
    }

    fn workload(&self) -> Workload {
        let port = WorkloadPort {
            protocol: Protocol::Detect,
            access: self.access.clone(),
        };
        Workload {
            ports: HashMap::from([(8080, port)]),
            ..samples::workload(Access::default())
        }
    }

    /// Accepts one connection after the other, and answers each message that
    /// ends in an empty line with the next of `answers`.
    fn answer(&mut self, answers: &'static [&'static str]) -> mpsc::UnboundedReceiver<String> {
        self.answer_at(self.net.application(), answers)
    }

    fn answer_at(
        &mut self,
        address: SocketAddr,
        answers: &'static [&'static str],
    ) -> mpsc::UnboundedReceiver<String> {
        let (tell, told) = mpsc::unbounded_channel();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        self.tasks.spawn(async move {
            let mut answers = answers.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Some(message) = message(&mut stream).await {
                    let _ = tell.send(message);
                    let Some(answer) = answers.next() else { return };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer.contains("onnection: close") {
                        break;
                    }
                }
            }
        });
        told
    }
}

/// Bytes up to an empty line.
async fn message(stream: &mut TcpStream) -> Option<String> {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(all).unwrap())
}

async fn body(stream: &mut TcpStream, length: usize) -> String {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

fn within(story: impl Future<Output = ()>) {
    let bounded = async { tokio::time::timeout(Duration::from_secs(20), story).await };
    runtime::main(bounded).unwrap().expect("in time");
}

#[test]
fn http1_crosses_two_sidecars_byte_for_byte() {
    within(async {
        let mut world = World::new();
        let mut told = world.answer(&[
            "HTTP/1.1 299 Fine  Indeed\r\nX-CaSe: yes\r\nx-two: 1\r\nx-two: 2\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ]);
        let mut caller = world.connect().await;
        let request =
            "GET /a?b=%41 HTTP/1.1\r\nHOST: cart\r\nX-oDd:  spaced \r\nAccept: */*\r\n\r\n";
        caller.write_all(request.as_bytes()).await.unwrap();
        let head = message(&mut caller).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), request);
        assert_eq!(
            head,
            "HTTP/1.1 299 Fine  Indeed\r\nX-CaSe: yes\r\nx-two: 1\r\nx-two: 2\r\nContent-Length: 2\r\n\r\n"
        );
        assert_eq!(body(&mut caller, 2).await, "ok");
        // The connection, its lane and the application's connection serve again.
        caller
            .write_all(b"GET /2 HTTP/1.1\r\nhost: cart\r\n\r\n")
            .await
            .unwrap();
        assert!(
            message(&mut caller)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 204 ")
        );
    });
}

#[test]
fn what_the_mesh_tells_itself_stays_inside() {
    within(async {
        let mut world = World::new();
        let mut told = world.answer(&[
            "HTTP/1.1 200 OK\r\nweft-fault: inbound/access-denied\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut caller = world.connect().await;
        let request = b"GET / HTTP/1.1\r\nhost: cart\r\nweft-attempt: 7\r\n\r\n";
        caller.write_all(request).await.unwrap();
        let head = message(&mut caller).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.contains("weft-"), "{head}");
        assert!(!told.recv().await.unwrap().contains("weft-"));
    });
}

#[test]
fn an_application_cannot_pretend_that_its_proxy_refused() {
    within(async {
        let mut world = World::new();
        // Believed, it would be tried again: nothing had been sent.
        let mut told = world.answer(
            &["HTTP/1.1 503 No\r\nweft-fault: inbound/connect-refused\r\ncontent-length: 0\r\n\r\n";
                2],
        );
        world.policy.retries.attempts = 1;
        let mut caller = world.connect().await;
        caller
            .write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n")
            .await
            .unwrap();
        assert!(
            message(&mut caller)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 503 ")
        );
        assert!(told.recv().await.is_some());
        assert!(told.try_recv().is_err());
    });
}

#[test]
fn a_denied_caller_learns_the_reason_and_the_application_nothing() {
    within(async {
        let mut world = World::new();
        world.access.deny.push(AccessRule {
            policy: "shop/none#0".into(),
            identities: vec![WEB.parse().unwrap()],
            ..AccessRule::default()
        });
        let mut told = world.answer(&[]);
        let mut caller = world.connect().await;
        caller
            .write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n")
            .await
            .unwrap();
        let head = message(&mut caller).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert!(head.contains(
            "proxy-status: weft-inbound; error=http_request_denied; details=\"access-denied\""
        ));
        assert!(!head.contains("weft-fault"), "{head}");
        assert!(told.try_recv().is_err());
    });
}

#[test]
fn a_malformed_request_reaches_nobody() {
    within(async {
        let mut world = World::new();
        let mut told = world.answer(&[]);
        let mut caller = world.connect().await;
        let request =
            b"POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n";
        caller.write_all(request).await.unwrap();
        let head = message(&mut caller).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(head.contains("weft-outbound"), "{head}");
        let mut rest = Vec::new();
        caller.read_to_end(&mut rest).await.unwrap();
        assert!(told.try_recv().is_err());
    });
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    within(async {
        let mut world = World::new();
        world.dead = 3;
        let _told = world.answer(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"; 8]);
        let mut caller = world.connect().await;
        for _ in 0..8 {
            caller
                .write_all(b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            let head = message(&mut caller).await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
    });
}

#[test]
fn an_answer_before_the_body_and_an_interim_one_are_passed_on() {
    within(async {
        let mut world = World::new();
        let _told = world.answer(&[
            "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut caller = world.connect().await;
        let request = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n";
        caller.write_all(request).await.unwrap();
        assert!(
            message(&mut caller)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 103 ")
        );
        assert!(
            message(&mut caller)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 413 ")
        );
    });
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    within(async {
        let mut world = World::new();
        let mut told = world.answer(&[
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
            "pong",
        ]);
        let mut caller = world.connect().await;
        let request = "GET /chat HTTP/1.1\r\nhost: cart\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        caller.write_all(request.as_bytes()).await.unwrap();
        assert!(
            message(&mut caller)
                .await
                .unwrap()
                .starts_with("HTTP/1.1 101 ")
        );
        assert_eq!(body(&mut caller, 5).await, "hello");
        assert!(told.recv().await.unwrap().contains("pgrade: websocket"));
        caller
            .write_all(b"\x81\x05 ping\r\n\r\n".map(|byte| byte & 0x7f).as_slice())
            .await
            .unwrap();
        assert_eq!(body(&mut caller, 4).await, "pong");
    });
}

#[test]
fn a_server_that_speaks_first_is_heard_and_half_closes_hold() {
    within(async {
        let mut world = World::new();
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        world.tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 ready\r\n").await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
        });
        let mut caller = world.connect().await;
        assert_eq!(body(&mut caller, 11).await, "220 ready\r\n");
        caller.write_all(b"EHLO me").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut back = String::new();
        caller.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "EHLO me");
    });
}

#[test]
fn a_peer_that_is_slow_to_begin_costs_the_application_no_second_connection() {
    within(async {
        let mut world = World::new();
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        let authority = Authority::new("root");
        world.start_callee(&authority).await;
        let silent = TcpStream::connect(world.net.callee()).await.unwrap();
        // The application was asked whether it speaks first; it doesn't.
        let (mut application, _) = listener.accept().await.unwrap();
        let caller = authority.store(WEB);
        let cart = CART.parse().unwrap();
        let connecting = tls::connect::connect(silent, &cart, Alpn::Tcp, &caller);
        let mut peer = Box::pin(connecting).await.unwrap().stream;
        peer.write_all(b"hello").await.unwrap();
        peer.flush().await.unwrap();
        assert_eq!(body(&mut application, 5).await, "hello");
    });
}

#[test]
fn http2_streams_cross_with_trailers() {
    within(async {
        let mut world = World::new();
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        world.tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let path = request.uri().path().to_owned();
                let head = ::http::Response::new(());
                let mut stream = respond.send_response(head, false).unwrap();
                stream.send_data(Bytes::from(path), false).unwrap();
                let mut trailers = ::http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
        });
        let caller = world.connect().await;
        let (mut sender, connection) = h2::client::handshake(caller).await.unwrap();
        world.tasks.spawn(async move {
            let _ = connection.await;
        });
        for path in ["/a", "/b", "/c"] {
            let request = ::http::Request::post(format!("http://cart{path}"))
                .body(())
                .unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let mut answer = response.await.unwrap().into_body();
            assert_eq!(answer.data().await.unwrap().unwrap(), path);
            let trailers = answer.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

#[test]
fn a_get_outlives_an_http2_connection_that_died_in_our_hands() {
    within(async {
        let mut world = World::new();
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        world.tasks.spawn(async move {
            for served in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                let _stream = respond
                    .send_response(::http::Response::new(()), true)
                    .unwrap();
                // Answered, and at the next request gone without a word.
                let next = connection.accept().await;
                assert!(served > 0 || next.is_some());
            }
        });
        let caller = world.connect().await;
        let (mut sender, connection) = h2::client::handshake(caller).await.unwrap();
        world.tasks.spawn(async move {
            let _ = connection.await;
        });
        for _ in 0..2 {
            let request = ::http::Request::get("http://cart/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
    });
}

/// Answers every HTTP/2 request with 200.
async fn say_yes(stream: TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _stream = respond
            .send_response(::http::Response::new(()), true)
            .unwrap();
    }
}

#[test]
fn a_draining_proxy_retires_its_callers_and_not_its_application() {
    within(async {
        let mut world = World::new();
        let _told = world.answer(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"; 4]);
        let mut application = world.connect().await;
        let request = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
        application.write_all(request).await.unwrap();
        assert!(!message(&mut application).await.unwrap().contains("close"));
        for control in &world.phases {
            control.advance(Phase::Draining);
        }
        application.write_all(request).await.unwrap();
        assert!(!message(&mut application).await.unwrap().contains("close"));
        let mut caller = TcpStream::connect(world.net.callee()).await.unwrap();
        caller.write_all(request).await.unwrap();
        let answer = message(&mut caller).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_draining_proxy_serves_new_http2_connections() {
    within(async {
        let mut world = World::new();
        let listener = TcpListener::bind(world.net.application()).await.unwrap();
        world.tasks.spawn(async move {
            let mut served = Tasks::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(say_yes(stream));
            }
        });
        drop(world.connect().await);
        for control in &world.phases {
            control.advance(Phase::Draining);
        }
        // How many requests are answered over one connection, of three.
        let mut answered = Vec::new();
        for address in [world.net.caller(), world.net.callee()] {
            let stream = TcpStream::connect(address).await.unwrap();
            let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
            world.tasks.spawn(async move {
                let _ = connection.await;
            });
            let mut count = 0;
            for _ in 0..3 {
                let request = ::http::Request::get("http://cart/").body(()).unwrap();
                let Ok(mut ready) = sender.ready().await else {
                    break;
                };
                let Ok((response, _)) = ready.send_request(request, true) else {
                    break;
                };
                let Ok(response) = response.await else {
                    break;
                };
                assert_eq!(response.status(), 200);
                count += 1;
                sender = ready;
            }
            answered.push(count);
        }
        let [application, caller] = answered[..] else {
            panic!("{answered:?}")
        };
        assert_eq!(application, 3, "the application keeps its network");
        assert!((1..3).contains(&caller), "a caller had {caller} answers");
    });
}

#[test]
fn a_worker_shows_what_its_pools_hold() {
    within(async {
        let mut world = World::new();
        let _told = world.answer(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"; 2]);
        let mut caller = world.connect().await;
        let request = b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n";
        caller.write_all(request).await.unwrap();
        assert!(message(&mut caller).await.unwrap().contains("200"));

        let look = async |at: usize| {
            let (reply, answer) = oneshot::channel();
            world.looks[at].send(reply).await.unwrap();
            answer.await.unwrap()
        };
        let outbound = look(0).await["outbound"].take();
        assert_eq!(outbound[0]["address"], world.net.callee().to_string());
        assert_eq!(outbound[0]["pod"], "shop/cart-0");
        let connection = &outbound[0]["holds"]["connections"][0];
        assert_eq!(connection["is_open"], true);
        // The lane that has served waits for the next request.
        assert_eq!(
            (&connection["streams"], &connection["idle_lanes"]),
            (&1.into(), &1.into())
        );
        assert_eq!(outbound[0]["holds"]["is_dialling"], false);
        assert_eq!(outbound.as_array().map(Vec::len), Some(1));

        let inbound = look(1).await["inbound"].take();
        let application = world.net.application().to_string();
        assert_eq!(inbound[0]["address"], application);
        assert_eq!(inbound[0]["holds"]["idle_sockets"], 1);
    });
}
