//! Endpoints that fail are taken out, exactly then, visibly, and come back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use weft_tests::{
    traffic::{self, Answer, Load, One},
    wait,
    world::{self, Pod},
};

use super::{Answers, Shop, always, ms, named, policy};

/// Fails until the test mends it.
#[derive(Default)]
struct Broken {
    is_mended: AtomicBool,
    /// When it was asked and failed.
    failures: Mutex<Vec<Instant>>,
}

impl Broken {
    fn answers(self: &Arc<Self>) -> Answers {
        let broken = Arc::clone(self);
        Box::new(move |_| {
            if broken.is_mended.load(Ordering::SeqCst) {
                return Answer::status(200, "mended");
            }
            broken.failures.lock().unwrap().push(Instant::now());
            Answer::status(500, "broken")
        })
    }

    fn failures(&self) -> Vec<Instant> {
        self.failures.lock().unwrap().clone()
    }
}

/// What the client's proxy tells of an endpoint.
fn breaker(pod: &Pod, endpoint: &str) -> Value {
    let dump = traffic::dump(pod);
    let destinations = dump["destinations"].as_array().unwrap();
    destinations
        .iter()
        .filter_map(|it| it["backend"]["endpoints"].as_array())
        .flatten()
        .find(|it| it["pod"] == endpoint)
        .map(|it| it["breaker"].clone())
        .unwrap_or_default()
}

#[test]
fn exactly_so_many_failures_eject_then_a_probe_asks_and_times_grow() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let broken = Arc::new(Broken::default());
        let rule = "  loadBalancing: {algorithm: RoundRobin}\n  circuitBreaking: {consecutiveFailures: 4, baseEjection: 200ms, maxEjection: 700ms}";
        let shop = Shop::with(
            &policy(rule),
            &[("WEFT_WORKERS", workers)],
            [broken.answers(), named(1)],
        );
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (4, Some(25), Duration::ZERO);
        let first = Instant::now();
        let tally = traffic::load(&shop.client, &plan);
        // In flight together: those that were out already when the fourth failed.
        let failed = tally.status(500);
        assert!(
            (4..=7).contains(&failed) || first.elapsed() > ms(150),
            "{workers} workers: {:?}",
            tally.statuses
        );
        let state = breaker(&shop.client, "shop/web-0");
        assert_eq!(state["state"], "ejected", "{state}");
        let gauge = |name: &str| shop.client.metrics().sum(name, &[]);
        assert_eq!(
            gauge("weft_endpoints_ejected"),
            1.0,
            "{}",
            &*shop.client.metrics()
        );

        // Probes fail: out again, each time for longer.
        let to = shop.web();
        let before = broken.failures().len();
        let mut plan = Load::new(to);
        plan.connections = 1;
        let (_, probes) = traffic::during(&shop.client, &plan, || {
            wait::until("three probes", || {
                let probes = broken.failures().split_off(before);
                (probes.len() >= 3).then_some(probes)
            })
        });
        // From before one has failed to when the next one is asked: a slow machine
        // makes that longer, never shorter. Doubled, then as long as the longest.
        let times = [probes[1] - probes[0], probes[2] - probes[1]];
        assert!(times[0] >= ms(399) && times[1] >= ms(699), "{times:?}");
        broken.is_mended.store(true, Ordering::SeqCst);
        let back = || (breaker(&shop.client, "shop/web-0")["state"] == "in").then_some(());
        wait::until("the endpoint to be back", || {
            let _ = traffic::run(&shop.client, || async move { One::new(to).get("/").await });
            back()
        });
        let log = shop.world.log("shop.client-0");
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line.to_string().contains("breaker moved an endpoint"))
            .collect();
        let moved = |from: &str, to: &str| {
            lines
                .iter()
                .filter(|line| {
                    let text = line.to_string();
                    text.contains(&format!("\"from\":\"{from}\""))
                        && text.contains(&format!("\"to\":\"{to}\""))
                })
                .count()
        };
        assert_eq!(moved("in", "ejected"), 1, "{log}");
        let probes = moved("probing", "ejected");
        assert!(probes >= 3, "{log}");
        assert_eq!(moved("probing", "in"), 1, "{log}");
        assert_eq!(moved("ejected", "probing"), probes + 1, "{log}");
        let metrics = shop.client.metrics();
        let transitions = |to| metrics.sum("weft_breaker_transitions_total", &[("to", to)]);
        assert_eq!(
            (transitions("ejected"), transitions("in")),
            (1.0 + probes as f64, 1.0),
            "{}",
            &*metrics
        );
        assert_eq!(metrics.sum("weft_endpoints_ejected", &[]), 0.0);
    }
}

#[test]
fn client_errors_never_eject_and_the_last_endpoint_never_goes() {
    if !world::possible() {
        return;
    }
    let rule = policy(
        "  circuitBreaking: {consecutiveFailures: 2, baseEjection: 1h, maxEjectedPercent: 100}",
    );
    let shop = Shop::new(
        &rule,
        [
            always(Answer::status(404, "")),
            always(Answer::grpc_head(7)),
        ],
    );
    let mut plan = Load::new(shop.web());
    (plan.connections, plan.requests, plan.think) = (4, Some(20), Duration::ZERO);
    let _ = traffic::load(&shop.client, &plan);
    assert_eq!(
        shop.client
            .metrics()
            .sum("weft_breaker_transitions_total", &[]),
        0.0
    );

    let shop = Shop::new(&rule, (0..3).map(|_| always(Answer::status(500, ""))));
    let mut plan = Load::new(shop.web());
    (plan.connections, plan.requests, plan.think) = (4, Some(50), Duration::ZERO);
    let tally = traffic::load(&shop.client, &plan);
    // All came from an application: somebody was always in.
    assert_eq!(
        (tally.status(500), tally.errors.len()),
        (200, 0),
        "{:?}",
        tally.errors
    );
    assert_eq!(
        shop.client.metrics().sum("weft_endpoints_ejected", &[]),
        2.0
    );
}
