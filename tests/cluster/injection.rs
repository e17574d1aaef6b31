//! What gets a sidecar, and that a pod works from its first line to its last.

use std::fmt::Write as _;

use weft_tests::wait;

use crate::{
    echo,
    kubernetes::{Said, run},
    mesh::{SYSTEM, helm, wait_for_control_plane},
    namespace::Namespace,
};

/// A caller that ends: its first line is a request.
const FIRST_LINE: &str = "restartPolicy: Never
      containers:
      - name: echo
        image: registry.k8s.io/gateway-api/echo-advanced:v1.5.1
        imagePullPolicy: IfNotPresent
        command: [client, --timeout=5s, http://cart/]";

fn containers(namespace: &Namespace, pod: &str) -> String {
    namespace.get(
        &format!("pod/{pod}"),
        "{.spec.initContainers[*].name} {.spec.containers[*].name}",
    )
}

#[track_caller]
fn assert_meshed(namespace: &Namespace, pod: &str) {
    let names = containers(namespace, pod);
    assert!(
        names.starts_with("weft-redirect weft-proxy "),
        "{pod} has {names}"
    );
}

#[test]
fn every_kind_of_workload_joins_the_mesh_and_a_host_network_pod_does_not() {
    let matrix = Namespace::meshed("matrix");
    let pod = |labels: &str, spec: &str| {
        format!("metadata: {{labels: {{{labels}}}}}\n    spec:\n      {spec}")
    };
    let serving = format!(
        "terminationGracePeriodSeconds: 5\n      containers:{}",
        echo::CONTAINER
    );
    let of = |kind: &str, name: &str, more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {more}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    {}\n",
            pod(&format!("app: {name}"), &serving)
        )
    };
    let job = format!("template:\n    {}", pod("app: job", FIRST_LINE));
    let manifests = [
        echo::workload("cart", 1),
        of("StatefulSet", "set", "serviceName: set"),
        echo::service("set", "clusterIP: None"),
        of("DaemonSet", "daemon", ""),
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: job}}\nspec:\n  backoffLimit: 0\n  {job}\n"
        ),
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: cron}}\nspec:\n  schedule: '0 0 1 1 *'\n  jobTemplate:\n    spec:\n      backoffLimit: 0\n      {}\n",
            job.replace('\n', "\n    ")
        ),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: bare, labels: {{app: bare}}}}\nspec:\n  {}\n",
            serving.replace("\n    ", "\n")
        ),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: host, labels: {{app: host}}}}\nspec:\n  hostNetwork: true\n  {}\n",
            serving
                .replace("\n    ", "\n")
                .replace("8080", "38080")
                .replace("7070", "37070")
                .replace("9090", "39090")
        ),
    ];
    matrix.apply(&manifests.join("---\n"));
    matrix.ready("deployment/cart");
    matrix.ready("statefulset/set");
    matrix.ready("daemonset/daemon");
    matrix
        .kubectl(&["create", "job", "from-cron", "--from=cronjob/cron"])
        .text();
    matrix
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod/bare",
            "pod/host",
            "--timeout=90s",
        ])
        .text();
    matrix
        .kubectl(&[
            "wait",
            "--for=condition=Complete",
            "job/job",
            "job/from-cron",
            "--timeout=90s",
        ])
        .text();
    assert_meshed(&matrix, &matrix.pod("app=cart"));
    assert_meshed(&matrix, "set-0");
    assert_meshed(&matrix, "bare");
    assert_eq!(containers(&matrix, "host").trim(), "echo");
    // By the name of its pod, over mutual TLS.
    matrix
        .call("deployment/cart", &["http://set-0.set:8080/"])
        .assert_ok();
    let accepted = matrix.metric("set-0", "weft_tls_accepted_handshakes_total", &[]);
    assert!(
        accepted > 0.0,
        "a pod called by its name was called without mutual TLS"
    );
}

#[test]
fn an_init_container_of_the_applications_reaches_the_mesh() {
    let init = Namespace::meshed("init");
    init.apply(&echo::workload("cart", 1));
    init.ready("deployment/cart");
    let deployment = echo::deployment("web", 1).replace(
        "      containers:",
        "      initContainers:
      - name: first
        image: registry.k8s.io/gateway-api/echo-advanced:v1.5.1
        imagePullPolicy: IfNotPresent
        command: [client, --timeout=5s, http://cart/]
      containers:",
    );
    init.apply(&deployment);
    init.ready("deployment/web");
    let cart = init.pod("app=cart");
    assert!(init.metric(&cart, "weft_tls_accepted_handshakes_total", &[]) > 0.0);
}

#[test]
fn in_20_pods_the_first_line_calls_another_service() {
    starts("starts", 20);
}

#[test]
#[ignore = "long: ten times the test of 20"]
fn in_200_pods_the_first_line_calls_another_service() {
    starts("starts-200", 200);
}

fn starts(name: &'static str, count: usize) {
    let starts = Namespace::meshed(name);
    starts.apply(&echo::workload("cart", 1));
    starts.ready("deployment/cart");
    let mut manifest =
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: starts}\nspec:\n".to_owned();
    write!(
        manifest,
        "  completions: {count}\n  parallelism: 10\n  backoffLimit: 0\n  template:\n    metadata: {{labels: {{app: starts}}}}\n    spec:\n      {FIRST_LINE}\n"
    )
    .unwrap();
    starts.apply(&manifest);
    let said = starts.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "job/starts",
        "--timeout=300s",
    ]);
    let failed = starts.get("job/starts", "{.status.failed}");
    assert!(
        said.ok && failed.is_empty(),
        "{failed} failed; {}",
        said.err
    );
    let logs = starts
        .kubectl(&[
            "logs",
            "--selector=app=starts",
            "--container=echo",
            "--tail=-1",
            "--max-log-requests=500",
        ])
        .text();
    let answered = logs
        .lines()
        .filter(|line| line.ends_with("StatusCode=200"))
        .count();
    assert_eq!(answered, count);
}

/// What the webhook makes of a pod, which is then not kept.
fn secrets_of_a_pod(namespace: &Namespace, annotations: &str) -> Said {
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: asked, annotations: {{{annotations}}}}}
spec: {{imagePullSecrets: [{{name: own}}], containers: [{{name: app, image: registry.example/app}}]}}
"
    );
    let path = "--output=jsonpath={.spec.imagePullSecrets[*].name}";
    let create = ["create", "--dry-run=server", "--filename=-", path];
    let named = [&["--namespace", namespace.name], &create[..]].concat();
    run("kubectl", &named, &pod)
}

/// Puts the chart's own values back, whatever happens.
struct Upgraded;

impl Drop for Upgraded {
    fn drop(&mut self) {
        run("helm4", &["rollback", "weft", "--namespace", SYSTEM], "");
    }
}

#[test]
fn pull_secrets_of_the_chart_stand_beside_a_pods_own_unless_it_names_others() {
    let pulled = Namespace::meshed("pulled");
    assert_eq!(secrets_of_a_pod(&pulled, "").text(), "own");
    helm(
        "helm4",
        &["upgrade", "--set", "proxy.pullSecrets={registry,mirror}"],
    )
    .text();
    let upgraded = Upgraded;
    wait_for_control_plane();
    // A replica that ends serves on for a moment.
    let mut seen = None;
    let held = wait::within(wait::PATIENCE, || {
        let names = secrets_of_a_pod(&pulled, "").out;
        let held = names == "own registry mirror";
        seen = Some(names);
        held.then_some(())
    });
    assert!(held.is_some(), "a pod has {seen:?}");
    let named = secrets_of_a_pod(&pulled, "weft.dev/proxy-pull-secrets: other").text();
    assert_eq!(named, "own other");
    drop(upgraded);
    wait_for_control_plane();
}

/// Less than what a proxy has by default, more than it needs.
const LIMITED: &str = "apiVersion: v1
kind: LimitRange
metadata: {name: narrow}
spec:
  limits:
  - type: Container
    default: {cpu: 200m, memory: 96Mi}
    defaultRequest: {cpu: 100m, memory: 48Mi}
    min: {cpu: 50m, memory: 16Mi}
    max: {cpu: 250m, memory: 128Mi}
    maxLimitRequestRatio: {cpu: '4', memory: '4'}
";

#[test]
fn where_a_limit_range_is_narrow_an_injected_pod_is_admitted_and_runs() {
    let narrow = Namespace::meshed("narrow");
    narrow.apply(LIMITED);
    narrow.apply(&echo::workload("cart", 1));
    narrow.ready("deployment/cart");
    let cart = narrow.pod("app=cart");
    assert_meshed(&narrow, &cart);
    let of_proxy = "{.spec.initContainers[?(@.name==\"weft-proxy\")].resources";
    let of = |part: &str| narrow.get(&format!("pod/{cart}"), &format!("{of_proxy}{part}}}"));
    assert_eq!(of(".limits.cpu"), "250m");
    assert_eq!(of(".limits.memory"), "128Mi");
}
