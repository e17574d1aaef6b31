//! What a control plane needs for a large cluster: 10,000 Services and 100,000
//! endpoints, read by the program that `make programs` builds, in a process of
//! its own.
//!
//! Bounds hold on a loaded machine too: memory and processor time are the
//! process's own, and the only time on a clock that counts is printed, not
//! judged. The fake API server has its answers ready.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![allow(clippy::print_stdout, reason = "it tells what it measured")]

mod cluster;
mod objects;
mod plane;
mod subscriber;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use cluster::{Cluster, Lists};
use objects::{ENDPOINTS, Pods, cluster_ip, pod_name, slice, team};
use plane::Plane;
use subscriber::Subscriber;

/// Of the process, at its largest.
const MOST_BYTES: u64 = 400_000_000;
/// To read a cluster from nothing, where no pod has a proxy.
const MOST_TIME: Duration = Duration::from_secs(5);
/// Where every pod has one, and is read whole.
const MOST_TIME_WITH_PODS: Duration = Duration::from_secs(20);
/// For one endpoint's change, whatever else there is. Looking at each of the
/// others once would take many times as long.
const MOST_TIME_OF_A_CHANGE: Duration = Duration::from_millis(2);
const CHANGES: u32 = 200;

/// They measure; two at once would measure each other.
static ONE: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "long, and needs a gigabyte: make test FULL=1"]
fn a_large_cluster_full_of_proxies_is_read_from_a_stream_within_bounds() {
    measure(Pods::Meshed, Lists::Streamed);
}

#[test]
#[ignore = "long, and needs a gigabyte: make test FULL=1"]
fn a_large_cluster_full_of_proxies_is_read_in_pages_within_bounds() {
    measure(Pods::Meshed, Lists::Paged);
}

#[test]
#[ignore = "long, and needs a gigabyte: make test FULL=1"]
fn a_large_cluster_without_proxies_is_read_within_bounds() {
    measure(Pods::Plain, Lists::Streamed);
}

fn measure(pods: Pods, lists: Lists) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(pods, lists));
    let since = Instant::now();
    let mut plane = Plane::start(cluster.address);
    plane.wait_until_ready();
    let (took, busy, (now, _)) = (since.elapsed(), plane.processor_time(), plane.memory());
    println!(
        "{pods:?}, {lists:?}: {} MB of objects read and joined in {took:.1?}, {busy:.1?} of processor; then {} MB",
        cluster.size() / 1_000_000,
        now / 1_000_000
    );
    if pods == Pods::Meshed {
        let each = runtime.block_on(change(&cluster, &plane));
        assert!(
            each <= MOST_TIME_OF_A_CHANGE,
            "{each:?} of processor for a change"
        );
    }
    let (now, most) = plane.memory();
    println!(
        "at last {} MB, at most {} MB",
        now / 1_000_000,
        most / 1_000_000
    );
    let bound = match pods {
        Pods::Meshed => MOST_TIME_WITH_PODS,
        Pods::Plain => MOST_TIME,
    };
    assert!(busy <= bound, "{busy:?} of processor");
    assert!(most <= MOST_BYTES, "{most} bytes");
}

/// One endpoint goes and comes back; how long each change kept the control
/// plane busy until a proxy that asked for its Service had it.
async fn change(cluster: &Cluster, plane: &Plane) -> Duration {
    const SERVICE: usize = 4_711;
    let (namespace, pod) = (team(SERVICE), pod_name(SERVICE, 0));
    let starting = Subscriber::start(plane.listen, plane.directory(), &namespace, &pod);
    let mut subscriber = Box::pin(starting).await;
    let address = format!("{}:80", cluster_ip(SERVICE));
    subscriber.subscribe(&address).await;
    let first = subscriber.endpoints().await;
    assert_eq!(first.added_or_updated.len(), ENDPOINTS);
    let before = plane.processor_time();
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let unready = (round % 2 == 0).then_some(3);
        let version = 2 + usize::try_from(round).unwrap();
        let since = Instant::now();
        cluster.change("endpointslices", &slice(SERVICE, version, unready));
        let told = subscriber.endpoints().await;
        times.push(since.elapsed());
        let (put, removed) = (told.added_or_updated.len(), told.removed.len());
        let expected = if unready.is_some() { (0, 1) } else { (1, 0) };
        assert!(!told.whole && (put, removed) == expected, "{told:?}");
    }
    times.sort_unstable();
    let each = (plane.processor_time() - before) / CHANGES;
    println!(
        "one endpoint's change was told after {:.1?} (half of {CHANGES}), {:.1?} (all but 1 of 100), {each:.1?} of processor each",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    each
}
