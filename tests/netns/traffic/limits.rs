//! Limits and timeouts, each with its own fault.

use std::{net::SocketAddr, time::Duration};

use weft_tests::{
    traffic::{self, Answer, Load, One, Reply, Tally},
    wait, world,
};

use super::{Shop, always, ms, policy};
use crate::lost::Lost;

fn faults(tally: &Tally, reason: &str) -> usize {
    tally
        .errors
        .iter()
        .filter(|error| error.contains(reason))
        .count()
}

#[test]
fn requests_beyond_the_limit_wait_in_turn_or_are_refused_by_name() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        // Four at a time of 100 ms, room for four to wait: the other four are refused.
        let rule = policy("  limits: {requests: 4, pending: 4, pendingTimeout: 5s}");
        let slow = || [always(Answer::ok("x").after(ms(100)))];
        let shop = Shop::with(&rule, &[("WEFT_WORKERS", workers)], slow());
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (12, Some(1), Duration::ZERO);
        let tally = traffic::load(&shop.client, &plan);
        assert_eq!(
            (tally.status(200), faults(&tally, "too-many-requests")),
            (8, 4),
            "{workers} workers: {:?}",
            tally.errors
        );

        let rule = policy("  limits: {requests: 2, pendingTimeout: 30ms}");
        let shop = Shop::with(&rule, &[("WEFT_WORKERS", workers)], slow());
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (6, Some(1), Duration::ZERO);
        let tally = traffic::load(&shop.client, &plan);
        assert_eq!(
            (tally.status(200), faults(&tally, "pending-timeout")),
            (2, 4),
            "{workers} workers: {:?}",
            tally.errors
        );
        // What was refused holds no place.
        assert_eq!(
            traffic::load(
                &shop.client,
                &Load {
                    connections: 2,
                    ..plan
                }
            )
            .status(200),
            2
        );
    }
}

/// Pods without a proxy, where each request in flight has a socket of its own.
fn outside(rule: &str, pods: usize, answer: &Answer) -> (Shop, SocketAddr) {
    let manifests = format!("{}{rule}", world::service("shop/web", &[super::PORT]));
    // A loaded machine's client is slow to speak; what is dialled then has a
    // place too.
    let knobs = [("WEFT_CLIENT_SILENCE", "5s")];
    let world = world::World::with(true, &manifests, &knobs);
    let (mut pods_started, mut applications) = (Vec::new(), Vec::new());
    for number in 0..pods {
        let pod = world
            .pod(&format!("shop/web-{number}"))
            .flag("--no-mesh")
            .run(["sleep", "infinity"]);
        let answer = answer.clone();
        applications.push(traffic::Application::start(
            pod.listen(super::PORT),
            move |_| answer.clone(),
        ));
        pods_started.push(pod);
    }
    let client = world.idle("shop/client-0");
    let shop = Shop {
        client,
        applications,
        pods: pods_started,
        world,
    };
    let web = shop.web();
    (shop, web)
}

#[test]
fn connections_beyond_the_limit_wait_in_turn_or_are_refused_by_name() {
    if !world::possible() {
        return;
    }
    // Three at a time of 100 ms, room for three to wait: the other two are refused.
    let rule = policy("  limits: {connections: 3, requests: 100, pending: 3, pendingTimeout: 5s}");
    let (shop, web) = outside(&rule, 1, &Answer::ok("x").after(ms(100)));
    let mut plan = Load::new(web);
    (plan.connections, plan.requests, plan.think) = (8, Some(1), Duration::ZERO);
    let tally = traffic::load(&shop.client, &plan);
    assert_eq!(
        (tally.status(200), faults(&tally, "too-many-connections")),
        (6, 2),
        "{:?}",
        tally.errors
    );
    let most = shop.applications[0].connections();
    assert!((3..=6).contains(&most), "{most} connections in all");
    // What was refused holds no place.
    plan.connections = 6;
    assert_eq!(traffic::load(&shop.client, &plan).status(200), 6);

    let rule = policy("  limits: {connections: 1, requests: 100, pendingTimeout: 30ms}");
    let (shop, web) = outside(&rule, 1, &Answer::ok("x").after(ms(300)));
    let mut plan = Load::new(web);
    (plan.connections, plan.requests, plan.think) = (3, Some(1), Duration::ZERO);
    let tally = traffic::load(&shop.client, &plan);
    assert_eq!(
        (tally.status(200), faults(&tally, "pending-timeout")),
        (1, 2),
        "{:?}",
        tally.errors
    );
}

#[test]
fn an_idle_connection_gives_way_to_one_that_is_needed_elsewhere() {
    if !world::possible() {
        return;
    }
    // Whoever's turn it is, the other one's idle connection holds the only place.
    let spec = "  loadBalancing: {algorithm: RoundRobin}\n  limits: {connections: 1, requests: 100, pendingTimeout: 10s}";
    let (outside, web) = outside(&policy(spec), 2, &Answer::ok("x"));
    let answers = [always(Answer::ok("x")), always(Answer::ok("x"))];
    let inside = Shop::new(&policy(spec), answers);
    for (shop, web) in [(&outside, web), (&inside, inside.web())] {
        wait::until("both endpoints", || {
            let asked = traffic::run(&shop.client, || async move { One::new(web).get("/").await });
            assert!(asked.is_ok_and(|reply| reply.status == 200));
            shop.requests().iter().all(|count| *count > 0).then_some(())
        });
        let before = shop.requests();
        let statuses = traffic::run(&shop.client, || async move {
            let mut one = One::new(web);
            let mut statuses = Vec::new();
            for _ in 0..10 {
                statuses.push(one.get("/").await.map(|reply| reply.status).ok());
            }
            statuses
        });
        assert_eq!(statuses, vec![Some(200); 10]);
        let after = shop.requests();
        assert_eq!([after[0] - before[0], after[1] - before[1]], [5, 5]);
        let closed = [("cause", "limit")];
        let metrics = shop.client.metrics();
        assert!(
            metrics.sum("weft_pool_closed_total", &closed) >= 9.0,
            "{}",
            &*metrics
        );
    }
}

fn ask(shop: &Shop, path: &'static str) -> (std::io::Result<Reply>, Duration) {
    let to = shop.web();
    traffic::run(&shop.client, || async move {
        let began = tokio::time::Instant::now();
        (One::new(to).get(path).await, began.elapsed())
    })
}

#[test]
fn each_timeout_ends_a_request_by_its_own_name() {
    if !world::possible() {
        return;
    }
    // First byte.
    let slow = || [always(Answer::ok("x").after(ms(2000)))];
    let shop = Shop::new(&policy("  timeouts: {firstByte: 100ms}"), slow());
    let (reply, took) = ask(&shop, "/");
    let reply = reply.unwrap();
    assert_eq!(reply.status, 504, "{}", reply.head);
    assert!(reply.head.contains("first-byte-timeout"), "{}", reply.head);
    assert!((ms(90)..ms(1000)).contains(&took), "{took:?}");

    // Total.
    let shop = Shop::new(&policy("  timeouts: {request: 100ms}"), slow());
    let (reply, took) = ask(&shop, "/");
    let reply = reply.unwrap();
    assert_eq!(reply.status, 504, "{}", reply.head);
    assert!(reply.head.contains("request-timeout"), "{}", reply.head);
    assert!((ms(90)..ms(1000)).contains(&took), "{took:?}");

    // Idle, between head and body: the answer has begun, so it breaks off.
    let pausing = [always(Answer::ok("body").pause(ms(2000)))];
    let shop = Shop::new(&policy("  timeouts: {idle: 100ms}"), pausing);
    let (reply, took) = ask(&shop, "/");
    assert!(reply.is_err(), "{reply:?}");
    assert!((ms(90)..ms(1000)).contains(&took), "{took:?}");
    let metrics = shop.client.metrics();
    let labels = [("reason", "idle-timeout")];
    assert_eq!(
        metrics.sum("weft_traffic_faults_total", &labels),
        1.0,
        "{}",
        &*metrics
    );
}

#[test]
fn an_endpoint_that_never_accepts_ends_in_a_connect_timeout() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(
        &policy("  timeouts: {connect: 200ms}"),
        [always(Answer::ok("x"))],
    );
    let _lost = Lost::of(&shop.pods[0], "tcp dport 15006");
    let (reply, took) = ask(&shop, "/");
    let reply = reply.unwrap();
    assert_eq!(reply.status, 503, "{}", reply.head);
    assert!(reply.head.contains("connect-timeout"), "{}", reply.head);
    assert!((ms(190)..ms(1500)).contains(&took), "{took:?}");
}
