//! The proxy's side of the control plane against a fake one in memory, under a
//! paused clock: what is asked, applied, refused, kept and renewed.

use std::{net::SocketAddr, path::Path};

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use weft_proto::v1::{self, Kind, WatchResponse, watch_request::Message};

use super::{fake::*, *};
use crate::{
    discovery::{Meaning, ServicePort, Stream},
    tls::authority::NOW,
};

struct Proxy {
    handle: Handle,
    tasks: Tasks,
}

fn config(directory: &Path) -> Config {
    Config {
        address: "unused:1".to_owned(),
        mark: None,
        liveness: Liveness::default(),
        trust_domain: "cluster.local".into(),
        namespace: "shop".into(),
        service_account: "shop".into(),
        pod: "shop-0".into(),
        pod_uid: "u-1".into(),
        token_file: directory.join("token"),
        bundle_file: directory.join("roots.pem"),
        state_directory: Some(directory.join("state")),
        max_subscriptions: 100,
        idle_subscription: Duration::from_secs(600),
    }
}

/// A proxy with a fresh state directory, a token and the fake's root.
fn launch(fake: &Fake) -> (Proxy, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "first\n").unwrap();
    fake.set(|plane| {
        plane
            .authority
            .write_bundle(&directory.path().join("roots.pem"))
    });
    (relaunch(fake, &directory), directory)
}

fn relaunch(fake: &Fake, directory: &TempDir) -> Proxy {
    let wall = fake.plane.lock().unwrap().wall;
    let mut tasks = Tasks::new();
    let handle = start_with(
        config(directory.path()),
        fake.dial.clone(),
        wall,
        &mut tasks,
    )
    .unwrap();
    Proxy { handle, tasks }
}

impl Proxy {
    fn ask(&mut self) -> tokio::sync::oneshot::Receiver<Option<Arc<Snapshot>>> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let asker = self.handle.asker.clone();
        self.tasks.spawn(async move {
            let _ = reply.send(asker.ask(cart_address()).await);
        });
        answer
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.snapshots.borrow().clone()
    }

    fn cart(&self) -> Arc<ServicePort> {
        cart_of(&self.snapshot())
    }
}

fn cart_address() -> SocketAddr {
    CART_ADDRESS.parse().unwrap()
}

fn cart_of(snapshot: &Snapshot) -> Arc<ServicePort> {
    match snapshot.lookup(cart_address()) {
        Some(Meaning::Service(port)) => port.clone(),
        other => panic!("a service and not {other:?}"),
    }
}

fn pods(port: &ServicePort) -> Vec<&str> {
    let endpoints = port.default.endpoints.iter();
    endpoints.map(|endpoint| &*endpoint.pod).collect()
}

/// A proxy that knows its mesh, itself and the cart.
async fn subscribed(fake: &mut Fake) -> (Proxy, TempDir, FakeStream) {
    let (mut proxy, directory) = launch(fake);
    let (mut stream, hello, _) = fake.greet(0).await;
    assert_eq!(
        (&*hello.namespace, &*hello.pod, &*hello.pod_uid),
        ("shop", "shop-0", "u-1")
    );
    stream.resources(vec![mesh(), workload()]).await;
    let answer = proxy.ask();
    assert_eq!(stream.subscribed().await, (CART_ADDRESS.to_owned(), false));
    stream.resources(cart()).await;
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(pods(&cart_of(&answer)), ["cart-1", "cart-2"]);
    (proxy, directory, stream)
}

const ALL: &[(Kind, &str, u64)] = &[
    (Kind::Mesh, "", 1),
    (Kind::Workload, "shop/shop-0", 2),
    (Kind::Endpoints, "shop/cart:80", 10),
    (Kind::Service, "shop/cart", 20),
    (Kind::Address, CART_ADDRESS, 30),
];

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_first_question_brings_service_and_endpoints() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, _stream) = subscribed(&mut fake).await;
    let snapshot = proxy.snapshot();
    assert!(snapshot.is_inside("10.9.9.9".parse().unwrap()));
    assert_eq!(&*snapshot.workload.as_ref().unwrap().pod, "shop-0");
    let status = proxy.handle.health.status();
    assert_eq!(status.stream, Stream::Open);
    assert_eq!(status.held.len(), ALL.len());
    let now = proxy.handle.certificates.wall().now();
    assert!(proxy.handle.health.waiting_for(now).is_empty());
    assert_eq!(fake.plane.lock().unwrap().tokens, ["first"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_endpoints_change_touches_nothing_else() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    let before = proxy.cart();
    let change = v1::Endpoints {
        base: 10,
        added_or_updated: vec![endpoint(3)],
        removed: vec!["uid-1".to_owned()],
        ..v1::Endpoints::default()
    };
    stream.resources(vec![endpoints(11, change)]).await;
    let after = proxy.cart();
    assert_eq!(pods(&after), ["cart-2", "cart-3"]);
    assert!(Arc::ptr_eq(
        &before.default.endpoints[1],
        &after.default.endpoints[0]
    ));
    assert!(Arc::ptr_eq(&before.default.cells, &after.default.cells));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_change_to_a_version_that_is_not_held_asks_for_the_whole() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    let change = v1::Endpoints {
        base: 9,
        added_or_updated: vec![endpoint(3)],
        ..v1::Endpoints::default()
    };
    stream
        .send(WatchResponse {
            resources: vec![endpoints(11, change)],
            ..WatchResponse::default()
        })
        .await;
    assert_eq!(stream.subscribed().await, ("shop/cart:80".to_owned(), true));
    assert!(matches!(stream.next().await, Message::Acknowledge(_)));
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
    stream
        .resources(vec![endpoints(11, whole(&[endpoint(3)]))])
        .await;
    assert_eq!(pods(&proxy.cart()), ["cart-3"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_is_invalid_is_rejected_by_field_and_the_last_good_one_stays() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    let wrong = v1::Endpoint {
        weight: 0,
        ..endpoint(3)
    };
    let nonce = stream
        .send(WatchResponse {
            resources: vec![endpoints(11, whole(&[endpoint(1), wrong]))],
            ..WatchResponse::default()
        })
        .await;
    let Message::Reject(reject) = stream.next().await else {
        panic!("a reject")
    };
    assert_eq!((reject.nonce, reject.version), (nonce, 11));
    assert_eq!(reject.reason, "endpoints.added_or_updated[1].weight: 0");
    assert_eq!(stream.next().await, Message::Acknowledge(nonce));
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
    let status = proxy.handle.health.status();
    assert_eq!(status.rejected[0].name, "Endpoints shop/cart:80");
    // It is asked for again only when there is another one.
    let newest: Vec<_> = ALL
        .iter()
        .map(|it| if it.2 == 10 { (it.0, it.1, 11) } else { *it })
        .collect();
    for _ in 0..3 {
        stream.tell(heartbeat(&newest, 1000)).await;
    }
    stream
        .resources(vec![endpoints(12, whole(&[endpoint(3)]))])
        .await;
    assert!(proxy.handle.health.status().rejected.is_empty());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_a_newer_control_plane_says_beyond_our_knowledge_is_ignored_and_counted() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    assert_eq!(proxy.handle.health.status().unknown_fields_total, 0);
    let changed = WatchResponse {
        resources: vec![endpoints(11, whole(&[endpoint(3)]))],
        ..WatchResponse::default()
    };
    // Field 900, the number 42.
    let nonce = stream.send_with(changed, &[0xa0, 0x38, 0x2a]).await;
    assert_eq!(stream.next().await, Message::Acknowledge(nonce));
    assert_eq!(pods(&proxy.cart()), ["cart-3"]);
    assert_eq!(proxy.handle.health.status().unknown_fields_total, 1);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_difference_in_two_heartbeats_is_asked_for_whole() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (_proxy, _directory, mut stream) = subscribed(&mut fake).await;
    let newest: Vec<_> = ALL
        .iter()
        .map(|it| if it.2 == 20 { (it.0, it.1, 21) } else { *it })
        .collect();
    stream.tell(heartbeat(ALL, 1000)).await;
    stream.tell(heartbeat(&newest, 1000)).await;
    let nonce = stream.send(heartbeat(&newest, 1000)).await;
    assert_eq!(stream.next().await, Message::Acknowledge(nonce));
    assert_eq!(stream.subscribed().await, ("shop/cart".to_owned(), true));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_two_heartbeats_do_not_name_is_forgotten_or_asked_for() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    stream.tell(heartbeat(&ALL[..2], 1000)).await;
    let nonce = stream.send(heartbeat(&ALL[..2], 1000)).await;
    assert_eq!(stream.next().await, Message::Acknowledge(nonce));
    assert_eq!(stream.subscribed().await, (CART_ADDRESS.to_owned(), true));
    stream.tell(heartbeat(ALL, 1000)).await;
    let held = proxy.handle.health.status().held;
    let names: Vec<_> = held.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        ["Address 10.1.0.1:80", "Mesh", "Workload shop/shop-0"]
    );
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_new_stream_names_what_is_held_and_gets_no_more() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (mut proxy, _directory, stream) = subscribed(&mut fake).await;
    sleep(Duration::from_secs(5)).await;
    let lost = Instant::now();
    drop(stream);
    let (_stream, hello, names) = fake.greet(1).await;
    assert!(lost.elapsed() < Duration::from_millis(10), "at once");
    let mut held: Vec<_> = hello.held.iter().map(|held| held.version).collect();
    held.sort_unstable();
    assert_eq!(held, [1, 2, 10, 20, 30]);
    assert_eq!(names, [CART_ADDRESS]);
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
    // Still answered from what is held.
    assert!(proxy.ask().await.unwrap().is_some());
    assert_eq!(proxy.handle.health.status().connections, 2);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn silence_is_noticed_within_two_heartbeats() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut frozen) = subscribed(&mut fake).await;
    frozen.tell(heartbeat(ALL, 3000)).await;
    let heard = Instant::now();
    let _stream = fake.stream().await;
    let noticed = heard.elapsed();
    assert!(noticed >= Duration::from_secs(6), "{noticed:?}");
    assert!(noticed < Duration::from_millis(6100), "{noticed:?}");
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_unknown_address_stays_subscribed() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (mut proxy, _directory) = launch(&fake);
    let (mut stream, ..) = fake.greet(0).await;
    let answer = proxy.ask();
    stream.subscribed().await;
    stream
        .resources(vec![address(
            1,
            v1::address::Meaning::Unknown(v1::Unknown {}),
        )])
        .await;
    let snapshot = answer.await.unwrap().unwrap();
    assert!(matches!(
        snapshot.lookup(cart_address()),
        Some(Meaning::Unknown)
    ));
    stream.resources(cart()).await;
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_address_that_nobody_uses_is_unsubscribed() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, _directory, mut stream) = subscribed(&mut fake).await;
    let began = Instant::now();
    let mut lookups = 0;
    loop {
        stream.tell(heartbeat(ALL, 60_000)).await;
        if lookups < 20 {
            proxy.cart();
            lookups += 1;
        }
        match timeout(Duration::from_secs(59), stream.next()).await {
            Err(_) => {}
            Ok(message) => {
                assert!(matches!(message, Message::Unsubscribe(_)), "{message:?}");
                break;
            }
        }
    }
    let idle = began.elapsed() - Duration::from_secs(19 * 59);
    assert!(
        idle >= Duration::from_secs(600) && idle < Duration::from_secs(1000),
        "{idle:?}"
    );
    assert!(proxy.snapshot().lookup(cart_address()).is_none());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn renewal_begins_at_60_percent_of_a_life_with_the_token_of_the_day() {
    let mut tasks = Tasks::new();
    let fake = Fake::start(&mut tasks);
    fake.set(|plane| plane.life = 1000);
    let (proxy, directory) = launch(&fake);
    sleep(Duration::from_secs(500)).await;
    std::fs::write(directory.path().join("token"), "second").unwrap();
    sleep(Duration::from_secs(400)).await;
    let plane = fake.plane.lock().unwrap();
    assert_eq!(plane.tokens, ["first", "second"]);
    let renewed = plane.issued[1];
    assert!(
        renewed >= Duration::from_secs(550) && renewed <= Duration::from_secs(651),
        "{renewed:?}"
    );
    let ends = proxy.handle.certificates.expires().unwrap();
    assert_eq!(ends, NOW + Duration::from_secs(renewed.as_secs() + 1000));
    assert_eq!(proxy.handle.health.status().certificate_ends, Some(ends));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_short_life_that_is_dated_back_far_does_not_renew_all_the_time() {
    let mut tasks = Tasks::new();
    let fake = Fake::start(&mut tasks);
    // The fake dates back by a minute.
    fake.set(|plane| plane.life = 20);
    let (_proxy, _directory) = launch(&fake);
    sleep(Duration::from_secs(60)).await;
    let issued = fake.plane.lock().unwrap().issued.len();
    assert!((5..=6).contains(&issued), "{issued}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_authority_that_is_down_for_most_of_a_life_leaves_no_gap() {
    let mut tasks = Tasks::new();
    let fake = Fake::start(&mut tasks);
    fake.set(|plane| plane.life = 100);
    let (proxy, _directory) = launch(&fake);
    sleep(Duration::from_secs(1)).await;
    fake.set(|plane| plane.refuses_to_certify = true);
    let is_certified = || proxy.handle.certificates.is_certified();
    for _ in 0..88 {
        sleep(Duration::from_secs(1)).await;
        assert!(is_certified());
    }
    let status = proxy.handle.health.status();
    assert!(status.renewal_failures_total > 3);
    assert_eq!(
        status.renewal_error.unwrap(),
        "control plane: The service is currently unavailable: no authority"
    );
    fake.set(|plane| plane.refuses_to_certify = false);
    for _ in 0..40 {
        sleep(Duration::from_secs(1)).await;
        assert!(is_certified());
    }
    assert_eq!(fake.plane.lock().unwrap().issued.len(), 2);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_restart_without_a_control_plane_goes_on_as_before() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, directory, stream) = subscribed(&mut fake).await;
    sleep(Duration::from_secs(2)).await;
    let expires = proxy.handle.certificates.expires();
    drop((proxy, stream));
    fake.set(|plane| plane.is_down = true);
    let mut again = relaunch(&fake, &directory);
    assert_eq!(again.handle.certificates.expires(), expires);
    assert!(again.handle.certificates.is_certified());
    assert_eq!(pods(&again.cart()), ["cart-1", "cart-2"]);
    assert!(again.ask().await.unwrap().is_some());
    let status = again.handle.health.status();
    assert!(status.is_restored && status.is_configured);
    assert!(
        again
            .handle
            .health
            .waiting_for(NOW + Duration::from_secs(10))
            .is_empty()
    );
    // And once it is back, nothing is sent again.
    fake.set(|plane| plane.is_down = false);
    let (_stream, hello, names) = fake.greet(1).await;
    assert_eq!(hello.held.len(), ALL.len());
    assert_eq!(names, [CART_ADDRESS]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_configuration_of_another_pod_is_not_taken() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, directory, stream) = subscribed(&mut fake).await;
    sleep(Duration::from_secs(2)).await;
    drop((proxy, stream));
    fake.set(|plane| plane.is_down = true);
    let wall = fake.plane.lock().unwrap().wall;
    let other = Config {
        pod_uid: "u-2".into(),
        ..config(directory.path())
    };
    let handle = start_with(other, fake.dial.clone(), wall, &mut Tasks::new()).unwrap();
    assert!(handle.snapshots.borrow().workload.is_none());
    assert!(handle.snapshots.borrow().addresses.is_empty());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_impostor_gets_neither_token_nor_stream() {
    let mut tasks = Tasks::new();
    let fake = Fake::start(&mut tasks);
    fake.set(|plane| plane.identity = "spiffe://cluster.local/ns/shop/sa/mallory");
    let (proxy, _directory) = launch(&fake);
    sleep(Duration::from_secs(60)).await;
    assert!(fake.plane.lock().unwrap().tokens.is_empty());
    let status = proxy.handle.health.status();
    assert_eq!(
        status.renewal_error.unwrap(),
        "control plane: no TLS: peer-identity-mismatch"
    );
    let now = proxy.handle.certificates.wall().now();
    let waiting = proxy.handle.health.waiting_for(now);
    assert_eq!(waiting, ["certificate", "first configuration"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_trust_bundle_is_published_and_kept_and_a_removed_root_renews_at_once() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, directory, mut stream) = subscribed(&mut fake).await;
    let next = crate::tls::authority::Authority::new("next");
    let old = fake.plane.lock().unwrap().authority.root.to_vec();
    let bundle = |version, roots: Vec<Vec<u8>>| {
        let roots = roots.into_iter().map(Into::into).collect();
        let body = v1::resource::Body::TrustBundle(v1::TrustBundle { roots });
        vec![resource(Kind::TrustBundle, "", version, body)]
    };
    stream
        .resources(bundle(1, vec![old, next.root.to_vec()]))
        .await;
    assert_eq!(proxy.handle.certificates.current().bundle.roots().len(), 2);
    let kept = State::new(Some(directory.path().join("state")))
        .bundle()
        .unwrap();
    assert_eq!(kept.len(), 2);
    let issued = fake.plane.lock().unwrap().issued.len();
    let root = next.root.to_vec();
    fake.set(|plane| plane.authority = next);
    // The stream ends with its root: nobody is left to acknowledge it.
    let resources = bundle(2, vec![root]);
    stream
        .send(WatchResponse {
            resources,
            ..WatchResponse::default()
        })
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fake.plane.lock().unwrap().issued.len(), issued + 1);
    assert!(proxy.handle.certificates.is_acceptable());
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_changed_pin_finds_a_control_plane_with_another_authority_again() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, directory, stream) = subscribed(&mut fake).await;
    let old = fake.plane.lock().unwrap().authority.bundle();
    let new = crate::tls::authority::Authority::new("new");
    let bundle = new.bundle();
    fake.set(|plane| plane.authority = new);
    drop(stream);
    sleep(Duration::from_secs(60)).await;
    let status = proxy.handle.health.status();
    assert_eq!(
        status.stream_error.unwrap(),
        "no TLS: peer-untrusted",
        "nothing but the old root is trusted"
    );
    assert_eq!(*proxy.handle.certificates.current().bundle, old);
    fake.set(|plane| {
        plane
            .authority
            .write_bundle(&directory.path().join("roots.pem"));
    });
    let (_stream, hello, _) = fake.greet(1).await;
    assert_eq!(*proxy.handle.certificates.current().bundle, bundle);
    assert!(proxy.handle.certificates.is_acceptable());
    let names = hello.held.iter().filter_map(|held| held.name.as_ref());
    let kinds: Vec<_> = names.map(|name| name.kind()).collect();
    assert!(!kinds.contains(&Kind::TrustBundle), "it is asked for again");
    assert_eq!(pods(&proxy.cart()), ["cart-1", "cart-2"]);
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_changed_pin_cuts_nobody_while_the_control_plane_is_away() {
    let mut tasks = Tasks::new();
    let mut fake = Fake::start(&mut tasks);
    let (proxy, directory, stream) = subscribed(&mut fake).await;
    let certificates = &proxy.handle.certificates;
    let old = fake.plane.lock().unwrap().authority.bundle();
    let file = directory.path().join("roots.pem");
    let new = crate::tls::authority::Authority::new("new");
    fake.set(|plane| plane.is_down = true);
    new.write_bundle(&file);
    drop(stream);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(*certificates.current().bundle, old);
    assert!(certificates.is_acceptable());
    // The control plane of before is as good as the one that the pin means.
    fake.set(|plane| plane.is_down = false);
    let (stream, ..) = fake.greet(1).await;
    assert_eq!(*certificates.current().bundle, old);
    // Seen while it was in touch, the pin still finds the other one later.
    let bundle = new.bundle();
    fake.set(|plane| plane.authority = new);
    drop(stream);
    let _stream = fake.greet(1).await;
    assert_eq!(*certificates.current().bundle, bundle);
    assert!(certificates.is_acceptable());
}

#[test]
fn what_can_not_be_right_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let mut tasks = Tasks::new();
    let error = start(config.clone(), Wall::System, &mut tasks).unwrap_err();
    assert!(matches!(error, StartError::Bundle { .. }), "{error}");
    let address = Config {
        address: "nowhere".to_owned(),
        ..config.clone()
    };
    let error = start(address, Wall::System, &mut tasks).unwrap_err();
    assert!(
        error.to_string().starts_with("\"nowhere\" is not"),
        "{error}"
    );
    let identity = Config {
        namespace: "a/b".into(),
        ..config
    };
    let error = start(identity, Wall::System, &mut tasks).unwrap_err();
    assert!(matches!(error, StartError::Identity(_)), "{error}");
}
