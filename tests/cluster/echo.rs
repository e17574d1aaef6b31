//! The sample application, server and caller: that of the Gateway API's
//! conformance suite, which tells what reached it.

use crate::{kubernetes::Said, namespace::Namespace};

/// A pod's container `echo`, indented for `spec.containers`. It goes on serving
/// while endpoints forget it, as applications must with or without a mesh.
pub(crate) const CONTAINER: &str = r#"
      - name: echo
        image: registry.k8s.io/gateway-api/echo-advanced:v1.5.1
        imagePullPolicy: IfNotPresent
        args: [--port=8080, --grpc=7070, --tcp=9090]
        ports: [{name: http, containerPort: 8080}, {name: grpc, containerPort: 7070}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}"#;

/// A Service, a ServiceAccount and a Deployment of one name.
pub(crate) fn workload(name: &str, replicas: usize) -> String {
    format!("{}---\n{}", service(name, ""), deployment(name, replicas))
}

pub(crate) fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  {spec}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: grpc, port: 7070, appProtocol: kubernetes.io/h2c}}
  - {{name: tcp, port: 9090}}
"
    )
}

pub(crate) fn deployment(name: &str, replicas: usize) -> String {
    format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers:{CONTAINER}
"
    )
}

impl Namespace {
    /// Calls a URL from a workload's pod: `call("deployment/web", &["http://cart/"])`.
    #[track_caller]
    pub(crate) fn call(&self, from: &str, arguments: &[&str]) -> Answer {
        Answer(self.exec(from, &[&["client", "--timeout=5s"], arguments].concat()))
    }
}

/// What the caller printed: a line for each thing that it learnt.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Said);

impl Answer {
    /// `field("StatusCode")`, of the first request.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let key = format!("[0] {name}=");
        let alternative = format!("[0 body] {name}=");
        self.0.out.lines().find_map(|line| {
            line.strip_prefix(&key)
                .or_else(|| line.strip_prefix(&alternative))
        })
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.field("StatusCode")?.parse().ok()
    }

    #[track_caller]
    pub(crate) fn assert_ok(&self) {
        assert_eq!(self.status(), Some(200), "{self:?}");
    }
}
