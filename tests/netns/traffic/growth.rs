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
        // Pools fill and caches grow once.
        traffic::load(&shop.client, &plan).assert_flawless();
        let pods = [&shop.client, &shop.pods[0]];
        let before = pods.map(|pod| (size(pod), pod.proxy_memory()));
        plan.requests = Some(625);
        traffic::load(&shop.client, &plan).assert_flawless();
        for (pod, ((fds, threads, _), memory)) in pods.into_iter().zip(before) {
            // Pools may still grow by what happens to be in flight at once.
            let after = wait::within(Duration::from_secs(5), || {
                let after = size(pod);
                (after.0 <= fds + 16 && after.1 <= threads).then_some(after)
            });
            assert!(
                after.is_some(),
                "{workers} workers, {}: {fds} {threads} became {:?}",
                pod.name(),
                size(pod)
            );
            let grown = pod.proxy_memory().saturating_sub(memory);
            assert!(
                grown < 1 << 20,
                "{workers} workers, {}: {grown} bytes more",
                pod.name()
            );
        }
    }
}
