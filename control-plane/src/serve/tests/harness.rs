//! A control plane with an index that tests fill, and a proxy's side of it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{self, ClientConfig, RootCertStore, crypto::aws_lc_rs},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use weft_proto::v1::{self, discovery_client::DiscoveryClient, identity_client::IdentityClient};

use crate::{
    app::authority,
    ca::{
        Authority,
        bundle::Roots,
        token::{self, Claimed},
    },
    clock::Wall,
    gate::{Gate, Limits, Pass},
    identity,
    index::Index,
    model::{Event, Labels, Name, Namespace, Object, Pod, Service, ServicePort, TargetPort},
    roots::Fingerprint,
    runtime::{self, Task},
    serve::{
        accept::{Acceptor, Address, Listener},
        discovery::Discovery,
        hub::{Hub, State},
        identity::Identity,
        metrics::Metrics,
        replicas::Replicas,
        session::Context,
        tls::{Signed, Tls, replica},
    },
};

pub(crate) const DOMAIN: &str = "cluster.local";
/// Long enough that no test meets one by accident.
pub(crate) const QUIET: Duration = Duration::from_secs(600);
/// Only reached when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Plane {
    state: TempDir,
    pub(crate) authority: Arc<Authority>,
    pub(crate) hub: Hub,
    pub(crate) address: SocketAddr,
    _roots: watch::Sender<Roots>,
    pub(crate) tls: watch::Sender<Arc<Tls>>,
    pub(crate) going: watch::Sender<bool>,
    /// The Lease.
    pub(crate) holds: watch::Sender<bool>,
    pub(crate) metrics: Metrics,
    _tasks: [Task; 2],
}

pub(crate) fn tls_of(authority: &Authority, roots: &Roots) -> Arc<Tls> {
    let (issued, key) = authority.own(&identity::control_plane(DOMAIN)).unwrap();
    Arc::new(Tls::new(issued.chain, key.into(), roots, DOMAIN).unwrap())
}

pub(crate) fn authority() -> (TempDir, Arc<Authority>) {
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::open(
        &state.path().join("state"),
        DOMAIN,
        Duration::from_secs(3600),
        Wall::System,
    );
    (state, Arc::new(authority.unwrap()))
}

/// A place that nobody disputes.
pub(crate) fn pass(source: Option<IpAddr>) -> Arc<Pass> {
    let gate = Gate::new(Limits {
        most: 1,
        most_of_one: 1,
        most_waiting: 1,
    });
    Arc::new(gate.enter(source).unwrap())
}

/// Of some leaf, by some root.
pub(crate) fn signed() -> Signed {
    Signed {
        issued: 0,
        root: Fingerprint::of(&CertificateDer::from(b"a root".to_vec())),
    }
}

/// The key that mints and verifies, of the same directory.
pub(crate) fn tokens_of(state: &TempDir) -> token::Key {
    token::Key::read(&state.path().join("state")).unwrap()
}

impl Plane {
    pub(crate) async fn start(heartbeat: Duration) -> Self {
        // All that a control plane holds is in it: too much for a stack.
        Box::pin(Self::limited(heartbeat, 100)).await
    }

    pub(crate) async fn limited(heartbeat: Duration, most_connections: usize) -> Self {
        let (state, authority) = authority();
        let metrics = Metrics::new();
        let first: Roots = [authority.root()].into();
        let tls_of_first = tls_of(&authority, &first);
        let (roots, roots_out) = watch::channel(first.clone());
        let (tls, tls_out) = watch::channel(tls_of_first);
        let (going, going_out) = watch::channel(false);
        let (hub, run_hub) = Hub::new(State::new(Index::new(&[]), DOMAIN, first, metrics.clone()));
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let Address::Tcp(address) = listener.address().unwrap() else {
            panic!()
        };
        let (clock, holds) = (Wall::System, watch::Sender::new(true));
        let acceptor = Acceptor {
            listener,
            tls: tls_out.clone(),
            most_connections,
            clock,
            metrics: metrics.clone(),
        };
        let service = Identity {
            hub: hub.clone(),
            tokens: authority::tokens(tokens_of(&state), clock),
            signer: authority::signer(authority.clone()),
            roots: roots_out,
            metrics: metrics.clone(),
        };
        let discovery = Discovery(Context {
            hub: hub.clone(),
            heartbeat,
            clock,
            tls: tls_out,
            going: going_out.clone(),
            metrics: metrics.clone(),
        });
        let replicas = Replicas {
            hub: hub.clone(),
            holds: holds.subscribe(),
            tls: tls.subscribe(),
            clock,
            trust_domain: DOMAIN.to_owned(),
        };
        let serve = async move {
            crate::serve::run(acceptor, service, discovery, (Some(replicas), going_out))
                .await
                .unwrap()
        };
        let tasks = [runtime::spawn(run_hub), runtime::spawn(serve)];
        Self {
            state,
            authority,
            hub,
            address,
            _roots: roots,
            tls,
            going,
            holds,
            metrics,
            _tasks: tasks,
        }
    }

    /// With the shop's cart: two pods behind a service.
    pub(crate) async fn with_shop(heartbeat: Duration) -> Self {
        let plane = Self::start(heartbeat).await;
        plane.apply(shop()).await;
        plane.hub.ask(State::synced).await.unwrap();
        plane
    }

    pub(crate) async fn apply(&self, objects: Vec<Object>) {
        self.events(objects.into_iter().map(Event::Apply).collect())
            .await;
    }

    pub(crate) async fn events(&self, events: Vec<Event>) {
        self.hub
            .ask(move |state| state.apply(events))
            .await
            .unwrap();
    }

    pub(crate) fn token(&self, pod: &str, account: &str) -> String {
        let who = Claimed {
            pod: Name::new("shop", pod),
            uid: String::new(),
            service_account: account.to_owned(),
        };
        tokens_of(&self.state)
            .mint(&who, Duration::from_secs(600), Wall::System)
            .unwrap()
    }

    /// What `Certify` would give to a pod of this account.
    pub(crate) fn credentials(&self, account: &str) -> Credentials {
        self.credentials_of(&format!("spiffe://{DOMAIN}/ns/shop/sa/{account}"))
    }

    pub(crate) fn credentials_of(&self, identity: &str) -> Credentials {
        let (issued, key) = self.authority.own(identity).unwrap();
        Credentials {
            chain: issued.chain,
            key: key.into(),
        }
    }

    pub(crate) async fn connect(
        &self,
        credentials: Option<Credentials>,
    ) -> Result<Channel, tonic::transport::Error> {
        let config = client(
            self.authority.root(),
            credentials,
            &[&rustls::version::TLS13],
        );
        dial(self.address, config).await
    }

    pub(crate) async fn certify(
        &self,
        token: &str,
        request: Vec<u8>,
    ) -> Result<v1::CertifyResponse, Status> {
        let mut client = IdentityClient::new(self.connect(None).await.unwrap());
        let request = v1::CertifyRequest {
            certificate_signing_request: request.into(),
            token: token.to_owned(),
        };
        client
            .certify(request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn watch(&self, pod: &str) -> Watcher {
        self.watch_with(hello(pod), self.credentials("cart"))
            .await
            .unwrap()
    }

    pub(crate) async fn watch_with(
        &self,
        hello: v1::Hello,
        credentials: Credentials,
    ) -> Result<Watcher, Status> {
        let channel = self
            .connect(Some(credentials))
            .await
            .map_err(|error| Status::unknown(error.to_string()))?;
        Watcher::begin(channel, hello).await
    }
}

pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A proxy's end of its stream.
pub(crate) struct Watcher {
    pub(crate) requests: mpsc::Sender<v1::WatchRequest>,
    pub(crate) responses: Streaming<v1::WatchResponse>,
}

impl Watcher {
    pub(crate) async fn begin(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(64);
        let message = v1::watch_request::Message::Hello(hello);
        requests
            .send(v1::WatchRequest {
                message: Some(message),
            })
            .await
            .unwrap();
        let responses = DiscoveryClient::new(channel)
            .watch(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub(crate) async fn say(&self, message: v1::watch_request::Message) {
        self.requests
            .send(v1::WatchRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(crate) async fn subscribe(&self, kind: v1::Kind, name: &str) {
        self.say(v1::watch_request::Message::Subscribe(v1::Subscribe {
            name: Some(named(kind, name)),
            refresh: false,
        }))
        .await;
    }

    /// The next response, acknowledged.
    pub(crate) async fn next(&mut self) -> v1::WatchResponse {
        let response = self.hear().await.unwrap().expect("the stream goes on");
        self.say(v1::watch_request::Message::Acknowledge(response.nonce))
            .await;
        response
    }

    /// The next response or the end, unanswered.
    pub(crate) async fn hear(&mut self) -> Result<Option<v1::WatchResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("an answer in time")
    }
}

/// Until it holds; what it waits for happens on another task, without an event.
pub(crate) async fn eventually(holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it comes to hold");
}

pub(crate) fn hello(pod: &str) -> v1::Hello {
    v1::Hello {
        namespace: "shop".into(),
        pod: pod.into(),
        proxy_version: "0.1.0".into(),
        features: vec!["http-route/v1".into(), "access-policy/v1".into()],
        ..v1::Hello::default()
    }
}

pub(crate) fn named(kind: v1::Kind, name: &str) -> v1::Name {
    v1::Name {
        kind: kind.into(),
        name: name.to_owned(),
    }
}

/// "kind name" of each resource, in order.
pub(crate) fn names(response: &v1::WatchResponse) -> Vec<String> {
    let name = |it: &v1::Resource| {
        let name = it.name.clone().unwrap();
        format!("{} {}", name.kind().as_str_name(), name.name)
            .trim_end()
            .to_owned()
    };
    response.resources.iter().map(name).collect()
}

pub(crate) fn endpoints(response: &v1::WatchResponse) -> Vec<&v1::Endpoints> {
    let of = |it: &'_ v1::Resource| matches!(it.body, Some(v1::resource::Body::Endpoints(_)));
    let bodies = response
        .resources
        .iter()
        .filter(|it| of(it))
        .filter_map(|it| it.body.as_ref());
    bodies
        .filter_map(|it| match it {
            v1::resource::Body::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        })
        .collect()
}

pub(crate) fn shop() -> Vec<Object> {
    vec![
        Object::Namespace(Namespace {
            name: "shop".into(),
            ..Namespace::default()
        }),
        service("cart", "10.0.0.1"),
        pod("cart-0", "10.1.0.1"),
        pod("cart-1", "10.1.0.2"),
    ]
}

pub(crate) fn service(name: &str, address: &str) -> Object {
    Object::Service(Service {
        name: Name::new("shop", name),
        addresses: [address.parse().unwrap()].into(),
        selector: [("app".to_owned(), name.to_owned())].into(),
        ports: vec![ServicePort {
            port: 80,
            target: TargetPort::Number(8080),
            ..ServicePort::default()
        }],
        ..Service::default()
    })
}

/// Of the service before its dash, which is also its account.
pub(crate) fn pod(name: &str, address: &str) -> Object {
    let (app, _) = name.split_once('-').unwrap();
    Object::Pod(Pod {
        name: Name::new("shop", name),
        uid: format!("uid-{name}"),
        labels: Labels::from([("app".to_owned(), app.to_owned())]).into(),
        service_account: app.to_owned(),
        addresses: vec![address.parse().unwrap()],
        injected: Some(true),
        ready: true,
        weight: 1,
        ..Pod::default()
    })
}

pub(crate) fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec()
}

pub(crate) async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_| {
        let config = config.clone();
        async move { handshake(address, config).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(connector)
        .await
}

pub(crate) async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    TlsConnector::from(config)
        .connect(ServerName::try_from("weft.invalid").unwrap(), socket)
        .await
}

pub(crate) fn client(
    root: CertificateDer<'static>,
    credentials: Option<Credentials>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(replica::verifier(roots, provider, DOMAIN));
    let mut config = match credentials {
        Some(it) => builder
            .with_client_auth_cert(it.chain, it.key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub(crate) fn key_of(der: PrivatePkcs8KeyDer<'static>) -> PrivateKeyDer<'static> {
    der.into()
}
