//! The source over an API server that misbehaves on demand; time is paused.

mod fake;
mod refused;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::{metrics::Metrics, *};
use crate::{
    model::{Event, FileProblem, Key, Kind, Name, Object},
    runtime::{self, Task},
};
use fake::Fake;

const PODS: &str = "/api/v1/pods";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const POLICIES: &str = "/apis/weft.dev/v1alpha1/accesspolicies";

/// Whoever hears the updates.
struct Listener {
    updates: mpsc::Receiver<Update>,
    metrics: Metrics,
    objects: BTreeMap<Key, Object>,
    problems: Vec<FileProblem>,
    /// Every event, in order.
    heard: Vec<Event>,
    is_whole: bool,
    _source: Task,
}

impl Listener {
    fn new(fake: &Fake) -> Self {
        let (sender, updates) = mpsc::channel(4);
        let metrics = Metrics::new();
        let source = watch(fake.client(), metrics.clone(), sender);
        Self {
            updates,
            metrics,
            objects: BTreeMap::new(),
            problems: Vec::new(),
            heard: Vec::new(),
            is_whole: false,
            _source: runtime::spawn(source),
        }
    }

    /// After the first whole read.
    async fn synced(fake: &Fake) -> Self {
        let mut listener = Self::new(fake);
        listener.until(|it| it.is_whole).await;
        listener.heard.clear();
        listener
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            // Of the paused clock: far beyond every deadline of the source.
            let update = timeout(Duration::from_secs(3600), self.updates.recv());
            let update = update.await.expect("an update in time").expect("a source");
            for event in update.events {
                match event.clone() {
                    Event::Apply(object) => drop(self.objects.insert(object.key(), object)),
                    Event::Delete(key) => drop(self.objects.remove(&key)),
                }
                self.heard.push(event);
            }
            self.problems = update.problems;
            self.is_whole |= update.is_whole;
        }
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.objects.contains_key(&key(kind, name))
    }

    fn pod(&self, name: &str) -> Option<&crate::model::Pod> {
        match self.objects.get(&key(Kind::Pod, name))? {
            Object::Pod(pod) => Some(pod),
            other => panic!("{other:?}"),
        }
    }
}

fn key(kind: Kind, text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    Key {
        kind,
        name: Name::new(namespace, name),
    }
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "kubectl"}]},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}], "fieldOfTheFuture": 7},
    })
}

fn pod(name: &str, uid: &str, is_meshed: bool) -> Value {
    let proxy = json!({"name": "weft-proxy", "restartPolicy": "Always"});
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid,
            "labels": {"weft.dev/injected": is_meshed.to_string()},
        },
        "spec": {
            "serviceAccountName": "cart", "nodeName": "n", "containers": [],
            "initContainers": if is_meshed { vec![proxy] } else { Vec::new() },
        },
        "status": {"podIP": "10.244.0.7", "phase": "Running"},
    })
}

fn policy(name: &str, mtls: &str) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [{"kind": "Namespace", "name": "shop"}], "mtls": mtls},
    })
}

fn route(name: &str, parent: &str, path: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop", "generation": 1, "unknownHere": 1},
        "spec": {
            "parentRefs": [{"group": "", "kind": parent, "name": "cart", "port": 80}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}],
        },
        "status": {"parents": []},
    })
}

#[tokio::test(start_paused = true)]
async fn everything_is_told_in_the_order_in_which_it_refers() {
    let fake = Fake::default();
    fake.put(
        POLICIES,
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy",
            "metadata": {"name": "strict", "namespace": "shop"},
            "spec": {"targetRefs": [{"kind": "Namespace", "name": "shop"}], "mtls": "Strict"},
        }),
    );
    fake.put(SLICES, json!({
        "metadata": {"name": "cart-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.7"], "targetRef": {"kind": "Pod", "name": "cart-0", "uid": "u"}}],
    }));
    fake.put(SERVICES, service("cart"));
    fake.put(PODS, pod("cart-0", "u", true));
    fake.put(PODS, pod("db-0", "v", false));
    fake.put(
        "/api/v1/nodes",
        json!({
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "here"}},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
        }),
    );
    fake.put(
        "/apis/networking.k8s.io/v1/servicecidrs",
        json!({
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]},
        }),
    );
    fake.put(
        "/api/v1/namespaces",
        json!({
            "metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}},
        }),
    );
    let mut listener = Listener::new(&fake);
    listener.until(|it| it.is_whole).await;
    let told = listener.heard.iter().map(|it| match it {
        Event::Apply(object) => object.key().to_string(),
        Event::Delete(key) => panic!("{key} was never there"),
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "Namespace /shop",
            "Node /n",
            "ServiceCIDR /kubernetes",
            "Pod shop/cart-0",
            "Pod shop/db-0",
            "Service shop/cart",
            "EndpointSlice shop/cart-1",
            "AccessPolicy shop/strict",
        ]
    );
    assert_eq!(listener.problems, []);
    let (cart, db) = (
        listener.pod("shop/cart-0").unwrap(),
        listener.pod("shop/db-0").unwrap(),
    );
    assert_eq!(
        (cart.injected, cart.service_account.as_str()),
        (Some(true), "cart")
    );
    assert_eq!(
        (db.injected, db.uid.as_str(), db.addresses.len()),
        (Some(false), "v", 0)
    );
    assert_eq!(listener.metrics.waiting(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn lists_are_paged_where_the_server_does_not_stream_them() {
    let fake = Fake::default();
    fake.page_only();
    for at in 0..1_201 {
        fake.put(SERVICES, service(&format!("s{at}")));
    }
    let mut listener = Listener::synced(&fake).await;
    assert_eq!(listener.objects.len(), 1_201);
    assert_eq!(
        fake.asked("services?&limit=500"),
        3,
        "{:?}",
        fake.asked("services")
    );
    fake.put(SERVICES, service("late"));
    listener
        .until(|it| it.has(Kind::Service, "shop/late"))
        .await;
    assert_eq!(
        listener.heard.len(),
        1,
        "only what is new: {:?}",
        listener.heard
    );
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_taken_keeps_its_last_good_state_and_stops_nobody() {
    let fake = Fake::default();
    fake.put(POLICIES, policy("good", "Strict"));
    fake.put(POLICIES, policy("bad", "Perhaps"));
    let mut listener = Listener::synced(&fake).await;
    assert!(listener.has(Kind::AccessPolicy, "shop/good"));
    let [problem] = listener.problems.as_slice() else {
        panic!("{:?}", listener.problems)
    };
    assert_eq!(problem.object, Some(key(Kind::AccessPolicy, "shop/bad")));
    assert_eq!(problem.field, "spec.mtls");

    fake.put(POLICIES, policy("good", "Never"));
    listener.until(|it| it.problems.len() == 2).await;
    assert!(
        listener.has(Kind::AccessPolicy, "shop/good"),
        "its last good state holds"
    );
    let mut unknown = policy("bad", "Strict");
    unknown["spec"]["fieldOfTheFuture"] = json!(7);
    fake.put(POLICIES, unknown);
    listener
        .until(|it| {
            it.problems
                .iter()
                .any(|it| it.field.ends_with("fieldOfTheFuture"))
        })
        .await;
    fake.put(POLICIES, policy("bad", "Strict"));
    listener.until(|it| it.problems.len() == 1).await;
    assert!(listener.has(Kind::AccessPolicy, "shop/bad"));
    fake.delete(POLICIES, "shop/good");
    listener.until(|it| it.problems.is_empty()).await;
    assert!(!listener.has(Kind::AccessPolicy, "shop/good"));
}

/// Its author is answered in its status, which needs the object in the index.
#[tokio::test(start_paused = true)]
async fn a_route_that_cannot_be_taken_is_told_as_refused_and_is_no_problem_of_the_source() {
    let fake = Fake::default();
    fake.put(ROUTES, route("rule", "Service", "no-slash"));
    let mut whole = route("whole", "Service", "/");
    whole["spec"]["rules"][0]["fieldOfTheFuture"] = json!(7);
    fake.put(ROUTES, whole);
    let mut grpc = route("grpc", "Service", "/");
    grpc["kind"] = json!("GRPCRoute");
    grpc["spec"]["rules"] = json!([{"matches": [{"method": {"service": "shop.Cart"}}]}]);
    fake.put("/apis/gateway.networking.k8s.io/v1/grpcroutes", grpc);
    let listener = Listener::synced(&fake).await;
    assert_eq!(listener.problems, []);
    let refusals = |kind, name: &str| match &listener.objects[&key(kind, name)] {
        Object::Route(route) => {
            let fields = route.refusals().map(|it| it.field.clone());
            (route.generation, fields.collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    let path = "spec.rules[0].matches[0].path.value".to_owned();
    assert_eq!(refusals(Kind::HttpRoute, "shop/rule"), (1, vec![path]));
    let field = "spec.rules[0].fieldOfTheFuture".to_owned();
    assert_eq!(refusals(Kind::HttpRoute, "shop/whole"), (1, vec![field]));
    assert_eq!(refusals(Kind::GrpcRoute, "shop/grpc"), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_meshs_is_not_told_and_not_judged() {
    let fake = Fake::default();
    fake.put(ROUTES, route("gateways", "Gateway", "no-slash"));
    fake.put(ROUTES, route("moves", "Service", "/"));
    fake.put(SLICES, json!({
        "metadata": {"name": "names", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "FQDN", "endpoints": [{"addresses": ["cart.example"]}],
    }));
    fake.put(SLICES, json!({
        "metadata": {"name": "nobodys", "namespace": "shop"}, "addressType": "IPv4", "endpoints": [],
    }));
    let mut listener = Listener::synced(&fake).await;
    assert_eq!(
        listener.objects.keys().cloned().collect::<Vec<_>>(),
        [key(Kind::HttpRoute, "shop/moves")]
    );
    assert_eq!(listener.problems, []);
    fake.put(ROUTES, route("moves", "Gateway", "/"));
    listener.until(|it| it.objects.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_from_where_it_was() {
    let fake = Fake::default();
    fake.put(SERVICES, service("cart"));
    let mut listener = Listener::synced(&fake).await;
    fake.cut();
    fake.put(SERVICES, service("late"));
    listener
        .until(|it| it.has(Kind::Service, "shop/late"))
        .await;
    assert_eq!(listener.heard.len(), 1);
    assert_eq!(
        fake.asked(
            "services?&watch=true&timeoutSeconds=120&allowWatchBookmarks=true&sendInitialEvents"
        ),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_read_anew_and_tells_only_what_differs() {
    let fake = Fake::default();
    for name in ["stays", "changes", "goes"] {
        fake.put(SERVICES, service(name));
    }
    let mut listener = Listener::synced(&fake).await;
    fake.cut();
    fake.put(SERVICES, service("changes"));
    fake.delete(SERVICES, "shop/goes");
    fake.put(SERVICES, service("comes"));
    fake.forget();
    listener
        .until(|it| !it.has(Kind::Service, "shop/goes") && it.has(Kind::Service, "shop/comes"))
        .await;
    assert_eq!(listener.heard.len(), 3, "{:?}", listener.heard);
    assert!(listener.has(Kind::Service, "shop/stays"));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_read_anew() {
    let fake = Fake::default();
    fake.put(SERVICES, service("cart"));
    let mut listener = Listener::synced(&fake).await;
    fake.freeze();
    fake.put(SERVICES, service("unheard"));
    let since = tokio::time::Instant::now();
    listener
        .until(|it| it.has(Kind::Service, "shop/unheard"))
        .await;
    assert!(
        since.elapsed() <= reflect::SILENCE + Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(listener.heard.len(), 1);
    fake.thaw();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_every_kind_was_read() {
    let fake = Fake::default();
    fake.put(SERVICES, service("cart"));
    fake.set_broken(Some("endpointslices"));
    let mut listener = Listener::new(&fake);
    let early = timeout(Duration::from_secs(600), listener.updates.recv()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(listener.metrics.waiting(), ["endpointslices"]);
    fake.set_broken(None);
    listener.until(|it| it.is_whole).await;
    assert!(listener.has(Kind::Service, "shop/cart"));
}

#[tokio::test(start_paused = true)]
async fn kinds_that_are_not_there_are_waited_for_and_hold_nothing_up() {
    let fake = Fake::default();
    fake.set_absent("httproutes", true);
    fake.set_absent("servicecidrs", true);
    let mut listener = Listener::synced(&fake).await;
    fake.put(ROUTES, route("late", "Service", "/"));
    fake.set_absent("httproutes", false);
    listener
        .until(|it| it.has(Kind::HttpRoute, "shop/late"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_gone_is_believed_at_the_second_look() {
    let fake = Fake::default();
    fake.put(ROUTES, route("cart", "Service", "/"));
    let mut listener = Listener::synced(&fake).await;
    let gone = async |listener: &mut Listener| {
        let since = tokio::time::Instant::now();
        fake.cut();
        listener
            .until(|it| !it.has(Kind::HttpRoute, "shop/cart"))
            .await;
        since.elapsed()
    };
    fake.set_absent("httproutes", true);
    let took = gone(&mut listener).await;
    assert!(took >= reflect::LOOK_AGAIN, "{took:?}");
    fake.set_absent("httproutes", false);
    listener
        .until(|it| it.has(Kind::HttpRoute, "shop/cart"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_back_with_a_proxy_is_meshed_whichever_watch_is_first() {
    let fake = Fake::default();
    fake.put(PODS, pod("web-0", "old", false));
    let mut listener = Listener::synced(&fake).await;
    fake.delete(PODS, "shop/web-0");
    fake.put(PODS, pod("web-0", "new", true));
    listener
        .until(|it| {
            it.pod("shop/web-0")
                .is_some_and(|it| it.injected == Some(true))
        })
        .await;
    fake.delete(PODS, "shop/web-0");
    listener.until(|it| it.pod("shop/web-0").is_none()).await;
}

#[test]
fn of_a_pod_without_a_proxy_it_is_known_whether_it_asked_for_one() {
    let row = WATCHED
        .iter()
        .find(|it| it.label == "unmeshed-pods")
        .unwrap();
    let asked = |metadata: Value| match row.decode(json!({"metadata": metadata})) {
        Ok(Some(Object::Pod(pod))) => (pod.injected, pod.asked),
        other => panic!("{other:?}"),
    };
    let label = |says: &str| json!({"name": "a", "labels": {"weft.dev/inject": says}});
    assert_eq!(asked(json!({"name": "a"})), (Some(false), None));
    assert_eq!(asked(label("enabled")), (Some(false), Some(true)));
    assert_eq!(asked(label("disabled")), (Some(false), Some(false)));
    assert_eq!(asked(label("perhaps")), (Some(false), None));
    let mut mirror = label("enabled");
    mirror["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    assert_eq!(asked(mirror), (Some(false), Some(false)));
}

/// The two watches of pods are not in step: every order has to end well, and on
/// the way nothing meshed may be told to have no proxy.
#[test]
fn of_two_watches_that_know_a_pod_the_one_with_a_proxy_is_right() {
    let one = |is_meshed: bool| {
        Event::Apply(Object::Pod(crate::model::Pod {
            name: Name::new("shop", "web-0"),
            injected: Some(is_meshed),
            ..crate::model::Pod::default()
        }))
    };
    let gone = || Event::Delete(key(Kind::Pod, "shop/web-0"));
    let row = |is_meshed: bool| {
        let label = if is_meshed { "pods" } else { "unmeshed-pods" };
        WATCHED.iter().position(|it| it.label == label).unwrap()
    };
    let tell = |steps: &[(bool, Event)]| {
        let mut merge = Merge::new(&WATCHED);
        let all = (0..WATCHED.len()).map(|at| told::News {
            at,
            is_whole: true,
            ..told::News::default()
        });
        merge.take(all.collect());
        let mut told = Vec::new();
        for (is_meshed, event) in steps {
            let news = told::News {
                at: row(*is_meshed),
                events: vec![event.clone()],
                ..told::News::default()
            };
            told.extend(merge.take(vec![news]).into_iter().flat_map(|it| it.events));
        }
        told
    };
    // It comes back with a proxy, and the end of the old one is late.
    assert_eq!(
        tell(&[(false, one(false)), (true, one(true)), (false, gone())]),
        [one(false), one(true)]
    );
    // It loses its label, and the other watch is first.
    assert_eq!(
        tell(&[(true, one(true)), (false, one(false)), (true, gone())]),
        [one(true), one(false)]
    );
    assert_eq!(
        tell(&[
            (true, one(true)),
            (false, one(false)),
            (false, gone()),
            (true, gone())
        ]),
        [one(true), gone()]
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_objects_refusals_reads_and_silence() {
    let fake = Fake::default();
    fake.put(SERVICES, service("cart"));
    fake.put(POLICIES, policy("bad", "Perhaps"));
    fake.set_absent("servicecidrs", true);
    let listener = Listener::synced(&fake).await;
    tokio::time::advance(Duration::from_secs(7)).await;
    let mut registry = prometheus_client::registry::Registry::default();
    listener.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"weft_source_objects{kind="services"} 1"#,
        r#"weft_source_refused_objects{kind="accesspolicies"} 1"#,
        r#"weft_source_reads_total{kind="services"} 1"#,
        r#"weft_source_silent_seconds{kind="services"} 7.0"#,
        r#"weft_source_failures_total{kind="services"} 0"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        !text.contains(r#"silent_seconds{kind="servicecidrs""#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_was_never_good_denies_what_it_is_for() {
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        })
    };
    let labels = json!({"matchLabels": {"app": "cart"}});
    let good = json!({"selector": labels, "mtls": "Strict"});
    let newer = json!({"selector": labels, "mtls": "Strict", "fieldOfTheFuture": 1});
    let fake = Fake::default();
    fake.put(POLICIES, policy("newer", newer.clone()));
    fake.put(POLICIES, policy("nonsense", json!(7)));
    fake.put(POLICIES, policy("was-good", good.clone()));
    let mut listener = Listener::synced(&fake).await;
    let held = |listener: &Listener, name: &str| {
        let found = listener.objects.get(&key(Kind::AccessPolicy, name));
        let Some(Object::AccessPolicy(policy)) = found else {
            panic!("{found:?}")
        };
        let denies = policy.rules.iter().any(|it| it.deny);
        (policy.targets.clone(), denies)
    };
    use crate::model::AccessTarget::{Namespace, Selected};
    let cart = || Selected([("app".to_owned(), "cart".to_owned())].into());
    assert_eq!(held(&listener, "shop/newer"), (vec![cart()], true));
    assert_eq!(held(&listener, "shop/nonsense"), (vec![Namespace], true));
    assert_eq!(held(&listener, "shop/was-good"), (vec![cart()], false));
    assert!(
        listener
            .problems
            .iter()
            .all(|it| it.message.contains("denies all"))
    );

    fake.put(POLICIES, policy("was-good", newer));
    listener.until(|it| it.problems.len() == 3).await;
    assert_eq!(held(&listener, "shop/was-good"), (vec![cart()], false));
    fake.put(POLICIES, policy("newer", good));
    fake.delete(POLICIES, "shop/nonsense");
    listener.until(|it| it.problems.len() == 1).await;
    assert_eq!(held(&listener, "shop/newer"), (vec![cart()], false));
    assert!(!listener.has(Kind::AccessPolicy, "shop/nonsense"));
}
