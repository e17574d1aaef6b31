use serde_json::Value;

use super::*;
use crate::{
    cluster::fake::Fake,
    runtime::{self, Task},
};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-control-plane";

fn held_by(holder: Option<&str>, seconds: Option<i32>) -> Lease {
    let mut lease = empty();
    lease.spec = Some(LeaseSpec {
        holder_identity: holder.map(ToOwned::to_owned),
        lease_duration_seconds: seconds,
        ..LeaseSpec::default()
    });
    lease
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_when_free_or_unchanged_for_its_whole_term() {
    let now = Instant::now() + Duration::from_secs(100);
    let ago = |seconds| now - Duration::from_secs(seconds);
    let fresh = now;
    for (lease, since, step) in [
        (None, fresh, Step::Create),
        (Some(empty()), fresh, Step::Take),
        (Some(held_by(None, Some(15))), fresh, Step::Take),
        (Some(held_by(Some(""), Some(15))), fresh, Step::Take),
        (Some(held_by(Some("me"), Some(15))), ago(60), Step::Renew),
        (Some(held_by(Some("other"), Some(15))), ago(14), Step::Wait),
        (Some(held_by(Some("other"), Some(15))), ago(15), Step::Take),
        (Some(held_by(Some("other"), Some(60))), ago(59), Step::Wait),
        // Without a term, or with nonsense for one, it is ours.
        (Some(held_by(Some("other"), None)), ago(14), Step::Wait),
        (Some(held_by(Some("other"), Some(-1))), ago(15), Step::Take),
    ] {
        let decided = decide(lease.as_ref(), "me", since, now);
        assert_eq!(decided, step, "{lease:?} since {since:?}");
    }
}

struct Candidate {
    holds: watch::Receiver<bool>,
    release: watch::Sender<bool>,
    task: Task,
}

fn candidate(fake: &Fake, name: &str) -> Candidate {
    let election = Election {
        cluster: fake.named(name),
        clock: Wall::fixed(Duration::from_secs(1_800_000_000)),
        metrics: Metrics::default(),
        holder: watch::Sender::new(None),
    };
    let (holds_in, holds) = watch::channel(false);
    let (release, released) = watch::channel(false);
    let task = runtime::spawn(election.run(holds_in, released));
    Candidate {
        holds,
        release,
        task,
    }
}

fn holder(fake: &Fake) -> Value {
    fake.object(PATH).unwrap()["spec"]["holderIdentity"].clone()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_holds_and_the_other_takes_over_at_once_when_it_is_released() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "first");
    first.holds.wait_for(|it| *it).await.unwrap();
    let mut second = candidate(&fake, "second");
    sleep(Duration::from_secs(60)).await;
    assert!(*first.holds.borrow() && !*second.holds.borrow());
    let begun = Instant::now();
    first.release.send_replace(true);
    second.holds.wait_for(|it| *it).await.unwrap();
    assert!(begun.elapsed() < 2 * RETRY, "{:?}", begun.elapsed());
    assert!(!*first.holds.borrow());
    assert_eq!(holder(&fake), "second");
    let spec = fake.object(PATH).unwrap()["spec"].clone();
    assert_eq!(spec["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_is_followed_after_its_term() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "first");
    first.holds.wait_for(|it| *it).await.unwrap();
    let mut second = candidate(&fake, "second");
    sleep(Duration::from_secs(1)).await;
    drop(first.task);
    let begun = Instant::now();
    second.holds.wait_for(|it| *it).await.unwrap();
    let waited = begun.elapsed();
    assert!(
        waited > DURATION - RETRY * 2 && waited < DURATION + RETRY * 2,
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_can_not_renew_stops_before_another_may_begin() {
    let fake = Fake::default();
    let mut first = candidate(&fake, "first");
    first.holds.wait_for(|it| *it).await.unwrap();
    fake.fail(PATH, 500);
    let begun = Instant::now();
    first.holds.wait_for(|it| !*it).await.unwrap();
    assert!(begun.elapsed() < DURATION, "{:?}", begun.elapsed());
    fake.heal();
    first.holds.wait_for(|it| *it).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_marker_survives_elections_and_is_there_before_any() {
    let fake = Fake::default();
    assert_eq!(marker(&fake.cluster()).await.unwrap(), None);
    mark(&fake.cluster(), "abc").await.unwrap();
    let mut first = candidate(&fake, "first");
    first.holds.wait_for(|it| *it).await.unwrap();
    assert_eq!(
        marker(&fake.cluster()).await.unwrap().as_deref(),
        Some("abc")
    );
    mark(&fake.cluster(), "def").await.unwrap();
    sleep(DURATION).await;
    assert!(*first.holds.borrow());
    assert_eq!(
        marker(&fake.cluster()).await.unwrap().as_deref(),
        Some("def")
    );
}
