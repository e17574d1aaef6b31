use serde_json::Value;

use super::*;
use crate::{
    clock::Wall,
    cluster::{authority::made_secret, fake::Fake},
    index::Index,
    model::{Event, Name, Object},
    runtime::{self, Task},
    serve::{
        hub::{Certified, State},
        metrics::Metrics,
    },
};

const DOMAIN: &str = "cluster.local";
const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const PODS: &str = "/api/v1/namespaces/weft-system/pods";

fn made() -> Made {
    signing::make(DOMAIN, Wall::System).unwrap()
}

fn read(secret: &Secret) -> Content {
    Content::read(secret, DOMAIN, Wall::System).unwrap()
}

fn asked(mut secret: Secret, nonce: &str) -> Secret {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ROTATE.to_owned(), nonce.to_owned());
    secret
}

#[test]
fn the_steps_of_a_rotation_leave_secrets_that_the_next_one_reads() {
    let (first, second) = (made(), made());
    let old = read(&asked(made_secret("weft-ca", &first), "1"));
    let roots = fingerprints(&old.roots);
    let settled = read(&after(&old, &Step::Settle(roots.clone()), None));
    assert_eq!(facts(&settled).settled, roots);
    assert_eq!(facts(&settled).asked.as_deref(), Some("1"));

    let begun = read(&after(&settled, &Step::Begin, Some(&second)));
    let new = facts(&begun).next.unwrap();
    assert_eq!(facts(&begun).given, [roots[0], new]);
    assert_eq!(facts(&begun).served.as_deref(), Some("1"));
    assert_eq!(begun.signing.fingerprint(), roots[0]);

    let spread = read(&after(&begun, &Step::Settle(vec![new]), None));
    let promoted = read(&after(&spread, &Step::Promote, None));
    assert_eq!(promoted.signing.fingerprint(), new);
    assert_eq!(facts(&promoted).given, [new]);
    assert_eq!(facts(&promoted).next, None);
    assert_eq!(promoted.in_force(&[]).len(), 2);
    let keys = promoted.secret.data.as_ref().unwrap();
    assert_eq!(
        keys.keys().collect::<Vec<_>>(),
        ["ca.crt", "tls.crt", "tls.key"]
    );

    let removed = read(&after(&promoted, &Step::Remove(roots), None));
    assert_eq!(fingerprints(&removed.in_force(&[])), [new]);
    let said = annotation(&removed.secret, ROTATION).unwrap();
    assert!(said.starts_with("done"), "{said}");
}

#[test]
fn a_refusal_is_said_and_changes_nothing_else() {
    let content = read(&asked(made_secret("weft-ca", &made()), "1"));
    let refused = after(&content, &Step::Refuse("not ours"), None);
    assert_eq!(refused.data, content.secret.data);
    assert_eq!(annotation(&refused, ROTATED).as_deref(), Some("1"));
    assert_eq!(
        annotation(&refused, ROTATION).as_deref(),
        Some("refused: not ours")
    );
}

/// A holder over a fake API server and a real hub, whose one pod is played here.
struct Stage {
    fake: Fake,
    hub: Hub,
    _tasks: Vec<Task>,
}

fn keeper(fake: &Fake) -> Keeper {
    Keeper {
        cluster: fake.cluster(),
        secret: "weft-ca".to_owned(),
        is_given: false,
        trust_domain: DOMAIN.to_owned(),
        clock: Wall::System,
    }
}

async fn stage() -> Stage {
    let fake = Fake::default();
    fake.put(
        PODS,
        serde_json::json!({"metadata": {}, "items": [{"metadata": {"name": "replica-0"}}]}),
    );
    let opened = Box::pin(keeper(&fake).open()).await.unwrap();
    let (roots, _) = watch::channel(opened.in_force(&[]));
    let state = State::new(
        Index::new(&[]),
        DOMAIN,
        roots.borrow().clone(),
        Metrics::new(),
    );
    let (hub, run) = Hub::new(state);
    let authority = crate::ca::Authority::new(
        opened.signing.clone(),
        DOMAIN,
        Duration::from_secs(60),
        Wall::System,
    );
    let (content, followed) = watch::channel(Some(Arc::new(opened)));
    let followers = crate::cluster::authority::Followers {
        authority: Arc::new(authority),
        roots,
        content,
        metrics: crate::cluster::metrics::Metrics::default(),
    };
    let rotation = Rotation {
        keeper: keeper(&fake),
        hub: hub.clone(),
        content: followed,
        holds: watch::channel(true).1,
    };
    let follow = keeper(&fake).follow(followers, |_| {});
    let tasks = vec![
        runtime::spawn(run),
        runtime::spawn(follow),
        runtime::spawn(rotation.run_held()),
    ];
    Stage {
        fake,
        hub,
        _tasks: tasks,
    }
}

impl Rotation {
    /// With a Lease that is never lost.
    async fn run_held(mut self) {
        let (holds, held) = watch::channel(true);
        self.holds = held;
        Box::pin(self.run()).await;
        drop(holds);
    }
}

impl Stage {
    fn said(&self) -> String {
        let secret = self.fake.object(PATH).unwrap_or_default();
        let said = &secret["metadata"]["annotations"][ROTATION];
        said.as_str().unwrap_or_default().to_owned()
    }

    async fn until_said(&self, what: &str) {
        for _ in 0..10_000 {
            if self.said().contains(what) {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
        panic!("{what}: {}", self.said());
    }

    fn ask(&self, nonce: &str) {
        let mut secret = self.fake.object(PATH).unwrap();
        secret["metadata"]["annotations"][ROTATE] = Value::from(nonce);
        self.fake.put(PATH, secret);
    }

    fn settled(&self) -> usize {
        let secret = self.fake.object(PATH).unwrap();
        let settled = &secret["metadata"]["annotations"][SETTLED];
        settled
            .as_str()
            .unwrap_or_default()
            .matches("BEGIN")
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn without_pods_a_rotation_runs_to_its_end_by_itself() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    stage.until_said("every proxy holds").await;
    let before = stage.fake.object(PATH).unwrap()["data"].clone();
    stage.ask("1");
    stage.until_said("done").await;
    let after = stage.fake.object(PATH).unwrap()["data"].clone();
    assert_ne!(before["tls.key"], after["tls.key"]);
    assert_eq!(after["tls.crt"], after["ca.crt"]);
    assert_eq!(stage.settled(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_holds_nothing_stops_a_rotation_by_its_name() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    stage.until_said("every proxy holds").await;
    let pod = crate::model::Pod {
        name: Name::new("shop", "cart-0"),
        inject: Some(true),
        ..crate::model::Pod::default()
    };
    let apply = move |state: &mut State| state.apply(vec![Event::Apply(Object::Pod(pod))]);
    stage.hub.ask(apply).await.unwrap();
    stage.ask("1");
    stage
        .until_said("waits for 1 of 1 proxies to hold the new root")
        .await;
    assert!(stage.said().ends_with("shop/cart-0"), "{}", stage.said());
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(stage.settled(), 1);
    assert!(
        stage.fake.object(PATH).unwrap()["data"]
            .get("next.key")
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn another_replica_makes_the_view_unknown() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    stage.until_said("every proxy holds").await;
    stage.fake.put(
        PODS,
        serde_json::json!({"metadata": {}, "items": [
        {"metadata": {"name": "replica-0"}}, {"metadata": {"name": "replica-1"}},
        {"metadata": {"name": "replica-2"}, "status": {"phase": "Succeeded"}}]}),
    );
    stage.ask("1");
    stage
        .until_said("replica replica-1 serves proxies of its own")
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_leaf_of_a_pod_counts() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    let name = Name::new("shop", "cart-0");
    let pod = crate::model::Pod {
        name: name.clone(),
        inject: Some(true),
        ..crate::model::Pod::default()
    };
    let root = Fingerprint::of(&CertificateDer::from(b"a root".to_vec()));
    let holdings = stage.hub.ask(move |state| {
        state.apply(vec![Event::Apply(Object::Pod(pod))]);
        let before = state.holdings().unwrap().pods;
        let certified = Certified {
            identity: String::new(),
            issued: 5,
            expires: 10,
            root,
        };
        state.certified(name, certified);
        (before, state.holdings().unwrap().pods)
    });
    let (before, after) = holdings.await.unwrap();
    assert_eq!((before[0].leaf, after[0].leaf), (None, Some(root)));
    assert!(!after[0].holds_newest);
}
