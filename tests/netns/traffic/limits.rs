//! Limits and timeouts, each with its own fault.

use std::time::Duration;

use weft_tests::{
    traffic::{self, Answer, Load, One, Reply, Tally},
    world,
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

#[test]
fn a_limit_on_connections_holds_where_every_request_takes_one() {
    if !world::possible() {
        return;
    }
    // Unmeshed endpoints have a socket for each request in flight.
    let rule = policy("  limits: {connections: 3}");
    let manifests = format!("{}{rule}", world::service("shop/web", &[super::PORT]));
    let world = world::World::new(&manifests);
    let web = world
        .pod("shop/web-0")
        .flag("--no-mesh")
        .run(["sleep", "infinity"]);
    let application =
        traffic::Application::start(web.listen(super::PORT), |_| Answer::ok("x").after(ms(100)));
    let client = world.idle("shop/client-0");
    let mut plan = Load::new(std::net::SocketAddr::new(
        client.resolve("web"),
        super::PORT,
    ));
    (plan.connections, plan.requests, plan.think) = (8, Some(1), Duration::ZERO);
    let tally = traffic::load(&client, &plan);
    assert_eq!(
        (tally.status(200), faults(&tally, "too-many-connections")),
        (3, 5),
        "{:?}",
        tally.errors
    );
    assert_eq!(application.connections(), 3);
    assert_eq!(
        traffic::load(
            &client,
            &Load {
                connections: 3,
                ..plan
            }
        )
        .status(200),
        3
    );
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
