use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    cluster::fake::Fake,
    index::Index,
    runtime::{self, Task},
    serve::{
        hub::State,
        metrics::Metrics as ServeMetrics,
        tests::harness::{DOMAIN, Plane, QUIET, eventually, tls_of},
    },
};

const PODS: &str = "/api/v1/namespaces/weft-system/pods";

fn hub(roots: crate::ca::bundle::Roots) -> (Hub, Task) {
    let mut state = State::new(Index::new(&[]), DOMAIN, roots, ServeMetrics::new());
    state.synced();
    let (hub, run) = Hub::new(state);
    (hub, runtime::spawn(run))
}

#[tokio::test]
async fn those_whose_pods_have_ended_or_not_begun_are_not_waited_for() {
    let fake = Fake::default();
    let pod = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase, "podIP": "10.0.0.7"}});
    let all = [
        pod("replica-0", "Running"),
        pod("replica-1", "Running"),
        pod("replica-2", "Succeeded"),
        pod("replica-3", "Failed"),
        pod("replica-4", "Pending"),
        pod("replica-5", "Unknown"),
    ];
    fake.put(PODS, json!({"metadata": {}, "items": all}));
    let found = others(&fake.cluster()).await.unwrap();
    let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["replica-1", "replica-5"]);
    assert_eq!(found[0].address, Some([10, 0, 0, 7].into()));
}

#[tokio::test]
async fn a_replica_finds_the_holder_and_tells_it_and_whole_again_when_that_has_forgotten() {
    let plane = Plane::with_shop(QUIET).await;
    let roots: crate::ca::bundle::Roots = [plane.authority.root()].into();
    let fake = Fake::default();
    let holder = json!({"metadata": {"name": "holder"}, "status": {"phase": "Running", "podIP": "127.0.0.1"}});
    fake.put(PODS, json!({"metadata": {}, "items": [holder]}));
    let (hub, _hub) = hub(roots.clone());
    let (holds, held) = watch::channel(false);
    let (tls, own) = watch::channel(tls_of(&plane.authority, &roots));
    let replicas = Replicas {
        cluster: fake.named("replica-1"),
        hub,
        clock: Wall::System,
        holds: held,
        holder: watch::channel(Some("holder".to_owned())).1,
        tls: own,
        port: plane.address.port(),
        metrics: Metrics::default(),
    };
    let _running = runtime::spawn(replicas.run());
    let is_heard = async || {
        let others = ["replica-1".to_owned()];
        let asked = plane
            .hub
            .ask(move |state| state.holdings("holder", &others, 0));
        asked.await.unwrap().is_ok()
    };
    eventually(is_heard).await;
    let forgotten = plane.hub.ask(|state| state.expect_replicas(&[]));
    forgotten.await.unwrap();
    eventually(is_heard).await;
    // With another certificate, too.
    let forgotten = plane.hub.ask(|state| state.expect_replicas(&[]));
    forgotten.await.unwrap();
    tls.send_replace(tls_of(&plane.authority, &roots));
    eventually(is_heard).await;
    drop(holds);
}

#[tokio::test(start_paused = true)]
async fn the_holder_misses_who_stays_silent_and_forgets_all_when_it_is_no_longer_the_one() {
    let fake = Fake::default();
    fake.put(
        PODS,
        json!({"metadata": {}, "items": [{"metadata": {"name": "replica-1"}}]}),
    );
    let plane = crate::serve::tests::harness::authority();
    let roots: crate::ca::bundle::Roots = [plane.1.root()].into();
    let (hub, _hub) = hub(roots.clone());
    let (holds, held) = watch::channel(true);
    let metrics = Metrics::default();
    let replicas = Replicas {
        cluster: fake.cluster(),
        hub: hub.clone(),
        clock: Wall::System,
        holds: held,
        holder: watch::channel(None).1,
        tls: watch::channel(tls_of(&plane.1, &roots)).1,
        port: 1,
        metrics: metrics.clone(),
    };
    let begun = Instant::now();
    let _running = runtime::spawn(replicas.run());
    while metrics.silent_replicas.get() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(30));
    holds.send_replace(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(metrics.silent_replicas.get(), 0);
}
