//! Traffic at a fixed rate from a pod of the mesh, and what became of it.
//!
//! By the Service's address: what a name server owes isn't the mesh's.

use crate::{echo, namespace::Namespace};

const RATE: usize = 200;

/// Three callers, one for each protocol, that end by themselves.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    namespace: &'a Namespace,
    requests: usize,
}

/// For `ADDRESS` stands the Service's.
const CALLERS: [(&str, &str); 3] = [
    ("http1", "[--http2=false, 'http://ADDRESS/']"),
    ("http2", "[--http2, 'http://ADDRESS/']"),
    ("grpc", "['grpc://ADDRESS:7070']"),
];

impl<'a> Load<'a> {
    /// Starts them, each at 200 requests a second for so long.
    pub(crate) fn start(namespace: &'a Namespace, seconds: usize) -> Self {
        let requests = seconds * RATE;
        // Of the whole set, not of one request.
        let patience = seconds * 2 + 60;
        let address = namespace.get("service/cart", "{.spec.clusterIP}");
        for (name, arguments) in CALLERS {
            let arguments = arguments.replace("ADDRESS", &address);
            let image = echo::IMAGE;
            namespace.apply(&format!(
                "apiVersion: batch/v1
kind: Job
metadata: {{name: load-{name}}}
spec:
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: load, protocol: {name}}}}}
    spec:
      restartPolicy: Never
      containers:
      - name: echo
        image: {image}
        imagePullPolicy: IfNotPresent
        command: [client, --qps={RATE}, --count={requests}, --timeout={patience}s]
        args: {arguments}
"
            ));
        }
        namespace
            .kubectl(&[
                "wait",
                "--for=condition=Ready",
                "pod",
                "--selector=app=load",
                "--timeout=60s",
            ])
            .text();
        Self {
            namespace,
            requests,
        }
    }

    /// Waits for their end.
    ///
    /// # Panics
    /// If a request of any had another answer than success, with the first that had.
    #[track_caller]
    pub(crate) fn assert_lost_nothing(self) {
        for (name, _) in CALLERS {
            let job = format!("job/load-{name}");
            let wait_for = |what: &str, timeout: &str| {
                let (what, timeout) = (format!("--for={what}"), format!("--timeout={timeout}"));
                self.namespace.kubectl(&["wait", &what, &job, &timeout]).ok
            };
            // Any, whose first is the verdict before the end.
            wait_for("jsonpath={.status.conditions[0].type}", "420s");
            let complete = wait_for("condition=Complete", "20s");
            let log = self
                .namespace
                .kubectl(&["logs", &job, "--container=echo", "--tail=-1"])
                .text();
            let good = log
                .lines()
                .filter(|line| line.ends_with("StatusCode=200"))
                .count();
            let bad = log.lines().find(|line| {
                line.contains("rror") || line.contains("StatusCode=") && !line.ends_with("=200")
            });
            assert!(
                complete && good == self.requests,
                "{name}: {good} of {} succeeded; first other: {bad:?}",
                self.requests
            );
        }
    }
}
