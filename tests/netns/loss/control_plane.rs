//! The control plane dies, freezes, comes back; a proxy freezes.

use nix::sys::signal::{Signal, kill};
use tokio::time::Instant;
use weft_tests::{
    traffic::{self, Load},
    wait,
    world::{self, World},
};

use super::{Shop, metric, ms};

const HEARTBEAT: (&str, &str) = ("WEFT_HEARTBEAT", "300ms");

#[test]
fn a_killed_control_plane_costs_no_request_and_resends_nothing_that_is_held() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let shop = Shop::new(&[HEARTBEAT, ("WEFT_WORKERS", workers)]);
        let (tally, ()) = traffic::during(&shop.client, &Load::new(shop.web()), || {
            metric(&shop.client, "weft_traffic_requests_total", |it| it > 20.0);
            let received = |pod: &world::Pod| {
                pod.metrics()
                    .sum("weft_control_received_resources_total", &[])
            };
            let streams = shop.client.metrics().sum("weft_control_streams_total", &[]);
            let before = (received(&shop.client), received(&shop.pods[0]));
            let old = shop.world.control_plane();
            shop.world.signal_control_plane(Signal::SIGKILL);
            metric(&shop.client, "weft_control_stream_open", |it| it == 0.0);
            metric(&shop.client, "weft_control_streams_total", |it| {
                it > streams
            });
            metric(&shop.client, "weft_control_stream_open", |it| it == 1.0);
            assert_ne!(shop.world.control_plane(), old);
            // Two heartbeats compare what is held with what there is.
            metric(&shop.client, "weft_control_heartbeats_total", |it| {
                it >= 3.0
            });
            metric(&shop.pods[0], "weft_control_stream_open", |it| it == 1.0);
            assert_eq!((received(&shop.client), received(&shop.pods[0])), before);
        });
        tally.assert_flawless();
    }
}

#[test]
fn a_proxy_that_restarts_without_a_control_plane_uses_what_it_kept() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[HEARTBEAT]);
    let plan = Load {
        connections: 4,
        requests: Some(10),
        ..Load::new(shop.web())
    };
    traffic::load(&shop.client, &plan).assert_flawless();
    // Kept a moment after the last change.
    wait::until("kept configuration", || {
        let kept = |pod: &str| {
            let directory = shop.world.directory().join("pods").join(pod).join("state");
            let files = std::fs::read_dir(directory).ok()?;
            files
                .flatten()
                .any(|it| it.file_name().to_string_lossy().contains("configuration"))
                .then_some(())
        };
        kept("shop.client-0").and_then(|()| kept("shop.web-0"))
    });
    let certificate = |pod: &world::Pod| {
        pod.metrics()
            .sum("weft_control_certificate_expiry_seconds", &[])
    };
    let before = certificate(&shop.client);
    shop.world.signal_control_plane(Signal::SIGSTOP);
    for pod in [&shop.client, &shop.pods[0]] {
        let old = pod.proxy();
        kill(old, Signal::SIGKILL).unwrap();
        wait::until("another proxy", || (pod.proxy() != old).then_some(()));
        pod.listens(15020);
        pod.listens(15006);
    }
    traffic::load(&shop.client, &plan).assert_flawless();
    assert_eq!(certificate(&shop.client), before, "the same certificate");
    assert_eq!(
        shop.client
            .metrics()
            .sum("weft_control_renewals_total", &[]),
        0.0
    );
    shop.world.signal_control_plane(Signal::SIGCONT);
    metric(&shop.client, "weft_control_stream_open", |it| it == 1.0);
}

#[test]
fn a_frozen_control_plane_is_noticed_within_two_heartbeats_and_traffic_goes_on() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[("WEFT_HEARTBEAT", "500ms")]);
    let client = &shop.client;
    let (tally, ()) = traffic::during(client, &Load::new(shop.web()), || {
        wait::prompt(ms(1400), || {
            // The interval is known from the first heartbeat on.
            let heartbeats = client.metrics().sum("weft_control_heartbeats_total", &[]);
            metric(client, "weft_control_heartbeats_total", |it| {
                it > heartbeats
            });
            let began = Instant::now();
            shop.world.signal_control_plane(Signal::SIGSTOP);
            metric(client, "weft_control_stream_open", |it| it == 0.0);
            let took = began.elapsed();
            // By the proxy's own clock, and not before: silence for two heartbeats.
            let age = client.metrics().sum("weft_control_age_seconds", &[]);
            assert!(age > 0.9, "{age}");
            metric(client, "weft_control_age_seconds", |it| it > 1.5);
            shop.world.signal_control_plane(Signal::SIGCONT);
            metric(client, "weft_control_stream_open", |it| it == 1.0);
            metric(client, "weft_control_age_seconds", |it| it < 1.0);
            took
        });
    });
    tally.assert_flawless();
}

#[test]
fn a_change_that_a_frozen_control_plane_missed_arrives_when_it_thaws() {
    if !world::possible() {
        return;
    }
    let shop = Shop::new(&[HEARTBEAT]);
    let plan = Load {
        connections: 2,
        requests: Some(10),
        ..Load::new(shop.web())
    };
    traffic::load(&shop.client, &plan).assert_flawless();
    shop.world.signal_control_plane(Signal::SIGSTOP);
    metric(&shop.client, "weft_control_stream_open", |it| it == 0.0);
    shop.world.write_manifest(
        "policy.yaml",
        "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n  targetRefs: [{group: '', kind: Service, name: web}]\n  limits: {requests: 4321}\n",
    );
    shop.world.signal_control_plane(Signal::SIGCONT);
    wait::until("the change", || {
        traffic::dump(&shop.client)
            .to_string()
            .contains("4321")
            .then_some(())
    });
}

#[test]
fn a_frozen_proxy_is_noticed_and_welcome_again() {
    if !world::possible() {
        return;
    }
    let world = World::with(
        true,
        &world::service("shop/web", &[super::PORT]),
        &[HEARTBEAT],
    );
    let pod = world.idle("shop/web-0");
    let connected = || {
        let status = world.status();
        let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
        proxies.iter().any(|it| it["pod"] == "shop/web-0")
    };
    let proxy = pod.proxy();
    wait::prompt(ms(2000), || {
        wait::until("the proxy's stream", || connected().then_some(()));
        let began = Instant::now();
        kill(proxy, Signal::SIGSTOP).unwrap();
        wait::until("the frozen proxy to be missed", || {
            (!connected()).then_some(())
        });
        let took = began.elapsed();
        kill(proxy, Signal::SIGCONT).unwrap();
        took
    });
    wait::until("the proxy's stream again", || connected().then_some(()));
}
