//! How long a large cluster takes to read, and how much room it needs: 10,000
//! Services, 100,000 endpoints. Prints what it measured; ignored, since a debug
//! build and a busy machine say little about time.
//!
//! `cargo test --profile fast -p weft-control-plane --lib -- --ignored
//! --nocapture --test-threads 1 large_cluster`

#![allow(clippy::print_stdout, reason = "it tells what it measured")]

use std::{
    convert::Infallible,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use kube::client::Body;
use tokio::time::Instant;

use super::*;
use crate::index::Index;

const COUNT: usize = 10_000;
const ENDPOINTS: usize = 10;

/// Makes its answers when they are asked for, and knows how long that took.
#[derive(Clone, Default)]
struct Large {
    is_meshed: bool,
    microseconds: Arc<AtomicU64>,
}

impl Large {
    fn client(&self) -> Client {
        let large = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let since = Instant::now();
            let answer = large.answer(&request);
            let took = u64::try_from(since.elapsed().as_micros()).unwrap();
            large.microseconds.fetch_add(took, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(answer) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<Full<bytes::Bytes>> {
        let (path, query) = (
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        let plural = path.rsplit('/').next().unwrap_or_default();
        let unmeshed = query.contains("%21%3D");
        let (count, object): (usize, &dyn Fn(usize) -> Value) = match plural {
            // Streams are not served, and watches never end.
            _ if query.contains("sendInitialEvents") => {
                return error(StatusCode::UNPROCESSABLE_ENTITY);
            }
            _ if query.contains("watch=true") => return error(StatusCode::TOO_MANY_REQUESTS),
            "services" => (COUNT, &large_service),
            "endpointslices" => (COUNT, &slice),
            "pods" if unmeshed != self.is_meshed && unmeshed => (COUNT * ENDPOINTS, &metadata),
            "pods" if !unmeshed && self.is_meshed => (COUNT * ENDPOINTS, &large_pod),
            _ if plural.starts_with('v') => return error(StatusCode::NOT_FOUND),
            _ => (0, &metadata),
        };
        let value = |name: &str| {
            query
                .split('&')
                .find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
        };
        let from: usize = value("continue")
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let limit: usize = value("limit").and_then(|it| it.parse().ok()).unwrap_or(500);
        let to = (from + limit).min(count);
        let next = if to < count {
            to.to_string()
        } else {
            String::new()
        };
        let items: Vec<Value> = (from..to).map(object).collect();
        let list = json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": items});
        Response::new(Full::new(list.to_string().into()))
    }
}

fn error(status: StatusCode) -> Response<Full<bytes::Bytes>> {
    let mut response = Response::new(Full::new("{}".into()));
    *response.status_mut() = status;
    response
}

fn ip(at: usize) -> String {
    format!("10.{}.{}.{}", 128 + (at >> 16), (at >> 8) & 255, at & 255)
}

fn meta(name: &str, at: usize) -> Value {
    json!({
        "name": name, "namespace": format!("team-{}", at % 100),
        "uid": format!("6f1a0e0c-2f5d-4a83-9f67-{at:012x}"), "resourceVersion": format!("{at}"),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "a-large-shop", "pod-template-hash": "6f5d8b9c7d"},
        "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
        "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}, "f:c": {}}}, "f:spec": {"f:x": {}, "f:y": {}}}}],
    })
}

fn large_service(at: usize) -> Value {
    let name = format!("service-{at}");
    json!({
        "metadata": meta(&name, at),
        "spec": {
            "clusterIP": format!("10.96.{}.{}", at >> 8, at & 255), "clusterIPs": [format!("10.96.{}.{}", at >> 8, at & 255)],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "selector": {"app.kubernetes.io/name": name},
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(at: usize) -> Value {
    let mut metadata = meta(&format!("service-{at}-abcde"), at);
    metadata["labels"]["kubernetes.io/service-name"] = format!("service-{at}").into();
    let endpoints = (0..ENDPOINTS).map(|endpoint| {
        let pod = endpoint * COUNT + at;
        json!({
            "addresses": [ip(pod)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", pod % 1000), "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": format!("team-{}", at % 100), "name": format!("pod-{pod}"),
                "uid": format!("6f1a0e0c-2f5d-4a83-9f67-{pod:012x}")},
        })
    });
    json!({"metadata": metadata, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.collect::<Vec<_>>()})
}

fn metadata(at: usize) -> Value {
    json!({"metadata": meta(&format!("pod-{at}"), at)})
}

fn large_pod(at: usize) -> Value {
    let mut metadata = meta(&format!("pod-{at}"), at);
    metadata["labels"]["app.kubernetes.io/name"] = format!("service-{}", at % COUNT).into();
    metadata["labels"]["weft.dev/injected"] = "true".into();
    let container = json!({
        "name": "app", "image": "registry.example/team/app:1.2.3", "ports": [{"name": "http", "containerPort": 8080}],
        "env": (0..10).map(|it| json!({"name": format!("VARIABLE_{it}"), "value": "something"})).collect::<Vec<_>>(),
        "readinessProbe": {"httpGet": {"port": "http", "path": "/ready"}},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    });
    json!({
        "metadata": metadata,
        "spec": {"serviceAccountName": "default", "nodeName": format!("node-{}", at % 1000), "containers": [container.clone(), container],
            "initContainers": [{"name": "weft-redirect"}, {"name": "weft-proxy", "restartPolicy": "Always"}]},
        "status": {"phase": "Running", "podIP": ip(at), "podIPs": [{"ip": ip(at)}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]},
    })
}

/// MiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|it| it.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn measure(is_meshed: bool) {
    let large = Large {
        is_meshed,
        ..Large::default()
    };
    let before = resident();
    let since = Instant::now();
    let (sender, mut updates) = mpsc::channel(16);
    let _source = runtime::spawn(watch(large.client(), Metrics::new(), sender));
    let mut index = Index::new(&[]);
    let (mut events, mut read) = (0, Duration::ZERO);
    loop {
        let update = updates.recv().await.unwrap();
        if events == 0 {
            read = since.elapsed();
        }
        events += update.events.len();
        for event in update.events {
            index.apply(event);
        }
        if update.is_whole {
            break;
        }
    }
    let took = since.elapsed();
    let made = Duration::from_micros(large.microseconds.load(Ordering::Relaxed));
    println!(
        "{events} objects, {} pods with a proxy: read after {read:.1?}, joined after {took:.1?}, of which {made:.1?} made the \
         lists; {} MiB more",
        if is_meshed { COUNT * ENDPOINTS } else { 0 },
        resident() - before
    );
    assert_eq!(events, COUNT * (2 + ENDPOINTS));
    assert_eq!(index.problems().count(), 0, "{:?}", index.problems().next());
    assert!(resident() - before <= 400, "more than 400 MiB");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_large_cluster_without_proxies_fits() {
    measure(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_large_cluster_full_of_proxies_fits() {
    measure(true).await;
}
