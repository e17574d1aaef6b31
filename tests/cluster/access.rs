//! Who may call: strict mutual TLS, and deny-all from the first day.

use crate::{echo, kubernetes::kubectl, namespace::Namespace};

const STRICT: &str = "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: strict}
spec:
  targetRefs: [{kind: Namespace, name: strict}]
  mtls: Strict
";

#[test]
fn where_mtls_is_strict_a_plaintext_caller_is_refused_by_name() {
    let strict = Namespace::meshed("strict");
    let plain = Namespace::plain("strict-plain");
    strict.apply(&format!(
        "{}---\n{}",
        echo::workload("web", 1),
        echo::workload("cart", 1)
    ));
    plain.apply(&echo::workload("outsider", 1));
    strict.ready("deployment/web");
    strict.ready("deployment/cart");
    plain.ready("deployment/outsider");
    let from_outside = || plain.call("deployment/outsider", &["http://cart.strict/"]);
    // Without a mesh a Service may be unknown to its node for a moment.
    weft_tests::wait::until("an answer in plaintext", || {
        (from_outside().status() == Some(200)).then_some(())
    });

    strict.apply(STRICT);
    let cart = strict.pod("app=cart");
    let refused = weft_tests::wait::until("the policy to hold", || {
        let answer = from_outside();
        (answer.status() != Some(200)).then_some(answer)
    });
    let faults = strict.metric(
        &cart,
        "weft_traffic_faults_total",
        &["reason=\"plaintext-refused\""],
    );
    assert!(
        faults > 0.0,
        "the fault has no name in the metrics; the caller saw {refused:?}"
    );
    // Those of the mesh go on, and so do probes.
    strict.call("deployment/web", &["http://cart/"]).assert_ok();
    strict.ready("deployment/cart");
}

/// Allows nobody: no identity is called that.
const DENY_ALL: &str = "apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {name: deny-all}
spec:
  targetRefs: [{kind: Namespace, name: denied}]
  mtls: Strict
  rules:
  - {action: Deny}
";

const PROBED: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: probed}
spec:
  selector: {matchLabels: {app: probed}}
  template:
    metadata: {labels: {app: probed}, annotations: {weft.dev/application-metrics: 8080/metrics}}
    spec:
      containers:
      - name: echo
        image: registry.k8s.io/gateway-api/echo-advanced:v1.5.1
        imagePullPolicy: IfNotPresent
        args: [--port=8080, --grpc=7070, --tcp=9090]
        ports: [{name: http, containerPort: 8080}]
        startupProbe: {httpGet: {path: /started, port: http}, periodSeconds: 1}
        readinessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1}
        livenessProbe: {httpGet: {path: /alive, port: 8080}, periodSeconds: 1}
";

#[test]
fn under_deny_all_from_day_one_every_probe_and_scrape_works_and_nothing_else() {
    let denied = Namespace::meshed("denied");
    denied.apply(DENY_ALL);
    denied.apply(&format!(
        "{PROBED}---\n{}---\n{}",
        echo::workload("web", 1),
        echo::service("probed", "")
    ));
    denied.ready("deployment/probed");
    denied.ready("deployment/web");
    let answer = denied.call("deployment/web", &["http://probed/"]);
    assert_eq!(answer.status(), Some(403), "{answer:?}");
    let probed = denied.pod("app=probed");
    // A scrape by somebody without the mesh.
    assert!(denied.metric(&probed, "weft_traffic_faults_total", &[]) > 0.0);
    let page = "/api/v1/namespaces/denied/pods/POD:15020/proxy/application/metrics";
    let page = kubectl(&["get", "--raw", &page.replace("POD", &probed)]).text();
    // The application's own: it tells what reached it.
    assert!(page.contains("Hostname=probed-"), "{page}");
    let restarts = "{.status.containerStatuses[?(@.name==\"echo\")].restartCount}";
    assert_eq!(denied.get(&format!("pod/{probed}"), restarts), "0");
}
