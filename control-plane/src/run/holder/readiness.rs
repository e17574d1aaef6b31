//! When a pod's program can serve: what the readiness probes of its Pod
//! manifest say, as a kubelet would find out.
//!
//! Owned by `run::holder::pod`, which tells the mesh. Probes begin once the
//! program has been started. They are made in the pod's own network, past its
//! proxy: whether the program answers is no matter of policy; commands run
//! beside the program. A pod without probes is ready at once; one with a probe
//! that can't be made is not started.

mod grpc;
mod probe;

use std::{fs::File, net::IpAddr, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use self::probe::Probe;

/// Where probes are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) network: &'a File,
    /// The process there that is not the program's.
    pub(crate) proxy: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Readiness(Vec<Probed>);

#[derive(Debug)]
struct Probed {
    probe: Probe,
    rhythm: Rhythm,
    next: Instant,
    is_ready: bool,
    /// Answers in a row that speak against `is_ready`.
    against: u32,
}

/// Fields of a `Probe`, with the defaults of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rhythm {
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Readiness {
    /// Of a Pod manifest, for a pod with this address.
    ///
    /// # Errors
    /// Which probe can't be made and why, for people.
    pub(crate) fn of(pod: &Value, address: IpAddr) -> Result<Self, String> {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        let containers: Vec<&Value> = containers.into_iter().flatten().collect();
        let probes = containers.iter().filter_map(|it| it.get("readinessProbe"));
        let probed = probes.map(|probe| {
            Ok(Probed {
                probe: Probe::of(probe, &containers, address)?,
                rhythm: Rhythm::of(probe),
                next: Instant::now(),
                is_ready: false,
                against: 0,
            })
        });
        probed.collect::<Result<_, String>>().map(Self)
    }

    /// The program runs from now on.
    pub(crate) fn begin(&mut self) {
        for it in &mut self.0 {
            it.next = Instant::now() + it.rhythm.initial_delay;
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.iter().all(|it| it.is_ready)
    }

    /// Probes until `is_ready` is different. Can be dropped and called again at
    /// any await: what was not answered is asked again.
    pub(crate) async fn changed(&mut self, place: Place<'_>) {
        let before = self.is_ready();
        while self.is_ready() == before {
            let Some(due) = self.0.iter_mut().min_by_key(|it| it.next) else {
                return std::future::pending().await;
            };
            sleep_until(due.next).await;
            let passed = due.probe.make(place, due.rhythm.timeout).await;
            due.next = Instant::now() + due.rhythm.period;
            due.hear(passed);
        }
    }
}

impl Probed {
    fn hear(&mut self, passed: bool) {
        if passed == self.is_ready {
            self.against = 0;
            return;
        }
        self.against += 1;
        let enough = if passed {
            self.rhythm.successes
        } else {
            self.rhythm.failures
        };
        if self.against >= enough {
            self.is_ready = passed;
            self.against = 0;
        }
    }
}

impl Rhythm {
    fn of(probe: &Value) -> Self {
        let number = |field: &str, default, least: u64| {
            let given = probe.get(field).and_then(Value::as_u64);
            given.unwrap_or(default).max(least)
        };
        let count =
            |field: &str, default| u32::try_from(number(field, default, 1)).unwrap_or(u32::MAX);
        Self {
            initial_delay: Duration::from_secs(number("initialDelaySeconds", 0, 0)),
            period: Duration::from_secs(number("periodSeconds", 10, 1)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1, 1)),
            successes: count("successThreshold", 1),
            failures: count("failureThreshold", 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use serde_json::json;

    use super::*;

    fn pod(probe: &Value) -> Value {
        json!({"spec": {"containers": [
            {"name": "side"},
            {"ports": [{"name": "web", "containerPort": 8080}], "readinessProbe": probe},
        ]}})
    }

    fn of(probe: &Value) -> Result<Probed, String> {
        let found = Readiness::of(&pod(probe), "127.0.0.1".parse().unwrap());
        found.map(|mut it| it.0.pop().unwrap())
    }

    fn own_network() -> File {
        File::open("/proc/thread-self/ns/net").unwrap()
    }

    async fn passes(probe: &Value) -> bool {
        let (network, probed) = (own_network(), of(probe).unwrap());
        let place = Place {
            network: &network,
            proxy: None,
        };
        probed.probe.make(place, Duration::from_secs(20)).await
    }

    #[test]
    fn probes_are_read_with_the_defaults_of_kubernetes() {
        let named = of(&json!({"httpGet": {"port": "web"}})).unwrap();
        let at: std::net::SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert!(
            matches!(named.probe, Probe::Get { at: is, is_tls: false, .. } if is == at),
            "{named:?}"
        );
        let seconds = Duration::from_secs;
        let rhythm = Rhythm {
            initial_delay: seconds(0),
            period: seconds(10),
            timeout: seconds(1),
            successes: 1,
            failures: 3,
        };
        assert_eq!(named.rhythm, rhythm);
        let given = json!({
            "tcpSocket": {"port": 90}, "initialDelaySeconds": 2, "periodSeconds": 3,
            "timeoutSeconds": 4, "successThreshold": 5, "failureThreshold": 6,
        });
        let given = of(&given).unwrap();
        assert_eq!(given.probe, Probe::Connect("127.0.0.1:90".parse().unwrap()));
        assert_eq!(given.rhythm.period, seconds(3));
        assert_eq!((given.rhythm.successes, given.rhythm.failures), (5, 6));
    }

    #[test]
    fn what_can_not_be_probed_is_named() {
        for (probe, named) in [
            (json!({"exec": {"command": []}}), "exec"),
            (json!({"grpc": {"port": "none"}}), "\"none\""),
            (json!({"httpGet": {"port": 1, "scheme": "FTP"}}), "FTP"),
            (json!({"periodSeconds": 1}), "no kind"),
            (json!({"httpGet": {"port": "none"}}), "\"none\""),
            (json!({"tcpSocket": {"port": 0}}), "port 0"),
        ] {
            let why = of(&probe).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }

    #[test]
    fn a_pod_without_probes_is_ready_at_once() {
        let none = Readiness::of(&json!({}), "127.0.0.1".parse().unwrap());
        assert!(none.unwrap().is_ready());
    }

    #[test]
    fn it_takes_as_many_answers_in_a_row_as_the_manifest_says() {
        let probe = json!({"tcpSocket": {"port": 1}, "successThreshold": 2, "failureThreshold": 2});
        let mut probed = of(&probe).unwrap();
        let mut hear = |passed| {
            probed.hear(passed);
            probed.is_ready
        };
        let heard = [true, false, true, true, false, true, false, false].map(&mut hear);
        let is = [false, false, false, true, true, true, true, false];
        assert_eq!(heard, is);
    }

    /// Answers each connection with the next of these, then with the last again.
    fn server(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut heard = Vec::new();
                let mut piece = [0; 512];
                while !heard.windows(4).any(|it| it == b"\r\n\r\n") {
                    match stream.read(&mut piece).unwrap() {
                        0 => break,
                        read => heard.extend(&piece[..read]),
                    }
                }
                let heard = String::from_utf8(heard).unwrap();
                assert!(heard.starts_with("GET /up?a=b HTTP/1.1\r\n"), "{heard}");
                assert!(heard.contains("\r\nX-Who: probe\r\n"), "{heard}");
                let answer = answers.get(number).or_else(|| answers.last()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn an_endpoint_is_ready_from_the_first_good_answer_on() {
        let port = server(&[
            "HTTP/1.1 503 Not yet\r\n\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 399 Fine\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 400 No\r\n\r\n",
        ]);
        let get = json!({
            "path": "/up?a=b", "port": port,
            "httpHeaders": [{"name": "X-Who", "value": "probe"}],
        });
        let probe = json!({"httpGet": get, "failureThreshold": 1});
        let mut readiness = Readiness::of(&pod(&probe), "127.0.0.1".parse().unwrap()).unwrap();
        // Not the seconds that manifests count in.
        for it in &mut readiness.0 {
            it.rhythm.period = Duration::from_millis(1);
            it.rhythm.timeout = Duration::from_secs(20);
        }
        readiness.begin();
        let network = own_network();
        let place = Place {
            network: &network,
            proxy: None,
        };
        readiness.changed(place).await;
        assert!(readiness.is_ready());
        readiness.changed(place).await;
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_port_is_ready_once_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = json!({"tcpSocket": {"port": port}});
        assert!(passes(&probe).await);
        drop(listener);
        assert!(!passes(&probe).await);
    }

    #[tokio::test]
    async fn a_service_is_ready_while_it_says_so_over_grpc() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async {
            // UNKNOWN, SERVING, NOT_SERVING, and no answer of grpc.health.v1.
            for status in [Some(0), Some(1), Some(2), None] {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(
                    move |request: http::Request<hyper::body::Incoming>| async move {
                        use http_body_util::{BodyExt, Full};
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let asked = request.into_body().collect().await.unwrap().to_bytes();
                        // The message behind its prefix: field 1, "shop".
                        assert_eq!(&asked[5..], b"\x0a\x04shop");
                        let message: &[u8] = match status {
                            Some(status) => &[0, 0, 0, 0, 2, 8, status],
                            None => &[],
                        };
                        let body = Full::new(bytes::Bytes::copy_from_slice(message));
                        let mut trailers = http::HeaderMap::new();
                        let code = if status.is_some() { "0" } else { "12" };
                        trailers.insert("grpc-status", code.parse().unwrap());
                        let body = body.with_trailers(async move { Some(Ok(trailers)) });
                        let answer = http::Response::builder();
                        answer.header("content-type", "application/grpc").body(body)
                    },
                );
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                let connection = hyper::server::conn::http2::Builder::new(executor);
                let _ended = connection.serve_connection(io, service).await;
            }
        };
        let probe = json!({"grpc": {"port": port, "service": "shop"}});
        let asking = async {
            for passed in [false, true, false, false] {
                assert_eq!(passes(&probe).await, passed);
            }
        };
        tokio::join!(serving, asking);
    }

    #[tokio::test]
    async fn whoever_answers_over_https_is_ready_whatever_its_certificate() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio_rustls::{TlsAcceptor, rustls};
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]);
        let own = own.unwrap().self_signed(&key).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            );
        let acceptor = TlsAcceptor::from(std::sync::Arc::new(config.unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = async {
            for answer in ["HTTP/1.1 200 Fine\r\n\r\n", "HTTP/1.1 500 No\r\n\r\n"] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                let read = stream.read(&mut [0; 1024]).await.unwrap();
                assert!(read > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            // And one who can't speak TLS.
            let (mut plain, _) = listener.accept().await.unwrap();
            plain.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
        };
        let probe = json!({"httpGet": {"port": port, "scheme": "HTTPS"}});
        let asking = async {
            for passed in [true, false, false] {
                assert_eq!(passes(&probe).await, passed);
            }
        };
        tokio::join!(serving, asking);
    }
}
