use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::*;
use crate::cluster::fake::Fake;

const DOMAIN: &str = "cluster.local";
const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const LEASE_PATH: &str =
    "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-control-plane";

fn keeper(fake: &Fake) -> Keeper {
    Keeper {
        cluster: fake.cluster(),
        secret: "weft-ca".to_owned(),
        is_given: false,
        trust_domain: DOMAIN.to_owned(),
        clock: Wall::System,
    }
}

fn made() -> Made {
    signing::make(DOMAIN, Wall::System).unwrap()
}

fn der(made: &Made) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap()
}

/// Of what signs, with these roots in `ca.crt`, and these settled.
fn secret(signs: &Made, roots: &[&Made], settled: Option<&[&Made]>) -> Secret {
    let pem = |all: &[&Made]| {
        all.iter()
            .map(|it| it.certificate.as_str())
            .collect::<String>()
    };
    let mut secret = made_secret("weft-ca", signs);
    let data = secret.data.as_mut().unwrap();
    data.insert("ca.crt".to_owned(), ByteString(pem(roots).into_bytes()));
    let annotation = settled.map(|it| [(SETTLED.to_owned(), pem(it))].into());
    secret.metadata.annotations = annotation;
    secret
}

fn content(secret: &Secret) -> Content {
    Content::read(secret, DOMAIN, Wall::System).unwrap()
}

fn put(fake: &Fake, secret: &Secret) {
    fake.put(PATH, serde_json::to_value(secret).unwrap());
}

#[test]
fn the_mesh_trusts_what_is_in_the_secret_and_what_has_settled() {
    let (old, new) = (made(), made());
    let mut both = vec![der(&old), der(&new)];
    both.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    // A given Secret has changed its root by itself.
    let changed = content(&secret(&new, &[&new], Some(&[&old])));
    assert_eq!(changed.in_force(&[]), both.clone().into());
    // It was even made anew: nobody has said what has settled, so what held holds.
    let anew = content(&secret(&new, &[&new], None));
    assert_eq!(anew.in_force(&[der(&old)]), both.into());
    assert_eq!(anew.in_force(&[]), [der(&new)].into());
    let removed = content(&secret(&new, &[&new], Some(&[&new])));
    assert_eq!(removed.in_force(&[der(&old)]), [der(&new)].into());
}

#[test]
fn a_new_root_signs_only_once_it_has_settled_or_the_old_signer_has_expired() {
    let (old, new) = (made(), made());
    let current = content(&secret(&old, &[&old], None)).signing;
    let (now, late) = (Wall::System.now(), current.ends());
    let unsettled = content(&secret(&new, &[&new], Some(&[&old])));
    assert!(unsettled.successor(&current, now).is_none());
    assert!(unsettled.successor(&current, late).is_some());
    let settled = content(&secret(&new, &[&new], Some(&[&old, &new])));
    let successor = settled.successor(&current, now).unwrap();
    assert_eq!(successor.root(), &der(&new));
    assert!(settled.successor(&successor, now).is_none());
}

#[test]
fn a_secret_that_can_not_be_used_names_its_key() {
    let root = made();
    for key in ["tls.crt", "tls.key", "ca.crt"] {
        let mut broken = secret(&root, &[&root], None);
        let data = broken.data.as_mut().unwrap();
        data.insert(key.to_owned(), ByteString(b"nonsense".to_vec()));
        let unfit = Content::read(&broken, DOMAIN, Wall::System).unwrap_err();
        assert_eq!(unfit.part, key);
        broken.data.as_mut().unwrap().remove(key);
        let unfit = Content::read(&broken, DOMAIN, Wall::System).unwrap_err();
        assert_eq!(unfit.to_string(), format!("{key}: it is missing"));
    }
    let mut broken = secret(&root, &[&root], None);
    broken.metadata.annotations = Some([(SETTLED.to_owned(), "nonsense".to_owned())].into());
    let unfit = Content::read(&broken, DOMAIN, Wall::System).unwrap_err();
    assert_eq!(unfit.part, SETTLED);
}

#[tokio::test]
async fn the_first_start_makes_a_root_and_the_second_reads_it() {
    let fake = Fake::default();
    let (first, _) = keeper(&fake).open().await.unwrap();
    assert!(first.is_ours);
    // Nobody has to be asked before a rotation can begin.
    assert_eq!(first.settled, Some(first.roots.clone()));
    let (second, _) = keeper(&fake).open().await.unwrap();
    assert_eq!(first.signing.root(), second.signing.root());
    let marker = &fake.object(LEASE_PATH).unwrap()["metadata"]["annotations"][lease::MARKER];
    assert_eq!(*marker, json!(first.signing.fingerprint().to_string()));
}

#[tokio::test]
async fn of_two_that_make_one_the_second_takes_the_firsts() {
    let fake = Fake::default();
    let (first, second) = (keeper(&fake), keeper(&fake));
    // Both have seen that there is none.
    let made = first.make().await.unwrap();
    let read = second.make().await.unwrap();
    assert_eq!(made.data, read.data);
    // The first has even left its mark meanwhile.
    first.open().await.unwrap();
    assert_eq!(second.make().await.unwrap().data, made.data);
}

#[tokio::test]
async fn a_secret_that_was_there_once_is_never_made_again() {
    let fake = Fake::default();
    keeper(&fake).open().await.unwrap();
    fake.remove(PATH);
    let error = format!("{:#}", keeper(&fake).open().await.unwrap_err());
    assert!(
        error.contains("is gone") && error.contains("backup"),
        "{error}"
    );
    assert!(fake.object(PATH).is_none());
}

#[tokio::test]
async fn a_given_secret_is_never_made() {
    let fake = Fake::default();
    let given = Keeper {
        is_given: true,
        ..keeper(&fake)
    };
    let error = format!("{:#}", given.open().await.unwrap_err());
    assert!(error.contains("--authority-secret"), "{error}");
    assert!(fake.object(PATH).is_none());
}

#[tokio::test]
async fn a_lease_that_can_not_be_read_makes_no_root() {
    let fake = Fake::default();
    fake.fail(LEASE_PATH, 403);
    keeper(&fake).open().await.unwrap_err();
    assert!(fake.object(PATH).is_none());
}

struct Following {
    authority: Arc<Authority>,
    roots: watch::Receiver<Roots>,
    reports: tokio::sync::mpsc::UnboundedReceiver<Option<Trouble>>,
    metrics: Metrics,
    _task: crate::runtime::Task,
}

async fn follow(fake: &Fake) -> Following {
    let (opened, signing) = Box::pin(keeper(fake).open()).await.unwrap();
    let lifetime = Duration::from_secs(60);
    let authority = Authority::new(signing, DOMAIN, lifetime, Wall::System);
    let authority = Arc::new(authority);
    let (roots_in, roots) = watch::channel(opened.in_force(&[]));
    let (told, reports) = tokio::sync::mpsc::unbounded_channel();
    let metrics = Metrics::default();
    let followers = Followers {
        authority: authority.clone(),
        roots: roots_in,
        content: watch::Sender::new(Some(Arc::new(opened))),
        metrics: metrics.clone(),
    };
    let report = move |trouble: Option<&Trouble>| drop(told.send(trouble.cloned()));
    let follow = keeper(fake).follow(followers, report);
    Following {
        authority,
        roots,
        reports,
        metrics,
        _task: crate::runtime::spawn(follow),
    }
}

#[tokio::test(start_paused = true)]
async fn a_vanished_secret_is_an_alarm_and_changes_nothing_until_it_is_back() {
    let fake = Fake::default();
    let (old, new) = (made(), made());
    put(&fake, &secret(&old, &[&old], None));
    let mut following = follow(&fake).await;
    fake.remove(PATH);
    assert_eq!(following.reports.recv().await.unwrap(), Some(Trouble::Gone));
    assert_eq!(following.metrics.secret_unusable.get(), 1);
    assert_eq!(following.authority.root(), der(&old));
    assert_eq!(
        fake.count("/apis/events.k8s.io/v1/namespaces/weft-system/events"),
        1
    );
    // Back with another root: the old one stays trusted and signs.
    put(&fake, &secret(&new, &[&new], None));
    assert_eq!(following.reports.recv().await.unwrap(), None);
    assert_eq!(following.roots.borrow().len(), 2);
    assert_eq!(following.authority.root(), der(&old));
    assert_eq!(following.metrics.secret_unusable.get(), 0);
    // Seen everywhere, and then the old one is no longer needed.
    put(&fake, &secret(&new, &[&new], Some(&[&new, &old])));
    let mut signing = following.authority.changes();
    signing
        .wait_for(|it| *it.root() == der(&new))
        .await
        .unwrap();
    put(&fake, &secret(&new, &[&new], Some(&[&new])));
    following.roots.wait_for(|it| it.len() == 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_turns_unusable_is_told_with_its_key() {
    let fake = Fake::default();
    let (root, other) = (made(), made());
    put(&fake, &secret(&root, &[&root], None));
    let mut following = follow(&fake).await;
    put(&fake, &secret(&other, &[&root], None));
    let told = following.reports.recv().await.unwrap().unwrap();
    assert!(told.to_string().contains("tls.crt"), "{told}");
    assert_eq!(following.authority.root(), der(&root));
}

const KEPT_PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca-settled";

fn given(fake: &Fake) -> Keeper {
    Keeper {
        is_given: true,
        ..keeper(fake)
    }
}

fn annotation(fake: &Fake) -> String {
    let secret = fake.object(PATH).unwrap();
    let text = secret["metadata"]["annotations"][SETTLED].as_str();
    text.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_root_that_changed_while_nobody_ran_neither_signs_nor_takes_the_place_of_the_old() {
    let fake = Fake::default();
    let (old, new) = (made(), made());
    put(&fake, &secret(&old, &[&old], None));
    given(&fake).open().await.unwrap();
    // By its owner: changed in place, or made anew.
    for settled in [Some(&[&old][..]), None] {
        put(&fake, &secret(&new, &[&new], settled));
        let (content, signing) = given(&fake).open().await.unwrap();
        assert_eq!(signing.root(), &der(&old));
        assert_eq!(content.in_force(&[]).len(), 2);
        assert_eq!(content.settled, Some(vec![der(&old)]));
        assert_eq!(annotation(&fake), old.certificate);
    }
    // Seen everywhere, the holder keeps it, and who starts then signs with it.
    let spread = content(&secret(&new, &[&new], Some(&[&old, &new])));
    let wanted = kept::wanted(&spread).unwrap();
    given(&fake).keep(&wanted).await.unwrap();
    let (content, signing) = given(&fake).open().await.unwrap();
    assert_eq!(signing.root(), &der(&new));
    assert_eq!(content.in_force(&[]).len(), 2);
}

#[tokio::test]
async fn what_has_not_settled_is_not_kept() {
    let (old, new) = (made(), made());
    let unsettled = content(&secret(&new, &[&new], Some(&[&old])));
    assert!(kept::wanted(&unsettled).is_none());
}

#[tokio::test]
async fn another_secret_than_before_goes_the_same_way_and_so_does_the_way_back() {
    let fake = Fake::default();
    let (first, own) = (made(), made());
    put(&fake, &secret(&first, &[&first], None));
    given(&fake).open().await.unwrap();
    let other = Keeper {
        secret: "own-ca".to_owned(),
        ..given(&fake)
    };
    let path = PATH.replace("weft-ca", "own-ca");
    let value = serde_json::to_value(secret(&own, &[&own], None)).unwrap();
    fake.put(&path, value);
    let (_, signing) = other.open().await.unwrap();
    assert_eq!(signing.root(), &der(&first));
    let spread = content(&secret(&own, &[&own], Some(&[&own])));
    let wanted = kept::wanted(&spread).unwrap();
    other.keep(&wanted).await.unwrap();
    // The first one's annotation is of another time.
    let (content, signing) = given(&fake).open().await.unwrap();
    assert_eq!(signing.root(), &der(&own));
    assert_eq!(content.settled, Some(vec![der(&own)]));
    assert_eq!(annotation(&fake), own.certificate);
}

#[tokio::test]
async fn a_root_that_nobody_holds_refuses_the_start_when_the_former_is_not_kept() {
    let fake = Fake::default();
    let (old, new) = (made(), made());
    put(&fake, &secret(&old, &[&old], None));
    given(&fake).open().await.unwrap();
    for settled in [Some(&[&old][..]), None] {
        fake.remove(KEPT_PATH);
        put(&fake, &secret(&new, &[&new], settled));
        let error = format!("{:#}", given(&fake).open().await.unwrap_err());
        assert!(error.contains("is not kept: restore"), "{error}");
    }
    // Nothing was written, so that what is restored is what was.
    assert!(fake.object(KEPT_PATH).is_none());
    put(&fake, &secret(&old, &[&old, &new], None));
    given(&fake).open().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_former_authority_that_has_expired_is_not_waited_with() {
    let fake = Fake::default();
    let old = made();
    put(&fake, &secret(&old, &[&old], None));
    given(&fake).open().await.unwrap();
    let in_eleven_years = Wall::System.now() + Duration::from_secs(11 * 366 * 86_400);
    let late = Keeper {
        clock: Wall::fixed(in_eleven_years),
        ..given(&fake)
    };
    let new = signing::make(DOMAIN, late.clock).unwrap();
    put(&fake, &secret(&new, &[&new], None));
    let (_, signing) = late.open().await.unwrap();
    assert_eq!(signing.root(), &der(&new));
}

#[tokio::test]
async fn a_lost_secret_that_is_given_up_is_followed_by_a_root_that_spreads_first() {
    let fake = Fake::default();
    let (first, _) = keeper(&fake).open().await.unwrap();
    fake.remove(PATH);
    keeper(&fake).open().await.unwrap_err();
    let mut lease = fake.object(LEASE_PATH).unwrap();
    lease["metadata"]["annotations"] = json!({});
    fake.put(LEASE_PATH, lease);
    let (content, signing) = keeper(&fake).open().await.unwrap();
    assert_ne!(content.signing.root(), first.signing.root());
    assert_eq!(signing.root(), first.signing.root());
    assert_eq!(content.in_force(&[]).len(), 2);
}
