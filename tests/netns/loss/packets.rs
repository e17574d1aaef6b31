//! Packets that vanish, without a reset to tell.

use nix::sys::signal::{Signal, kill};
use tokio::time::Instant;
use weft_tests::{
    traffic::{self, Load, One},
    wait, world,
};

use super::{PORT, Shop, ms};
use crate::lost::Lost;

#[test]
fn a_pod_that_is_cut_off_costs_a_timeout_once_and_is_used_again_afterwards() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[("WEFT_USER_TIMEOUT", "1s")]);
    shop.world.write_manifest(
        "policy.yaml",
        "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n  targetRefs: [{group: '', kind: Service, name: web}]\n  timeouts: {connect: 300ms, firstByte: 500ms}\n  retries: {attempts: 2, retryOn: {statusCodes: [504]}}\n  circuitBreaking: {consecutiveFailures: 2, baseEjection: 300ms, maxEjection: 500ms}\n",
    );
    let to = shop.web();
    let warm = Load {
        connections: 4,
        requests: Some(20),
        ..Load::new(to)
    };
    traffic::load(&shop.client, &warm).assert_flawless();
    {
        let _lost = Lost::of(&shop.pods[0], "meta l4proto tcp");
        let began = Instant::now();
        let (tally, ()) = traffic::during(&shop.client, &Load::new(to), || {
            super::metric(&shop.client, "weft_breaker_transitions_total", |it| {
                it >= 1.0
            });
        });
        assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
        // Retried elsewhere.
        tally.assert_flawless();
    }
    let before = shop.applications[0].requests();
    wait::until("the pod's share", || {
        let _ = traffic::load(&shop.client, &warm);
        (shop.applications[0].requests() > before + 10).then_some(())
    });
    traffic::load(&shop.client, &warm).assert_flawless();
}

#[test]
fn a_lost_caller_frees_what_it_held() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[("WEFT_USER_TIMEOUT", "1s"), ("WEFT_KEEPALIVE", "1s")]);
    let to = shop.web();
    let reply = traffic::run(&shop.client, || async move { One::new(to).get("/").await });
    assert_eq!(reply.unwrap().status, 200);
    let open = |sum: f64| move |it: f64| (it - sum).abs() < 0.5;
    let servers: Vec<_> = shop
        .pods
        .iter()
        .filter(|pod| pod.metrics().sum("weft_connections_inbound_open", &[]) > 0.0)
        .collect();
    assert!(!servers.is_empty());
    let _lost = Lost::of(&shop.client, &format!("tcp dport {{ 15006, {PORT} }}"));
    let _also = servers
        .iter()
        .map(|pod| {
            Lost::of(
                pod,
                &format!(
                    "ip saddr {} drop; ip daddr {}",
                    shop.client.address(),
                    shop.client.address()
                ),
            )
        })
        .collect::<Vec<_>>();
    for pod in servers {
        super::metric(pod, "weft_connections_inbound_open", open(0.0));
    }
}

#[test]
fn a_sidecar_that_is_killed_costs_no_get() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[]);
    let (tally, ()) = traffic::during(&shop.client, &Load::new(shop.web()), || {
        let requests = || shop.applications[0].requests();
        wait::until("its share", || (requests() > 100).then_some(()));
        let old = shop.pods[0].proxy();
        kill(old, Signal::SIGKILL).unwrap();
        wait::until("another proxy", || {
            (shop.pods[0].proxy() != old).then_some(())
        });
        let before = requests();
        wait::until("its share again", || {
            (requests() > before + 20).then_some(())
        });
    });
    tally.assert_flawless();
}
