use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::fake::Fake,
    index::Index,
    model::{self, Name, Namespace, Object},
    report::Unmeshed,
    runtime::{self, Task},
    serve::{self, hub::State},
};

const PODS: &str = "/api/v1/namespaces/shop/pods";
const EVENTS_PATH: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";
const LEVEL: &str = "pod-security.kubernetes.io/enforce";

/// A holder that looks at a shop.
struct Looking {
    fake: Fake,
    hub: Hub,
    metrics: Metrics,
    holds: watch::Sender<bool>,
    _tasks: [Task; 2],
}

impl Looking {
    async fn new(labels: &[(&str, &str)], pods: Vec<Value>) -> Self {
        let fake = Fake::default();
        let roots = Vec::new().into();
        let metrics = serve::metrics::Metrics::new();
        let state = State::new(Index::new(&[]), "cluster.local", roots, metrics);
        let (hub, run_hub) = Hub::new(state);
        let tasks = runtime::spawn(run_hub);
        let (holds, held) = watch::channel(false);
        let metrics = Metrics::default();
        let finder = Finder {
            cluster: fake.cluster(),
            clock: Wall::fixed(Duration::from_secs(1_800_000_000)),
            hub: hub.clone(),
            holds: held,
            metrics: metrics.clone(),
        };
        let looking = Self {
            fake,
            hub,
            metrics,
            holds,
            _tasks: [tasks, runtime::spawn(finder.run())],
        };
        let labels = labels.iter().copied();
        let labels: Vec<_> = labels.chain([("weft.dev/inject", "enabled")]).collect();
        looking.namespace(&labels).await;
        looking.pods(pods).await;
        looking.hub.ask(|state| state.synced()).await.unwrap();
        looking
    }

    async fn namespace(&self, labels: &[(&str, &str)]) {
        let labels = labels.iter();
        let namespace = Namespace {
            name: "shop".to_owned(),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        self.apply(vec![Object::Namespace(namespace)]).await;
    }

    async fn apply(&self, objects: Vec<Object>) {
        let events = objects.into_iter().map(model::Event::Apply).collect();
        self.hub
            .ask(move |state| state.apply(events))
            .await
            .unwrap();
    }

    /// What the API server lists, and the index knows by its metadata.
    async fn pods(&self, pods: Vec<Value>) {
        let known = pods.iter().map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            Object::Pod(model::Pod {
                name: Name::new("shop", name),
                uid: pod["metadata"]["uid"].as_str().unwrap().to_owned(),
                injected: Some(false),
                ..model::Pod::default()
            })
        });
        let known = known.collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
        self.fake.put(PODS, list);
        self.apply(known).await;
    }

    async fn begin(&self) {
        self.holds.send_replace(true);
        self.rounds(1).await;
    }

    /// Time is paused: this is until all has been done that was due.
    async fn rounds(&self, rounds: u32) {
        sleep(LOOK * rounds - Duration::from_secs(1)).await;
        sleep(Duration::from_secs(1)).await;
    }

    async fn found(&self) -> Option<Unmeshed> {
        let report = self.hub.ask(|state| state.report(0)).await.unwrap();
        report.unmeshed
    }

    async fn names(&self) -> Vec<String> {
        let found = self.found().await.unwrap();
        found.pods.into_iter().map(|it| it.pod).collect()
    }

    fn measured(&self) -> Vec<String> {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines();
        let of = lines.filter(|it| it.starts_with("weft_cluster_unmeshed_pods{"));
        of.map(str::to_owned).collect()
    }
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}")},
        "spec": {"containers": []},
        "status": {"phase": "Running"},
    })
}

fn with(name: &str, pointer: &str, value: Value) -> Value {
    let mut pod = pod(name);
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[field] = value;
    pod
}

#[tokio::test(start_paused = true)]
async fn a_missed_pod_is_reported_measured_and_told_once_beside_it() {
    let looking = Looking::new(&[], vec![pod("web-0")]).await;
    looking.begin().await;
    assert_eq!(looking.names().await, ["shop/web-0"]);
    let expected = [r#"weft_cluster_unmeshed_pods{namespace="shop"} 1"#];
    assert_eq!(looking.measured(), expected);
    looking.rounds(20).await;
    assert_eq!(looking.fake.count(EVENTS_PATH), 1);
    let event = looking.fake.last(EVENTS_PATH);
    assert_eq!(event["regarding"]["name"], "web-0", "{event}");
    assert_eq!(event["regarding"]["uid"], "uid-of-web-0", "{event}");
    assert_eq!(event["type"], "Warning");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("kubectl --namespace shop delete pod web-0"),
        "{note}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_restarted_in_the_first_half_minute_has_no_event() {
    let looking = Looking::new(&[], vec![pod("web-0")]).await;
    looking.holds.send_replace(true);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(looking.names().await, ["shop/web-0"]);
    let key = Object::Pod(model::Pod {
        name: Name::new("shop", "web-0"),
        ..model::Pod::default()
    })
    .key();
    looking
        .hub
        .ask(move |state| state.apply(vec![model::Event::Delete(key)]))
        .await
        .unwrap();
    looking.rounds(3).await;
    assert_eq!(looking.names().await, Vec::<String>::new());
    assert_eq!(looking.measured(), Vec::<String>::new());
    assert_eq!(looking.fake.count(EVENTS_PATH), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_webhook_leaves_alone_is_not_missed() {
    let pods = vec![
        with("host", "/spec/hostNetwork", json!(true)),
        with("windows", "/spec/os", json!({"name": "windows"})),
        with("done", "/status/phase", json!("Succeeded")),
        with("failed", "/status/phase", json!("Failed")),
        with("linux", "/spec/os", json!({"name": "linux"})),
    ];
    let looking = Looking::new(&[], pods).await;
    looking.begin().await;
    assert_eq!(looking.names().await, ["shop/linux"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_is_missed_no_longer() {
    let looking = Looking::new(&[], vec![pod("job")]).await;
    looking.begin().await;
    assert_eq!(looking.names().await, ["shop/job"]);
    let list = json!({"metadata": {}, "items": [with("job", "/status/phase", json!("Succeeded"))]});
    looking.fake.put(PODS, list);
    looking.rounds(AGAIN + 1).await;
    assert_eq!(looking.names().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_refuses_proxies_is_named_as_the_reason() {
    let looking = Looking::new(&[(LEVEL, "restricted")], vec![pod("web-0")]).await;
    looking.begin().await;
    let found = looking.found().await.unwrap();
    let [only] = found.pods.as_slice() else {
        panic!("{found:?}");
    };
    assert!(
        only.message.contains("Pod Security Standard restricted"),
        "{only:?}"
    );
    assert!(only.remedy.contains("enforce=privileged"), "{only:?}");
}

#[tokio::test(start_paused = true)]
async fn events_of_many_pods_come_a_few_at_a_time_and_all_in_the_end() {
    let pods = (0..25).map(|it| pod(&format!("web-{it}"))).collect();
    let looking = Looking::new(&[], pods).await;
    looking.begin().await;
    let mut counts = Vec::new();
    for _ in 0..5 {
        counts.push(looking.fake.count(EVENTS_PATH));
        looking.rounds(1).await;
    }
    let steps = counts.windows(2).map(|it| it[1] - it[0]);
    assert!(steps.max() <= Some(EVENTS), "{counts:?}");
    assert_eq!(counts.last(), Some(&25));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_or_told_is_tried_again() {
    let looking = Looking::new(&[], vec![pod("web-0")]).await;
    looking.fake.fail(PODS, 500);
    looking.begin().await;
    // Unknown is not missed, and is no event.
    assert_eq!(looking.names().await, Vec::<String>::new());
    looking.fake.heal();
    looking.fake.fail(EVENTS_PATH, 403);
    looking.rounds(3).await;
    assert_eq!(looking.names().await, ["shop/web-0"]);
    let name = format!("{EVENTS_PATH}/web-0.uid-of-web-0.unmeshed");
    assert_eq!(looking.fake.object(&name), None);
    looking.fake.heal();
    looking.rounds(2).await;
    assert!(looking.fake.object(&name).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_lease_says_nothing_any_more() {
    let looking = Looking::new(&[], vec![pod("web-0")]).await;
    looking.begin().await;
    assert!(looking.found().await.is_some());
    looking.holds.send_replace(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(looking.found().await, None);
    assert_eq!(looking.measured(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn nobody_missed_is_known_without_a_single_request() {
    let looking = Looking::new(&[], Vec::new()).await;
    looking.fake.remove(PODS);
    looking.begin().await;
    assert_eq!(looking.found().await.map(|it| it.pods), Some(Vec::new()));
}
