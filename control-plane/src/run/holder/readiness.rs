//! When a pod's program can serve: what the readiness probes of its Pod
//! manifest say, as a kubelet would find out.
//!
//! Owned by `run::holder::pod`, which tells the mesh. Probes begin once the
//! program has been started. They are made in the pod's own network, past its
//! proxy: whether the program answers is no matter of policy. A pod without
//! probes is ready at once; one whose probes are of a kind that can't be made
//! here (`exec`, `grpc`, HTTPS) as well, and its launcher is told so.

mod probe;

use std::{fs::File, net::IpAddr, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use self::probe::{How, Probe};

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
    /// Of a Pod manifest, for a pod with this address; and what of it can't be had.
    pub(crate) fn of(pod: &Value, address: IpAddr) -> (Self, Vec<String>) {
        let (mut probed, mut left_out) = (Vec::new(), Vec::new());
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        let containers: Vec<&Value> = containers.into_iter().flatten().collect();
        for probe in containers.iter().filter_map(|it| it.get("readinessProbe")) {
            match How::of(probe, &containers) {
                Ok((how, port)) => probed.push(Probed {
                    probe: Probe {
                        how,
                        at: (address, port).into(),
                    },
                    rhythm: Rhythm::of(probe),
                    next: Instant::now(),
                    is_ready: false,
                    against: 0,
                }),
                Err(why) => left_out.push(why),
            }
        }
        (Self(probed), left_out)
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
    pub(crate) async fn changed(&mut self, network: &File) {
        let before = self.is_ready();
        while self.is_ready() == before {
            let Some(due) = self.0.iter_mut().min_by_key(|it| it.next) else {
                return std::future::pending().await;
            };
            sleep_until(due.next).await;
            let passed = due.probe.make(network, due.rhythm.timeout).await;
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
        let (mut found, mut wrong) = Readiness::of(&pod(probe), "127.0.0.1".parse().unwrap());
        found.0.pop().ok_or_else(|| wrong.remove(0))
    }

    fn own_network() -> File {
        File::open("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn probes_are_read_with_the_defaults_of_kubernetes() {
        let named = of(&json!({"httpGet": {"port": "web"}})).unwrap();
        assert_eq!(named.probe.at, "127.0.0.1:8080".parse().unwrap());
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
        assert_eq!(given.probe.at.port(), 90);
        assert_eq!(given.rhythm.period, seconds(3));
        assert_eq!((given.rhythm.successes, given.rhythm.failures), (5, 6));
    }

    #[test]
    fn what_can_not_be_probed_is_named() {
        for (probe, named) in [
            (json!({"exec": {"command": ["true"]}}), "exec"),
            (json!({"grpc": {"port": 1}}), "grpc"),
            (json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}), "HTTPS"),
            (json!({"httpGet": {"port": "none"}}), "\"none\""),
            (json!({"tcpSocket": {"port": 0}}), "port 0"),
        ] {
            let why = of(&probe).unwrap_err();
            assert!(why.contains(named), "{why}");
        }
    }

    #[test]
    fn a_pod_without_probes_is_ready_at_once() {
        let (none, left_out) = Readiness::of(&json!({}), "127.0.0.1".parse().unwrap());
        assert!(none.is_ready() && left_out.is_empty());
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
        let (mut readiness, _) = Readiness::of(&pod(&probe), "127.0.0.1".parse().unwrap());
        // Not the seconds that manifests count in.
        for it in &mut readiness.0 {
            it.rhythm.period = Duration::from_millis(1);
            it.rhythm.timeout = Duration::from_secs(20);
        }
        readiness.begin();
        let network = own_network();
        readiness.changed(&network).await;
        assert!(readiness.is_ready());
        readiness.changed(&network).await;
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn a_port_is_ready_once_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = json!({"tcpSocket": {"port": port}});
        let probed = of(&probe).unwrap();
        let patience = Duration::from_secs(20);
        assert!(probed.probe.make(&own_network(), patience).await);
        drop(listener);
        assert!(!probed.probe.make(&own_network(), patience).await);
    }
}
