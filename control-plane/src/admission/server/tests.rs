use std::{net::SocketAddr, sync::Arc};

use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        server::ClientHello,
        sign::{CertifiedKey, SingleCertAndKey},
    },
};

use super::*;
use crate::admission::{Namespace, Resources, Settings};

#[derive(Debug)]
struct Keys(SingleCertAndKey);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.resolve(hello)
    }
}

/// A served webhook, and a client that trusts it.
async fn served() -> (SocketAddr, TlsConnector, crate::runtime::Task) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["weft-webhook.weft-system.svc".to_owned()];
    let parameters = rcgen::CertificateParams::new(names).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], private, &provider);
    let keys = Keys(SingleCertAndKey::from(certified.unwrap()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings = Settings {
        image: "weft.dev/proxy:0.1.0".to_owned(),
        pull_policy: "Never".to_owned(),
        control_plane: "control:15010".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        trust_bundle: "pem".to_owned(),
        resources: Resources::default(),
        pull_secrets: Vec::new(),
        application_metrics: false,
    };
    let webhook = Webhook {
        settings: Arc::new(move || Some(settings.clone())),
        namespace: Arc::new(|_| Box::pin(std::future::ready(Namespace::default()))),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = tls(Arc::new(keys)).unwrap();
    let (_, leaving) = watch::channel(false);
    let serving = serve(listener, tls, webhook, Metrics::new(), leaving);
    let client = TlsConnector::from(Arc::new(client));
    (address, client, crate::runtime::spawn(serving))
}

/// Status line and body of an answer.
async fn ask(to: (SocketAddr, &TlsConnector), line: &str, body: &[u8]) -> (String, String) {
    let stream = TcpStream::connect(to.0).await.unwrap();
    let name = ServerName::try_from("weft-webhook.weft-system.svc").unwrap();
    let mut stream = to.1.connect(name, stream).await.unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before all is read.
    let _sent = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ended = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn an_api_server_is_answered_over_tls() {
    let (address, client, _serving) = served().await;
    let to = (address, &client);
    let review = json!({"request": {"uid": "7", "namespace": "shop", "object": {
        "metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "a"}]},
    }}});
    let (status, body) = ask(to, "POST /inject?timeout=5s", review.to_string().as_bytes()).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["response"]["patchType"], "JSONPatch");

    let policy = json!({"request": {"uid": "8", "object": {
        "apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy", "metadata": {"name": "a"}, "spec": {},
    }}});
    let (_, body) = ask(to, "POST /validate", policy.to_string().as_bytes()).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], false);
}

#[tokio::test]
async fn other_questions_get_no_review() {
    let (address, client, _serving) = served().await;
    let to = (address, &client);
    for (line, body, expected) in [
        ("GET /inject", &b""[..], "HTTP/1.1 405 Method Not Allowed"),
        ("POST /", b"{}", "HTTP/1.1 404 Not Found"),
        ("POST /inject", b"{}", "HTTP/1.1 400 Bad Request"),
        (
            "POST /validate",
            &vec![b' '; 4 * 1024 * 1024 + 1],
            "HTTP/1.1 400 Bad Request",
        ),
    ] {
        let (status, _) = ask(to, line, body).await;
        assert_eq!(status, expected, "{line}");
    }
}

/// Of every kind: nothing said, no whole head, and a body that never comes.
#[tokio::test]
async fn silent_connections_hold_no_review_up() {
    let (address, client, _serving) = served().await;
    let mut silent = Vec::new();
    let places = LIMITS.places.most;
    for _ in 0..=places {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut stuck = Vec::new();
    for _ in 0..=LARGE_AT_ONCE {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("weft-webhook.weft-system.svc").unwrap();
        let mut stream = client.connect(name, stream).await.unwrap();
        let head = "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    let review = json!({"request": {"uid": "7", "object": {"kind": "Service"}}});
    let body = review.to_string();
    let (status, _) = ask((address, &client), "POST /validate", body.as_bytes()).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
}

/// With the machine's own noise a pod still waits less than its 20 ms.
#[tokio::test]
async fn a_pod_of_many_containers_is_answered_in_time() {
    let container = |name: String| json!({"name": name, "image": "a", "readinessProbe": {"httpGet": {"port": 80}}});
    let containers: Vec<_> = (0..20).map(|it| container(format!("c{it}"))).collect();
    let review = json!({"request": {"uid": "7", "object": {
        "metadata": {"name": "a"}, "spec": {"containers": containers},
    }}});
    let body = review.to_string();
    let settings = Webhook {
        settings: Arc::new(|| {
            Some(Settings {
                image: "i".to_owned(),
                pull_policy: "Never".to_owned(),
                control_plane: "c:1".to_owned(),
                trust_domain: "d".to_owned(),
                trust_bundle: "pem".to_owned(),
                resources: Resources::default(),
                pull_secrets: Vec::new(),
                application_metrics: false,
            })
        }),
        namespace: Arc::new(|_| Box::pin(std::future::ready(Namespace::default()))),
    };
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        let answer = review::answer(&settings, Path::Inject, body.as_bytes()).await;
        assert_eq!(answer.unwrap().0, Verdict::Injected);
        shortest = shortest.min(begun.elapsed());
    }
    assert!(shortest < Duration::from_millis(20), "{shortest:?}");
}
