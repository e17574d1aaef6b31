//! What replicas tell each other, over TLS.

use std::sync::Arc;

use tonic::Code;
use weft_proto::v1::{ReportRequest, replicas_client::ReplicasClient};

use crate::{
    roots::Fingerprint,
    serve::{
        hub::Summary,
        replicas::caller::{Caller, Untold},
        tests::harness::*,
        tls::Tls,
    },
};

/// As another replica of this mesh calls.
async fn caller(plane: &Plane) -> Result<Caller, Untold> {
    let tls = tls_of(&plane.authority, &[plane.authority.root()].into());
    Caller::dial(plane.address, &tls).await
}

fn summary(plane: &Plane) -> Arc<Summary> {
    Arc::new(Summary {
        bundle: vec![Fingerprint::of(&plane.authority.root())],
        ..Summary::default()
    })
}

#[tokio::test]
async fn a_replica_tells_whole_and_then_by_version_until_it_is_forgotten() {
    let plane = Plane::with_shop(QUIET).await;
    let mut caller = caller(&plane).await.unwrap();
    let told = summary(&plane);
    assert!(!caller.report("b", 1, None).await.unwrap());
    assert!(caller.report("b", 1, Some(&told)).await.unwrap());
    assert!(caller.report("b", 1, None).await.unwrap());
    let others = ["b".to_owned()];
    let view = plane.hub.ask(move |state| state.holdings("a", &others, 0));
    let view = view.await.unwrap().unwrap();
    let other = view.iter().find(|it| it.name == "replica b").unwrap();
    assert_eq!(other.holds, told.bundle);
    let ended = plane.hub.ask(|state| state.expect_replicas(&[]));
    ended.await.unwrap();
    assert!(!caller.report("b", 1, None).await.unwrap());
}

#[tokio::test]
async fn who_does_not_hold_the_lease_takes_no_reports() {
    let plane = Plane::start(QUIET).await;
    let mut caller = caller(&plane).await.unwrap();
    plane.holds.send_replace(false);
    let refused = caller.report("b", 1, None).await.unwrap_err();
    assert!(refused.to_string().contains("holds the Lease"), "{refused}");
}

#[tokio::test]
async fn a_workload_and_who_shows_nothing_may_not_report() {
    let plane = Plane::start(QUIET).await;
    for (credentials, code) in [
        (Some(plane.credentials("cart")), Code::PermissionDenied),
        (None, Code::Unauthenticated),
    ] {
        let channel = plane.connect(credentials).await.unwrap();
        let request = ReportRequest {
            replica: "b".to_owned(),
            ..ReportRequest::default()
        };
        let refused = ReplicasClient::new(channel).report(request).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_report_under_a_root_that_has_gone_is_refused_on_an_open_connection() {
    let plane = Plane::start(QUIET).await;
    let mut caller = caller(&plane).await.unwrap();
    caller.report("b", 1, None).await.unwrap();
    let (_directory, other) = authority();
    plane
        .tls
        .send_replace(tls_of(&other, &[other.root()].into()));
    let refused = caller.report("b", 1, None).await;
    assert!(matches!(refused, Err(Untold::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_replica_tells_nobody_but_the_control_plane() {
    let plane = Plane::start(QUIET).await;
    let workload = plane.credentials("cart");
    let roots = [plane.authority.root()];
    let posing = Tls::new(workload.chain, workload.key, &roots, DOMAIN).unwrap();
    plane.tls.send_replace(Arc::new(posing));
    let refused = caller(&plane).await;
    assert!(matches!(refused, Err(Untold::Connection(_))), "{refused:?}");
}
