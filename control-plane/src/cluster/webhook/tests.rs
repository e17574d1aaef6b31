use super::{content::SETTLES, *};
use crate::{
    cluster::fake::Fake,
    runtime::{self, Task},
};

const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-webhook";
const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";
const START: Duration = Duration::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn clock() -> Wall {
    Wall::fixed(START)
}

fn content(clock: Wall) -> Content {
    Content::read(&made_secret("weft-system", clock).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_renewed_at_two_thirds_of_its_life_by_steps_that_the_clock_decides() {
    let first = content(clock());
    assert_eq!(decide(&first, START), Step::Rest);
    assert_eq!(decide(&first, START + 243 * DAY), Step::Rest);
    assert_eq!(decide(&first, START + 244 * DAY), Step::Prepare);
    let later = Wall::fixed(START + 244 * DAY);
    let made = serving::make(&names("weft-system"), later).unwrap();
    let prepared = Content::read(&after(&first, Step::Prepare, Some(&made))).unwrap();
    assert_eq!(prepared.authorities.len(), 2);
    assert_eq!(prepared.serving.key.cert, first.serving.key.cert);
    let now = START + 244 * DAY;
    assert_eq!(
        decide(&prepared, now + SETTLES - Duration::from_secs(1)),
        Step::Rest
    );
    assert_eq!(decide(&prepared, now + SETTLES), Step::Promote);
    let promoted = Content::read(&after(&prepared, Step::Promote, None)).unwrap();
    assert!(promoted.next.is_none());
    assert_eq!(promoted.serving.key.cert, prepared.next.unwrap().key.cert);
    assert_eq!(decide(&promoted, now + SETTLES), Step::Rest);
    assert_eq!(decide(&promoted, now + DAY), Step::Prune);
    let pruned = Content::read(&after(&promoted, Step::Prune, None)).unwrap();
    // The newest is left.
    assert_eq!(pruned.authorities, promoted.authorities[..1]);
    assert_eq!(pruned.text, made.authority.as_bytes());
    assert_eq!(decide(&pruned, now + DAY), Step::Rest);
}

#[test]
fn each_entry_gets_the_bundle_and_keeps_the_rest() {
    let before = json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
        {"name": "a", "clientConfig": {"service": {"path": "/inject"}}, "x": 1},
        {"name": "b", "clientConfig": {"caBundle": "b2xk"}}]});
    let patch = with_bundle(&before, b"new").unwrap();
    assert_eq!(
        patch,
        json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
        {"name": "a", "clientConfig": {"service": {"path": "/inject"}, "caBundle": "bmV3"}, "x": 1},
        {"name": "b", "clientConfig": {"caBundle": "bmV3"}}]})
    );
    let mut done = before;
    done["webhooks"] = patch["webhooks"].clone();
    assert_eq!(with_bundle(&done, b"new"), None);
    assert_eq!(with_bundle(&json!({}), b"new"), None);
}

struct Kept {
    keys: Keys,
    is_known: watch::Receiver<bool>,
    holds: watch::Sender<bool>,
    _task: Task,
}

async fn keep(fake: &Fake, clock: Wall) -> Kept {
    let (keeper, keys) = Box::pin(Keeper::open(fake.cluster(), clock)).await.unwrap();
    let (holds, held) = watch::channel(false);
    Kept {
        keys,
        is_known: keeper.is_known(),
        holds,
        _task: runtime::spawn(keeper.keep(held)),
    }
}

/// Until the fake has it, by the clock of the test.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("it never came to that");
}

fn bundle(fake: &Fake) -> Option<Vec<u8>> {
    let configuration = fake.object(MUTATING)?;
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str()?;
    Some(BASE64_STANDARD.decode(bundle).unwrap())
}

fn authorities(fake: &Fake) -> Vec<u8> {
    let secret: Secret = serde_json::from_value(fake.object(PATH).unwrap()).unwrap();
    secret.data.unwrap()[ROOTS].0.clone()
}

fn configure(fake: &Fake) {
    fake.put(
        MUTATING,
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "weft-injector"}, "webhooks": [{"name": "a", "clientConfig": {}}]}),
    );
}

#[tokio::test(start_paused = true)]
async fn the_holder_tells_the_api_server_and_others_do_not() {
    let fake = Fake::default();
    configure(&fake);
    let kept = keep(&fake, clock()).await;
    sleep(3 * AGAIN).await;
    assert_eq!(bundle(&fake), None);
    kept.holds.send_replace(true);
    until(|| bundle(&fake) == Some(authorities(&fake))).await;
    // Helm has written it anew.
    configure(&fake);
    until(|| bundle(&fake) == Some(authorities(&fake))).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_knows_when_the_api_server_trusts_the_webhook_whoever_told_it() {
    let fake = Fake::default();
    configure(&fake);
    let (holder, other) = (keep(&fake, clock()).await, keep(&fake, clock()).await);
    sleep(3 * AGAIN).await;
    assert!(!*holder.is_known.borrow() && !*other.is_known.borrow());
    holder.holds.send_replace(true);
    until(|| *holder.is_known.borrow() && *other.is_known.borrow()).await;
    assert_eq!(bundle(&fake), Some(authorities(&fake)));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_reaches_the_api_server_before_the_new_key_is_shown() {
    let fake = Fake::default();
    configure(&fake);
    let first = keep(&fake, clock()).await;
    let before = authorities(&fake);
    drop(first);
    // Another replica, much later.
    let kept = keep(&fake, Wall::fixed(START + 300 * DAY)).await;
    let old = kept.keys.0.borrow().clone();
    kept.holds.send_replace(true);
    until(|| bundle(&fake).is_some_and(|it| it.len() > before.len())).await;
    assert_eq!(kept.keys.0.borrow().cert, old.cert);
    assert!(bundle(&fake).unwrap().ends_with(&before));
    until(|| kept.keys.0.borrow().cert != old.cert).await;
    until(|| bundle(&fake).is_some_and(|it| it.len() < 2 * before.len() - 100)).await;
    assert_eq!(bundle(&fake), Some(authorities(&fake)));
    assert_ne!(bundle(&fake), Some(before));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_deleted_comes_back_with_the_same_key() {
    let fake = Fake::default();
    let kept = keep(&fake, clock()).await;
    kept.holds.send_replace(true);
    let before = fake.object(PATH).unwrap()["data"].clone();
    fake.remove(PATH);
    until(|| fake.object(PATH).is_some()).await;
    assert_eq!(fake.object(PATH).unwrap()["data"], before);
}
