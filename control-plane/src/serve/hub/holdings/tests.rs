use rustls_pki_types::CertificateDer;
use tokio::time::{Duration, advance};

use super::*;
use crate::{
    index::Index,
    model::{Event, Name, Object},
    serve::{
        hub::{Certified, Following},
        metrics::Metrics,
    },
};

const NOW: u64 = 1000;

fn root(name: &str) -> Fingerprint {
    Fingerprint::of(&CertificateDer::from(name.as_bytes().to_vec()))
}

fn signed(issued: u64, name: &str) -> Signed {
    let root = root(name);
    Signed { issued, root }
}

fn cart() -> Name {
    Name::new("shop", "cart-0")
}

/// A mesh of one pod, that has no stream here.
fn state() -> State {
    let roots = ["old", "new"].map(|it| CertificateDer::from(it.as_bytes().to_vec()));
    let mut state = State::new(
        Index::new(&[]),
        "cluster.local",
        roots.into(),
        Metrics::new(),
    );
    let pod = Pod {
        name: cart(),
        uid: "uid".to_owned(),
        injected: Some(true),
        ..Pod::default()
    };
    state.apply(vec![Event::Apply(Object::Pod(pod))]);
    state.synced();
    state.set_signer(root("new"));
    state
}

/// Where the pod has a stream that shows this.
fn watching(bundle: &[&str], leaf: Signed, uid: &str) -> Summary {
    let stream = Watching {
        leaf,
        holds_newest: true,
        workload: Following::Applied,
    };
    let known = Known {
        uid: uid.to_owned(),
        stream: Some(stream),
        issued: None,
    };
    Summary {
        bundle: bundle.iter().map(|it| root(it)).collect(),
        signer: Some(root("new")),
        pods: [(cart(), known)].into(),
        ..Summary::default()
    }
}

fn issue(state: &mut State, issued: u64, name: &str) {
    let certified = Certified {
        identity: String::new(),
        issued,
        expires: NOW + 1,
        root: root(name),
    };
    state.certified(cart(), certified);
}

/// Of the pod, over the replicas that have told.
fn of_cart(state: &State, others: &[&str]) -> Holding {
    let others: Vec<_> = others.iter().map(|it| (*it).to_owned()).collect();
    let all = state.holdings("a", &others, NOW).unwrap();
    all.into_iter().find(|it| it.name == "shop/cart-0").unwrap()
}

fn sorted(names: &[&str]) -> Vec<Fingerprint> {
    let mut all: Vec<_> = names.iter().map(|it| root(it)).collect();
    all.sort_unstable();
    all
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_was_issued_may_not_have_arrived() {
    let mut state = state();
    issue(&mut state, 5, "new");
    let unseen = of_cart(&state, &[]);
    assert_eq!((unseen.holds, unseen.leaves), (vec![], vec![]));
    let shown = watching(&["old", "new"], signed(4, "old"), "uid");
    state.reported("b", 1, Some(shown));
    let both = of_cart(&state, &["b"]);
    assert_eq!(both.leaves, sorted(&["old", "new"]));
    assert_eq!(both.holds.len(), 2);
    // Now it shows it.
    let shown = watching(&["old", "new"], signed(5, "new"), "uid");
    state.reported("b", 2, Some(shown));
    assert_eq!(of_cart(&state, &["b"]).leaves, sorted(&["new"]));
    // A replica that lags has signed another since.
    issue(&mut state, 6, "old");
    assert_eq!(of_cart(&state, &["b"]).leaves, sorted(&["old", "new"]));
}

#[tokio::test(start_paused = true)]
async fn of_a_pod_with_two_streams_both_count() {
    let mut state = state();
    state.reported("b", 1, Some(watching(&["old"], signed(4, "old"), "uid")));
    let other = watching(&["old", "new"], signed(5, "new"), "uid");
    state.reported("c", 1, Some(other));
    let seen = of_cart(&state, &["b", "c"]);
    assert_eq!(seen.holds, [root("old")]);
    assert_eq!(seen.leaves, sorted(&["old", "new"]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_took_the_name_of_another_is_not_that() {
    let mut state = state();
    let former = watching(&["old", "new"], signed(4, "new"), "another");
    state.reported("b", 1, Some(former));
    assert!(of_cart(&state, &["b"]).leaves.is_empty());
}

#[tokio::test(start_paused = true)]
async fn replicas_are_among_those_who_hold_and_sign() {
    let mut state = state();
    let told = watching(&["old"], signed(4, "old"), "uid");
    state.reported("b", 1, Some(told));
    let all = state.holdings("a", &["b".to_owned()], NOW).unwrap();
    let replica = |name: &str, bundle: &[&str]| Holding {
        name: format!("replica {name}"),
        holds: bundle.iter().map(|it| root(it)).collect(),
        leaves: vec![root("new")],
    };
    assert!(all.contains(&replica("a", &["old", "new"])), "{all:?}");
    assert!(all.contains(&replica("b", &["old"])), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_not_told_lately_makes_the_view_unknown() {
    let mut state = state();
    let others = ["b".to_owned()];
    let unseen = |state: &State| state.holdings("a", &others, NOW).err();
    let silent = Some(Unseen::Replica("b".to_owned()));
    assert_eq!(unseen(&state), silent);
    let told = watching(&["old"], signed(4, "old"), "uid");
    assert!(state.reported("b", 1, Some(told)));
    assert_eq!(unseen(&state), None);
    advance(Duration::from_secs(14)).await;
    assert!(state.reported("b", 1, None));
    advance(Duration::from_secs(14)).await;
    assert_eq!(unseen(&state), None);
    assert!(
        !state.reported("b", 2, None),
        "another version is not known"
    );
    advance(Duration::from_secs(1)).await;
    assert_eq!(unseen(&state), silent);
    // What ended and came back has to tell anew.
    state.expect_replicas(&[]);
    assert!(!state.reported("b", 1, None));
}
