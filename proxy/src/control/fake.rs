//! A control plane in memory for tests of this module: real TLS, real gRPC, and
//! a test that decides what it says.
//!
//! Never compiled into the proxy.

mod wire;

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier, version::TLS13},
    server::TlsStream,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};
use weft_proto::v1::{
    self, CertifyRequest, CertifyResponse, WatchRequest, WatchResponse,
    identity_server::{Identity, IdentityServer},
    watch_request::Message,
};

use super::dial::{Bytes, Dial};
use crate::{
    clock::Wall,
    runtime::Tasks,
    tls::authority::{self, Authority, NOW, Wanted},
};

pub(super) const CONTROL_PLANE: &str =
    "spiffe://cluster.local/ns/weft-system/sa/weft-control-plane";
pub(super) const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/shop";

/// What the test sets and reads.
pub(super) struct Plane {
    pub(super) authority: Authority,
    pub(super) wall: Wall,
    /// Seconds that a leaf lives.
    pub(super) life: i64,
    pub(super) is_down: bool,
    pub(super) refuses_to_certify: bool,
    pub(super) tokens: Vec<String>,
    pub(super) issued: Vec<Duration>,
    /// Who it pretends to be.
    pub(super) identity: &'static str,
}

/// Shared between the test and the services.
pub(super) type Shared = Arc<Mutex<Plane>>;

pub(super) struct Fake {
    pub(super) plane: Shared,
    streams: mpsc::UnboundedReceiver<FakeStream>,
    pub(super) dial: Dial,
}

/// One discovery stream, seen from the control plane.
pub(super) struct FakeStream {
    requests: Streaming<WatchRequest>,
    responses: mpsc::Sender<Result<Vec<u8>, Status>>,
    nonce: u64,
}

impl Fake {
    pub(super) fn start(tasks: &mut Tasks) -> Self {
        let plane = Arc::new(Mutex::new(Plane {
            authority: Authority::new("root"),
            wall: Wall::fixed(NOW),
            life: 86_400,
            is_down: false,
            refuses_to_certify: false,
            tokens: Vec::new(),
            issued: Vec::new(),
            identity: CONTROL_PLANE,
        }));
        let (accepted, connections) = mpsc::unbounded_channel();
        let (opened, streams) = mpsc::unbounded_channel();
        let services = Services {
            plane: plane.clone(),
        };
        let serving = tonic::transport::Server::builder()
            .add_service(wire::Discovery(opened))
            .add_service(IdentityServer::new(services))
            .serve_with_incoming(UnboundedReceiverStream::new(connections));
        let serving = Box::pin(serving);
        tasks.spawn(async move { serving.await.unwrap() });
        let (dialled, mut dialling) = mpsc::unbounded_channel();
        let shared = plane.clone();
        tasks.spawn(async move {
            let mut handshakes = Tasks::new();
            while let Some(far) = dialling.recv().await {
                let acceptor = TlsAcceptor::from(Arc::new(shared.lock().unwrap().tls()));
                let accepted = accepted.clone();
                handshakes.spawn(async move {
                    if let Ok(stream) = acceptor.accept(far).await {
                        let _ = accepted.send(Ok::<_, io::Error>(Accepted(stream)));
                    }
                });
            }
        });
        let shared = plane.clone();
        let dial: Dial = Arc::new(move || {
            let (near, far) = duplex(1 << 20);
            let is_down = shared.lock().unwrap().is_down;
            let sent = !is_down && dialled.send(far).is_ok();
            Box::pin(async move {
                let near: Box<dyn Bytes> = Box::new(near);
                if sent {
                    Ok(near)
                } else {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            })
        });
        Self {
            plane,
            streams,
            dial,
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Plane)) {
        change(&mut self.plane.lock().unwrap());
    }

    /// The next stream that the proxy opens.
    pub(super) async fn stream(&mut self) -> FakeStream {
        let stream = timeout(Duration::from_secs(3600), self.streams.recv()).await;
        stream.expect("the proxy opens a stream").unwrap()
    }

    /// The next stream, its hello and the subscriptions that follow.
    pub(super) async fn greet(
        &mut self,
        subscriptions: usize,
    ) -> (FakeStream, v1::Hello, Vec<String>) {
        let mut stream = self.stream().await;
        let Message::Hello(hello) = stream.next().await else {
            panic!("a stream begins with hello");
        };
        let mut names = Vec::new();
        for _ in 0..subscriptions {
            names.push(stream.subscribed().await.0);
        }
        (stream, hello, names)
    }
}

impl FakeStream {
    pub(super) async fn next(&mut self) -> Message {
        let message = timeout(Duration::from_secs(3600), self.requests.message()).await;
        let message = message.expect("the proxy says something").unwrap();
        message
            .expect("the proxy keeps the stream")
            .message
            .unwrap()
    }

    /// The name of the next subscription, and whether it is for the whole.
    pub(super) async fn subscribed(&mut self) -> (String, bool) {
        match self.next().await {
            Message::Subscribe(it) => (it.name.unwrap().name, it.refresh),
            other => panic!("a subscription and not {other:?}"),
        }
    }

    pub(super) async fn send(&mut self, response: WatchResponse) -> u64 {
        self.send_with(response, &[]).await
    }

    /// With fields of a newer control plane behind it.
    pub(super) async fn send_with(&mut self, response: WatchResponse, newer: &[u8]) -> u64 {
        self.nonce += 1;
        let response = WatchResponse {
            nonce: self.nonce,
            ..response
        };
        let mut bytes = response.encode_to_vec();
        bytes.extend(newer);
        self.responses.send(Ok(bytes)).await.unwrap();
        self.nonce
    }

    /// Sends and expects nothing but the acknowledgement.
    pub(super) async fn tell(&mut self, response: WatchResponse) {
        let nonce = self.send(response).await;
        assert_eq!(self.next().await, Message::Acknowledge(nonce));
    }

    pub(super) async fn resources(&mut self, resources: Vec<v1::Resource>) {
        self.tell(WatchResponse {
            resources,
            ..WatchResponse::default()
        })
        .await;
    }
}

impl Plane {
    fn tls(&self) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        roots.add(self.authority.root.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let (chain, key) = self.authority.issue(&Wanted {
            until: 1_000_000_000,
            ..Wanted::of(&[self.identity])
        });
        let mut config =
            ServerConfig::builder_with_details(provider, Arc::new(crate::tls::Date(self.wall)))
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, authority::private(&key))
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

#[derive(Clone)]
struct Services {
    plane: Shared,
}

#[tonic::async_trait]
impl Identity for Services {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let request = request.into_inner();
        let mut plane = self.plane.lock().unwrap();
        if plane.refuses_to_certify {
            return Err(Status::unavailable("no authority"));
        }
        let now = plane.wall.now();
        let from = i64::try_from((now - NOW).as_secs()).unwrap();
        let until = from + plane.life;
        let wanted = Wanted {
            // For clocks that are slow.
            from: from - 60,
            until,
            ..Wanted::of(&[SHOP])
        };
        let leaf = plane
            .authority
            .certify(&request.certificate_signing_request, &wanted);
        plane.tokens.push(request.token);
        plane.issued.push(now - NOW);
        Ok(Response::new(CertifyResponse {
            chain: vec![leaf.to_vec().into()],
            roots: vec![plane.authority.root.to_vec().into()],
        }))
    }
}

struct Accepted(TlsStream<DuplexStream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

// ── what it says ────────────────────────────────────────────────────────────

pub(super) fn resource(
    kind: v1::Kind,
    name: &str,
    version: u64,
    body: v1::resource::Body,
) -> v1::Resource {
    v1::Resource {
        name: Some(named(kind, name)),
        version,
        body: Some(body),
    }
}

pub(super) fn named(kind: v1::Kind, name: &str) -> v1::Name {
    v1::Name {
        kind: kind.into(),
        name: name.to_owned(),
    }
}

pub(super) fn mesh() -> v1::Resource {
    let ranges = vec!["10.0.0.0/8".to_owned()];
    let mesh = v1::Mesh {
        trust_domain: "cluster.local".to_owned(),
        ranges,
    };
    resource(v1::Kind::Mesh, "", 1, v1::resource::Body::Mesh(mesh))
}

pub(super) fn workload() -> v1::Resource {
    let workload = v1::Workload {
        namespace: "shop".to_owned(),
        pod: "shop-0".to_owned(),
        uid: "u-1".to_owned(),
        service_account: "shop".to_owned(),
        addresses: vec!["10.0.0.9".to_owned()],
        default_access: Some(v1::Access::default()),
        ..v1::Workload::default()
    };
    resource(
        v1::Kind::Workload,
        "shop/shop-0",
        2,
        v1::resource::Body::Workload(workload),
    )
}

/// "shop/cart" with port 80 and what else is asked for.
pub(super) fn service(version: u64, change: impl FnOnce(&mut v1::Service)) -> v1::Resource {
    let mut service = v1::Service {
        namespace: "shop".to_owned(),
        name: "cart".to_owned(),
        ports: vec![v1::ServicePort {
            port: 80,
            ..v1::ServicePort::default()
        }],
        ..v1::Service::default()
    };
    change(&mut service);
    let name = format!("{}/{}", service.namespace, service.name);
    resource(
        v1::Kind::Service,
        &name,
        version,
        v1::resource::Body::Service(service),
    )
}

pub(super) fn reference(name: &str) -> v1::ServiceRef {
    v1::ServiceRef {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        port: 80,
    }
}

pub(super) fn address(version: u64, meaning: v1::address::Meaning) -> v1::Resource {
    let address = v1::Address {
        meaning: Some(meaning),
    };
    resource(
        v1::Kind::Address,
        CART_ADDRESS,
        version,
        v1::resource::Body::Address(address),
    )
}

pub(super) const CART_ADDRESS: &str = "10.1.0.1:80";

pub(super) fn endpoint(last: u8) -> v1::Endpoint {
    v1::Endpoint {
        uid: format!("uid-{last}"),
        address: format!("10.0.0.{last}"),
        port: 8080,
        namespace: "shop".to_owned(),
        pod: format!("cart-{last}"),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
        mesh_protocols: vec!["weft1-h2".to_owned(), "weft1-tcp".to_owned()],
        weight: 1,
        ..v1::Endpoint::default()
    }
}

/// Of "shop/cart:80".
pub(super) fn endpoints(version: u64, change: v1::Endpoints) -> v1::Resource {
    endpoints_of("cart", version, change)
}

pub(super) fn endpoints_of(service: &str, version: u64, change: v1::Endpoints) -> v1::Resource {
    let name = format!("shop/{service}:80");
    resource(
        v1::Kind::Endpoints,
        &name,
        version,
        v1::resource::Body::Endpoints(change),
    )
}

pub(super) fn whole(endpoints: &[v1::Endpoint]) -> v1::Endpoints {
    v1::Endpoints {
        whole: true,
        added_or_updated: endpoints.to_vec(),
        ..v1::Endpoints::default()
    }
}

/// All that the address of "shop/cart" needs, with two endpoints.
pub(super) fn cart() -> Vec<v1::Resource> {
    vec![
        endpoints(10, whole(&[endpoint(1), endpoint(2)])),
        service(20, |_| {}),
        address(30, v1::address::Meaning::Service(reference("cart"))),
    ]
}

pub(super) fn heartbeat(
    newest: &[(v1::Kind, &str, u64)],
    interval_milliseconds: u32,
) -> WatchResponse {
    let newest = newest.iter().map(|(kind, name, version)| v1::Held {
        name: Some(named(*kind, name)),
        version: *version,
    });
    WatchResponse {
        heartbeat: Some(v1::Heartbeat {
            newest: newest.collect(),
            interval_milliseconds,
        }),
        ..WatchResponse::default()
    }
}
