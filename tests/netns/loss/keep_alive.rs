//! Servers that close idle connections, in the moment when a request comes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use weft_tests::{
    traffic::{self, Answer, Application, One},
    world::{self, World},
};

use super::PORT;

/// Callers of one burst; every pooled connection is used in each of them.
const CALLERS: usize = 60;

struct Raced {
    errors: Vec<String>,
    replays: f64,
}

/// Bursts that come when idle connections are about to be closed, so that each
/// burst races with the server.
fn race(
    workers: &str,
    idle: Duration,
    bursts: usize,
    method: &str,
) -> (Raced, HashMap<String, u64>) {
    let world = World::with(
        true,
        &world::service("shop/web", &[PORT]),
        &[("WEFT_WORKERS", workers), ("WEFT_ACCESS_LOG", "errors")],
    );
    let seen: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
    let served = Arc::new(AtomicU64::new(0));
    let pods = [world.idle("shop/web-0"), world.idle("shop/web-1")];
    let _applications = pods.each_ref().map(|pod| {
        let (seen, served) = (Arc::clone(&seen), Arc::clone(&served));
        Application::impatient(pod.listen(PORT), idle, move |asked| {
            served.fetch_add(1, Ordering::Relaxed);
            if asked.method == "POST" {
                *seen.lock().unwrap().entry(asked.path.clone()).or_default() += 1;
            }
            Answer::ok("x")
        })
    });
    let client = world.idle("shop/client-0");
    let to = std::net::SocketAddr::new(client.resolve("web"), PORT);
    let errors = traffic::run(&client, || async move {
        let mut callers: Vec<One> = (0..CALLERS).map(|_| One::new(to)).collect();
        let mut errors = Vec::new();
        let mut random = fastrand::Rng::with_seed(7);
        for burst in 0..bursts {
            // Around the moment of closing.
            let spread = u64::try_from(idle.as_micros()).unwrap() / 20;
            let away = Duration::from_micros(random.u64(0..2 * spread));
            let at = Instant::now() + idle - Duration::from_micros(spread) + away;
            sleep_until(at).await;
            let asking = callers
                .iter_mut()
                .zip(0..)
                .map(|(caller, number)| async move {
                    let path = format!("/{burst}/{number}");
                    if method == "POST" {
                        caller.post(&path, b"body").await
                    } else {
                        caller.get(&path).await
                    }
                });
            for reply in join_all(asking).await {
                match reply {
                    Ok(reply) if reply.status == 200 => {}
                    Ok(reply) => errors.push(reply.head),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        }
        errors
    });
    let sum = |name, labels: &[_]| -> f64 {
        pods.iter()
            .chain([&client])
            .map(|pod| pod.metrics().sum(name, labels))
            .sum()
    };
    let replays = sum("weft_traffic_retries_total", &[("reason", "replay")]);
    let seen = seen.lock().unwrap().clone();
    (Raced { errors, replays }, seen)
}

/// `requests` on one and on four workers.
fn no_get_fails(idle: Duration, requests: usize) {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let (outcome, _) = race(workers, idle, requests / CALLERS, "GET");
        let shown: Vec<_> = outcome.errors.iter().take(2).collect();
        assert!(
            shown.is_empty(),
            "{} failed, {} replays: {shown:?}",
            outcome.errors.len(),
            outcome.replays
        );
        assert!(
            outcome.replays > 0.0,
            "nothing raced: the test shows nothing"
        );
    }
}

#[test]
fn a_server_that_closes_idle_connections_costs_no_get() {
    no_get_fails(Duration::from_millis(30), 10_000);
}

#[test]
#[ignore = "takes eight minutes"]
fn a_hundred_thousand_gets_outlive_a_server_that_closes_after_100_ms() {
    no_get_fails(Duration::from_millis(100), 100_000);
}

#[test]
fn a_post_arrives_at_most_once_and_tells_when_it_is_unsure() {
    if !world::possible() {
        return;
    }
    let (result, seen) = race("1", Duration::from_millis(30), 60, "POST");
    assert!(
        seen.values().all(|times| *times == 1),
        "a POST was replayed"
    );
    let arrived = seen.len();
    let asked = 60 * CALLERS;
    // What failed is told as a connection that broke, nothing else.
    assert!(
        result.errors.iter().all(|it| it.contains("upstream-reset")),
        "{:?}",
        result.errors.first()
    );
    assert!(
        arrived + result.errors.len() >= asked,
        "{arrived} arrived, {} failed",
        result.errors.len()
    );
}
