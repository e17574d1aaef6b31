use serde_json::Value;

use super::*;
use crate::{
    clock::Wall,
    cluster::{authority::made_secret, fake::Fake, lease},
    index::Index,
    model::{Event, Name, Object},
    runtime::{self, Task},
    serve::{hub::State, metrics::Metrics},
};

const DOMAIN: &str = "cluster.local";
const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const LIFETIME: Duration = Duration::from_secs(60);
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

/// When the last leaf of today will have expired.
const UNTIL: Duration = Duration::from_secs(1_800_000_000);

fn after(content: &Content, step: &Step, made: Option<&Made>) -> Content {
    read(&super::after(content, step, made, UNTIL))
}

#[test]
fn the_steps_of_a_rotation_leave_secrets_that_the_next_one_reads() {
    let (first, second) = (made(), made());
    let settled = read(&asked(made_secret("weft-ca", &first), "1"));
    let roots = fingerprints(&settled.roots);
    assert_eq!(facts(&settled).settled, roots);
    assert_eq!(facts(&settled).asked.as_deref(), Some("1"));

    let begun = after(&settled, &Step::Begin, Some(&second));
    let new = facts(&begun).next.unwrap();
    assert_eq!(facts(&begun).given, [roots[0], new]);
    assert_eq!(facts(&begun).served.as_deref(), Some("1"));
    assert_eq!(begun.signing.fingerprint(), roots[0]);

    let spread = after(&begun, &Step::Settle(vec![new]), None);
    let promoted = after(&spread, &Step::Promote, None);
    assert_eq!(promoted.signing.fingerprint(), new);
    assert_eq!(facts(&promoted).given, [new]);
    assert_eq!(facts(&promoted).next, None);
    assert_eq!(facts(&promoted).outlived, None);
    assert_eq!(promoted.in_force(&[]).len(), 2);
    let keys = promoted.secret.data.as_ref().unwrap();
    assert_eq!(
        keys.keys().collect::<Vec<_>>(),
        ["ca.crt", "tls.crt", "tls.key"]
    );

    let retired = after(&promoted, &Step::Retire(roots.clone()), None);
    let outlived = facts(&retired).outlived;
    assert_eq!(outlived, Some((roots.clone(), UNTIL)));
    let removed = after(&retired, &Step::Remove(roots), None);
    assert_eq!(fingerprints(&removed.in_force(&[])), [new]);
    assert_eq!(facts(&removed).outlived, None);
    let said = annotation(&removed.secret, ROTATION).unwrap();
    assert!(said.starts_with("done"), "{said}");
}

#[test]
fn a_refusal_is_said_and_changes_nothing_else() {
    let content = read(&asked(made_secret("weft-ca", &made()), "1"));
    let refused = after(&content, &Step::Refuse("not ours"), None).secret;
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
    clock: Wall,
    _tasks: Vec<Task>,
}

fn keeper(fake: &Fake, clock: Wall) -> Keeper {
    Keeper {
        cluster: fake.cluster(),
        secret: "weft-ca".to_owned(),
        is_given: false,
        trust_domain: DOMAIN.to_owned(),
        clock,
    }
}

/// What `app` does for the hub of a control plane.
async fn hand_on(
    hub: Hub,
    authority: Arc<crate::ca::Authority>,
    mut roots: watch::Receiver<crate::ca::bundle::Roots>,
) {
    let mut signing = authority.changes();
    loop {
        let (root, all) = (
            signing.borrow_and_update().fingerprint(),
            roots.borrow_and_update().clone(),
        );
        let told = hub.ask(move |state| {
            state.set_signer(root);
            state.set_roots(all);
        });
        told.await.unwrap();
        tokio::select! {
            changed = signing.changed() => changed.unwrap(),
            changed = roots.changed() => if changed.is_err() { return },
        }
    }
}

async fn stage() -> Stage {
    let fake = Fake::default();
    fake.put(
        PODS,
        serde_json::json!({"metadata": {}, "items": [{"metadata": {"name": "replica-0"}}]}),
    );
    // Follows the paused clock, so that leaves expire.
    let clock = Wall::fixed(Wall::System.now());
    let (opened, signing) = Box::pin(keeper(&fake, clock).open()).await.unwrap();
    let (roots, roots_out) = watch::channel(opened.in_force(&[]));
    let state = State::new(
        Index::new(&[]),
        DOMAIN,
        roots.borrow().clone(),
        Metrics::new(),
    );
    let (hub, run) = Hub::new(state);
    let authority = Arc::new(crate::ca::Authority::new(signing, DOMAIN, LIFETIME, clock));
    let (content, followed) = watch::channel(Some(Arc::new(opened)));
    let followers = crate::cluster::authority::Followers {
        authority: authority.clone(),
        roots,
        content,
        metrics: crate::cluster::metrics::Metrics::default(),
    };
    let rotation = Rotation {
        keeper: keeper(&fake, clock),
        hub: hub.clone(),
        content: followed,
        holds: watch::channel(true).1,
        lifetime: LIFETIME,
    };
    let follow = keeper(&fake, clock).follow(followers, |_| {});
    let tasks = vec![
        runtime::spawn(run),
        runtime::spawn(hand_on(hub.clone(), authority, roots_out)),
        runtime::spawn(follow),
        runtime::spawn(rotation.run_held()),
    ];
    Stage {
        fake,
        hub,
        clock,
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
async fn without_pods_a_rotation_runs_to_its_end_once_the_old_leaves_have_expired() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    let before = stage.fake.object(PATH).unwrap()["data"].clone();
    let begun = Instant::now();
    stage.ask("1");
    stage.until_said("waits until").await;
    assert_eq!(stage.settled(), 2);
    stage.until_said("done").await;
    assert!(begun.elapsed() >= LIFETIME, "{:?}", begun.elapsed());
    let after = stage.fake.object(PATH).unwrap()["data"].clone();
    assert_ne!(before["tls.key"], after["tls.key"]);
    assert_eq!(after["tls.crt"], after["ca.crt"]);
    assert_eq!(stage.settled(), 1);
    // What a replica that starts would go on with, and what tells that there was one.
    sleep(AGAIN * 2).await;
    let kept = stage.fake.object(&format!("{PATH}-settled")).unwrap()["data"].clone();
    assert_eq!(kept["tls.key"], after["tls.key"]);
    assert_eq!(kept["ca.crt"], after["ca.crt"]);
    let marker = lease::marker(&stage.fake.cluster()).await;
    let (opened, _) = keeper(&stage.fake, stage.clock).open().await.unwrap();
    let root = opened.signing.fingerprint().to_string();
    assert_eq!(marker.unwrap(), Some(root));
}

fn pod(name: &Name) -> Event {
    Event::Apply(Object::Pod(crate::model::Pod {
        name: name.clone(),
        injected: Some(true),
        ..crate::model::Pod::default()
    }))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_holds_nothing_stops_a_rotation_by_its_name() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    let name = Name::new("shop", "cart-0");
    let apply = move |state: &mut State| state.apply(vec![pod(&name)]);
    stage.hub.ask(apply).await.unwrap();
    stage.ask("1");
    stage
        .until_said("waits for 1 of 2 proxies and replicas to hold the new root")
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
async fn with_another_replica_a_rotation_waits_until_that_has_told_and_then_goes_on() {
    let stage = stage().await;
    stage.hub.ask(State::synced).await.unwrap();
    stage.fake.put(
        PODS,
        serde_json::json!({"metadata": {}, "items": [
        {"metadata": {"name": "replica-0"}}, {"metadata": {"name": "replica-1"}},
        {"metadata": {"name": "replica-2"}, "status": {"phase": "Succeeded"}},
        {"metadata": {"name": "replica-3"}, "status": {"phase": "Pending"}}]}),
    );
    stage.ask("1");
    stage
        .until_said("replica replica-1 has not told what its proxies hold")
        .await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(stage.settled(), 1);
    // It knows and holds what this one does.
    let (hub, clock) = (stage.hub.clone(), stage.clock);
    let _telling = runtime::spawn(async move {
        for version in 1.. {
            let seconds = clock.seconds();
            let told = hub.ask(move |state| {
                let own = state.summary(seconds);
                state.reported("replica-1", version, own)
            });
            assert!(told.await.unwrap());
            sleep(Duration::from_secs(1)).await;
        }
    });
    stage.until_said("done").await;
    assert_eq!(stage.settled(), 1);
}

#[tokio::test(start_paused = true)]
async fn counts_are_said_now_and_then_and_another_phase_at_once() {
    let fake = Fake::default();
    let keeper = keeper(&fake, Wall::System);
    let (content, _) = keeper.open().await.unwrap();
    let state = State::new(Index::new(&[]), DOMAIN, [].into(), Metrics::new());
    let rotation = Rotation {
        keeper,
        hub: Hub::new(state).0,
        content: watch::channel(None).1,
        holds: watch::channel(true).1,
        lifetime: LIFETIME,
    };
    let (mut done, before) = (Done::default(), fake.count(PATH));
    let mut said = async |phase, why| {
        let said = rotation.say(&content, phase, why, &mut done);
        said.await.unwrap();
        fake.count(PATH) - before
    };
    assert_eq!(said(Phase::Spread, "9 left").await, 1);
    assert_eq!(said(Phase::Spread, "8 left").await, 1);
    assert_eq!(said(Phase::Renew, "9 left").await, 2);
    sleep(SAY).await;
    assert_eq!(said(Phase::Renew, "7 left").await, 3);
}
