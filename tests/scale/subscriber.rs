//! A proxy's end of a discovery stream: says hello, subscribes, acknowledges.

use std::{net::SocketAddr, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};
use weft_proto::v1::{
    self, discovery_client::DiscoveryClient, resource::Body, watch_request::Message,
};
use weft_tests::rogue::{self, Authority, Validity};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Subscriber {
    requests: mpsc::Sender<v1::WatchRequest>,
    responses: Streaming<v1::WatchResponse>,
}

impl Subscriber {
    /// As this pod of this namespace, of the account `default`; `mesh` holds the
    /// control plane's state.
    pub(crate) async fn start(listen: SocketAddr, mesh: &Path, namespace: &str, pod: &str) -> Self {
        let identity = rogue::identity(namespace, "default");
        let credentials = Authority::of_mesh(mesh).issue(&identity, Validity::Now);
        let dial = tower::service_fn(move |_| {
            let credentials = credentials.clone();
            async move {
                let socket = TcpStream::connect(listen).await?;
                let connected = rogue::connect(socket, Some(credentials), "h2").await;
                connected.map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_static("http://control-plane")
            .connect_with_connector(dial)
            .await
            .unwrap();
        let (requests, outgoing) = mpsc::channel(64);
        let hello = Message::Hello(v1::Hello {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            proxy_version: "0.1.0".to_owned(),
            features: vec!["http-route/v1".to_owned(), "access-policy/v1".to_owned()],
            ..v1::Hello::default()
        });
        requests.send(of(hello)).await.unwrap();
        let mut client = DiscoveryClient::new(channel);
        let responses = client.watch(ReceiverStream::new(outgoing)).await.unwrap();
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    pub(crate) async fn subscribe(&self, address: &str) {
        let name = v1::Name {
            kind: v1::Kind::Address.into(),
            name: address.to_owned(),
        };
        let subscribe = Message::Subscribe(v1::Subscribe {
            name: Some(name),
            refresh: false,
        });
        self.requests.send(of(subscribe)).await.unwrap();
    }

    /// The next that is told of endpoints; everything is acknowledged.
    pub(crate) async fn endpoints(&mut self) -> v1::Endpoints {
        loop {
            let response = timeout(PATIENCE, self.responses.message()).await;
            let response = response.expect("an answer in time").unwrap();
            let response = response.expect("the stream goes on");
            let acknowledge = Message::Acknowledge(response.nonce);
            self.requests.send(of(acknowledge)).await.unwrap();
            let mut bodies = response.resources.into_iter().filter_map(|it| it.body);
            let endpoints = bodies.find_map(|it| match it {
                Body::Endpoints(endpoints) => Some(endpoints),
                _ => None,
            });
            if let Some(endpoints) = endpoints {
                return endpoints;
            }
        }
    }
}

const fn of(message: Message) -> v1::WatchRequest {
    v1::WatchRequest {
        message: Some(message),
    }
}
