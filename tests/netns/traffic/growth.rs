//! Nothing grows with the number of requests: memory, descriptors, threads.

use std::{fs, time::Duration};

use nix::unistd::Pid;
use weft_tests::{
    traffic::{self, Load},
    wait,
    world::{self, Pod},
};

use super::{Shop, named};

fn count(pid: Pid, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}"))
        .map(Iterator::count)
        .unwrap_or_default()
}

/// Descriptors and threads of a pod's proxy, and its open connections.
fn size(pod: &Pod) -> (usize, usize, f64) {
    let metrics = pod.metrics();
    let open = metrics.sum("weft_connections_outbound_open", &[])
        + metrics.sum("weft_connections_inbound_open", &[]);
    let pid = pod.proxy();
    (count(pid, "fd"), count(pid, "task"), open)
}

#[test]
fn ten_thousand_requests_leave_a_proxy_as_it_was() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let shop = Shop::with("", &[("WEFT_WORKERS", workers)], (0..2).map(named));
        let mut plan = Load::new(shop.web());
        (plan.connections, plan.requests, plan.think) = (16, Some(60), Duration::ZERO);
        // Pools fill and caches grow, by what happens to be in flight at once:
        // for a round or two. What grows with the requests grows each time.
        traffic::load(&shop.client, &plan).assert_flawless();
        plan.requests = Some(625);
        let pods = [&shop.client, &shop.pods[0]];
        let mut grown = Vec::new();
        let is_steady = (0..4).any(|_| {
            let before = pods.map(|pod| (size(pod), pod.proxy_memory()));
            traffic::load(&shop.client, &plan).assert_flawless();
            let grows: Vec<_> = pods
                .into_iter()
                .zip(before)
                .filter_map(|(pod, before)| growth(pod, before))
                .collect();
            let is_steady = grows.is_empty();
            grown.extend(grows);
            is_steady
        });
        assert!(is_steady, "{workers} workers: {grown:?}");
    }
}

/// What a pod's proxy has more than before, for people; `None`: nothing.
fn growth(pod: &Pod, ((fds, threads, _), memory): ((usize, usize, f64), u64)) -> Option<String> {
    let is_back = wait::within(Duration::from_secs(5), || {
        let after = size(pod);
        (after.0 <= fds + 16 && after.1 <= threads).then_some(())
    });
    if is_back.is_none() {
        let after = size(pod);
        return Some(format!("{}: {fds} {threads} became {after:?}", pod.name()));
    }
    let more = pod.proxy_memory().saturating_sub(memory);
    (more >= 1 << 20).then(|| format!("{}: {more} bytes more", pod.name()))
}
