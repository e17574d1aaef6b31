//! Traffic at a fixed rate from a pod of the mesh, and what became of it.
//!
//! By the Service's address: what a name server owes isn't the mesh's. And by
//! `kubectl exec`, since a container's log may lose its end.

use std::thread::{self, JoinHandle};

use crate::{
    echo,
    kubernetes::{Said, kubectl_for},
    namespace::Namespace,
};

const RATE: usize = 200;

/// Three callers, one for each protocol, that end by themselves.
#[derive(Debug)]
pub(crate) struct Load {
    callers: Vec<(&'static str, JoinHandle<Said>)>,
    requests: usize,
}

/// For `ADDRESS` stands the Service's.
const CALLERS: [(&str, &[&str]); 3] = [
    ("http1", &["--http2=false", "http://ADDRESS/"]),
    ("http2", &["--http2", "http://ADDRESS/"]),
    ("grpc", &["grpc://ADDRESS:7070"]),
];

impl Load {
    /// Starts them in a pod of their own, each at 200 requests a second for so long.
    pub(crate) fn start(namespace: &Namespace, seconds: usize) -> Self {
        namespace.apply(&echo::deployment("load", 1));
        namespace.ready("deployment/load");
        Self::in_pod(namespace, "deployment/load", seconds)
    }

    /// The same from a pod that is there already.
    pub(crate) fn in_pod(namespace: &Namespace, pod: &str, seconds: usize) -> Self {
        let requests = seconds * RATE;
        // Of the whole set, not of one request.
        let patience = seconds * 2 + 60;
        let address = namespace.get("service/cart", "{.spec.clusterIP}");
        let callers = CALLERS.map(|(name, arguments)| {
            let fixed = [
                "--namespace",
                namespace.name,
                "exec",
                pod,
                "--container=echo",
                "--",
                "client",
            ];
            let pace = [
                format!("--qps={RATE}"),
                format!("--count={requests}"),
                format!("--timeout={patience}s"),
            ];
            let arguments = arguments.iter().map(|it| it.replace("ADDRESS", &address));
            let command: Vec<String> = fixed
                .map(str::to_owned)
                .into_iter()
                .chain(pace)
                .chain(arguments)
                .collect();
            let caller = thread::spawn(move || {
                let command: Vec<&str> = command.iter().map(String::as_str).collect();
                kubectl_for(patience + 30, &command)
            });
            (name, caller)
        });
        Self {
            callers: callers.into(),
            requests,
        }
    }

    /// Whether none of them has ended.
    pub(crate) fn goes_on(&self) -> bool {
        self.callers.iter().all(|(_, it)| !it.is_finished())
    }

    /// Waits for their end.
    ///
    /// # Panics
    /// If a request of any had another answer than success, with the first that had.
    #[track_caller]
    pub(crate) fn assert_lost_nothing(self) {
        for (name, caller) in self.callers {
            let said = caller.join().unwrap();
            let good = said
                .out
                .lines()
                .filter(|line| line.ends_with("StatusCode=200"))
                .count();
            let bad = said.out.lines().chain(said.err.lines()).find(|line| {
                line.contains("rror") || line.contains("StatusCode=") && !line.ends_with("=200")
            });
            assert!(
                said.ok && good == self.requests,
                "{name}: {good} of {} succeeded; first other: {bad:?}",
                self.requests
            );
        }
    }
}
