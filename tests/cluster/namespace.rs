//! A test's own namespace: applies, waits, asks from inside, and keeps what is
//! needed to understand a failure.

use std::{fs, thread};

use crate::{
    kubernetes::{Said, apply, failures, kubectl},
    mesh::{SYSTEM, mesh},
};

#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
}

impl Namespace {
    /// Whose pods join the mesh.
    pub(crate) fn meshed(name: &'static str) -> Self {
        Self::new(name, "weft.dev/inject: enabled")
    }

    /// Whose pods don't.
    pub(crate) fn plain(name: &'static str) -> Self {
        Self::new(name, "weft.dev/test: plain")
    }

    pub(crate) fn new(name: &'static str, label: &str) -> Self {
        mesh();
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    {label}\n"
        );
        apply(name, &manifest).text();
        Self { name }
    }

    #[track_caller]
    pub(crate) fn kubectl(&self, args: &[&str]) -> Said {
        kubectl(&[&["--namespace", self.name], args].concat())
    }

    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) {
        apply(self.name, manifests).text();
    }

    /// Waits until every pod of a Deployment, StatefulSet or DaemonSet is there and ready.
    #[track_caller]
    pub(crate) fn ready(&self, workload: &str) {
        let said = self.kubectl(&["rollout", "status", workload, "--timeout=90s"]);
        if !said.ok {
            let seen = self.kubectl(&["get", "pods,events", "--output=wide"]).out;
            panic!("{workload}: {}{}\n{seen}", said.out, said.err);
        }
    }

    /// Runs a command in the application's container of a workload's pod.
    #[track_caller]
    pub(crate) fn exec(&self, workload: &str, command: &[&str]) -> Said {
        self.kubectl(&[&["exec", workload, "--container=echo", "--"], command].concat())
    }

    /// One field of an object: `get("pod/web-0", "{.status.podIP}")`.
    #[track_caller]
    pub(crate) fn get(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, &format!("--output=jsonpath={path}")])
            .text()
    }

    /// The only pod that a label selects.
    #[track_caller]
    pub(crate) fn pod(&self, label: &str) -> String {
        let names = self
            .kubectl(&[
                "get",
                "pods",
                "--selector",
                label,
                "--field-selector=status.phase=Running",
                "--output=jsonpath={.items[*].metadata.name}",
            ])
            .text();
        let mut names = names.split_whitespace();
        match (names.next(), names.next()) {
            (Some(name), None) => name.to_owned(),
            other => panic!("not one pod of {label}: {other:?}"),
        }
    }

    /// The sum of a sidecar's metric over its label sets, scraped from outside
    /// of the mesh; of those alone that contain all of `labels`.
    #[track_caller]
    pub(crate) fn metric(&self, pod: &str, name: &str, labels: &[&str]) -> f64 {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:15020/proxy/metrics",
            self.name
        );
        let page = kubectl(&["get", "--raw", &path]).text();
        page.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Objects, events and logs, of the namespace and of the control plane.
    fn keep(&self) {
        let folder = failures().join(self.name);
        fs::create_dir_all(&folder).ok();
        let keep = |file: &str, args: &[&str]| {
            let said = kubectl(args);
            fs::write(folder.join(file), said.out + &said.err).ok();
        };
        let here = ["--namespace", self.name];
        let all = [
            "get",
            "all,events,endpointslices,accesspolicies,backendpolicies",
            "--output=yaml",
        ];
        keep("objects.yaml", &[&here[..], &all].concat());
        keep(
            "routes.yaml",
            &[
                &here[..],
                &["get", "httproutes,grpcroutes", "--output=yaml"],
            ]
            .concat(),
        );
        keep("pods.txt", &[&here[..], &["describe", "pods"]].concat());
        let logs = [
            "logs",
            "--all-containers",
            "--prefix",
            "--ignore-errors",
            "--tail=2000",
        ];
        for pod in self.kubectl(&["get", "pods", "--output=name"]).out.lines() {
            let file = format!("{}.log", pod.trim_start_matches("pod/"));
            keep(&file, &[&here[..], &logs, &[pod]].concat());
        }
        let system = ["--namespace", SYSTEM];
        let of = ["--selector=app.kubernetes.io/component=control-plane"];
        keep("control-plane.log", &[&system[..], &logs, &of].concat());
        keep(
            "control-plane.txt",
            &[&system[..], &["describe", "pods"]].concat(),
        );
        eprintln!("kept: {}", folder.display());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
        }
        kubectl(&["delete", "namespace", self.name, "--wait=false"]);
    }
}
