use std::time::Duration;

use serde_json::{Value, json};

use super::{
    shape::tests::{claims, token},
    *,
};
use crate::cluster::fake::Fake;

const NOW: u64 = 1_800_000_000;

fn bearer() -> Bearer {
    Bearer {
        pod: Name::new("shop", "cart-0"),
        uid: "u1".to_owned(),
        service_account: "cart".to_owned(),
    }
}

fn yes() -> Value {
    json!({"authenticated": true, "audiences": ["weft"], "user": {
        "username": "system:serviceaccount:shop:cart",
        "extra": {POD_NAME: ["cart-0"], POD_UID: ["u1"]}}})
}

/// `yes` with one place changed.
fn but(pointer: &str, value: Value) -> Value {
    let mut changed = yes();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed
}

fn judged(status: Value) -> Result<Bearer, String> {
    judge(&serde_json::from_value(status).unwrap())
}

#[test]
fn a_review_names_pod_uid_and_account() {
    let named = judged(yes()).unwrap();
    assert_eq!(
        (named.pod, named.uid, named.service_account),
        (bearer().pod, bearer().uid, bearer().service_account)
    );
}

#[test]
fn a_review_that_says_less_than_all_of_it_is_refused_by_name() {
    let pod = format!("/user/extra/{}", POD_NAME.replace('/', "~1"));
    let uid = format!("/user/extra/{}", POD_UID.replace('/', "~1"));
    for (status, why) in [
        (json!({}), "of nobody"),
        (json!({"error": "token has expired"}), "token has expired"),
        (but("/authenticated", json!(false)), "of nobody"),
        (but("/audiences", json!(["kubernetes"])), "audience weft"),
        (but("/audiences", json!(null)), "audience weft"),
        (but("/user/username", json!("admin")), "service account"),
        (
            but("/user/username", json!("system:serviceaccount:shop")),
            "service account",
        ),
        (
            but("/user/username", json!("system:serviceaccount:shop:a/b")),
            "a name in it is none",
        ),
        (but("/user/extra", json!({})), "bound to no pod"),
        (but(&pod, json!(["cart-0", "cart-1"])), "bound to no pod"),
        (but(&uid, json!([])), "bound to no pod"),
        (but(&uid, json!([""])), "a name in it is none"),
    ] {
        let refused = judged(status.clone()).unwrap_err();
        assert!(refused.contains(why), "{status}: {refused}");
    }
}

fn pod(status: &Value, deleted: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u1", "deletionTimestamp": deleted},
        "spec": {"serviceAccountName": "cart", "containers": []},
        "status": status})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn only_the_bearers_own_pod_that_has_not_ended_runs() {
    let clock = Wall::fixed(Duration::from_secs(NOW));
    let running = json!({"phase": "Running"});
    let judge = |pod: Option<&Pod>| judge_pod(pod, &bearer(), clock);
    assert_eq!(judge(Some(&pod(&running, None))), Confirmed::Runs);
    assert_eq!(judge(Some(&pod(&json!({}), None))), Confirmed::Runs);
    // In its grace, which ends in the year 2100.
    let draining = pod(&running, Some("2100-01-01T00:00:00Z"));
    assert_eq!(judge(Some(&draining)), Confirmed::Runs);
    let mut replaced = pod(&running, None);
    replaced.metadata.uid = Some("u2".to_owned());
    let mut other = pod(&running, None);
    other.spec.as_mut().unwrap().service_account_name = None;
    for (pod, why) in [
        (None, "none of this name"),
        (Some(replaced), "another UID"),
        (Some(other), "another service account"),
        (
            Some(pod(&json!({"phase": "Succeeded"}), None)),
            "(Succeeded)",
        ),
        (Some(pod(&json!({"phase": "Failed"}), None)), "(Failed)"),
        (
            Some(pod(&running, Some("2020-01-01T00:00:00Z"))),
            "grace period",
        ),
    ] {
        let Confirmed::DoesNotRun(told) = judge(pod.as_ref()) else {
            panic!("{why}")
        };
        assert!(told.contains(why) && told.contains("shop/cart-0"), "{told}");
    }
}

fn reviews(fake: &Fake) -> Reviews {
    Reviews::new(fake.cluster(), Wall::System)
}

#[tokio::test]
async fn the_api_server_is_asked_for_our_audience() {
    let fake = Fake::default();
    fake.answer(
        "/apis/authentication.k8s.io/v1/tokenreviews",
        json!({"spec": {}, "status": yes()}),
    );
    let token = token(&claims());
    let bearer = reviews(&fake).verify(&token, None).await.unwrap();
    assert_eq!(bearer.pod, Name::new("shop", "cart-0"));
    let asked = fake.last("/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(
        asked["spec"],
        json!({"audiences": ["weft"], "token": token})
    );
}

#[tokio::test]
async fn an_api_server_that_fails_is_no_refusal() {
    let fake = Fake::default();
    fake.fail("/apis/authentication.k8s.io/v1/tokenreviews", 500);
    let error = reviews(&fake)
        .verify(&token(&claims()), None)
        .await
        .unwrap_err();
    assert!(matches!(error, Unverified::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn what_can_be_no_token_never_reaches_the_api_server() {
    let fake = Fake::default();
    let reviews = reviews(&fake);
    let mut foreign = claims();
    foreign["aud"] = json!(["kubernetes"]);
    for forged in ["", "a-token", &token(&foreign)] {
        let refused = reviews.verify(forged, None).await.unwrap_err();
        assert!(matches!(refused, Unverified::Refused(_)), "{refused:?}");
    }
    assert_eq!(fake.count("/apis/authentication.k8s.io/v1/tokenreviews"), 0);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_reviewed_a_few_at_a_time_and_nobody_waits_for_long() {
    let fake = Fake::default();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    fake.stall(path);
    let (reviews, token) = (reviews(&fake), token(&claims()));
    let from = |it: u8| Some(IpAddr::from([10, 0, 0, it]));
    let all = (0..100).map(|it| reviews.verify(&token, from(it)));
    let all = futures_util::future::join_all(all).await;
    let unavailable = |it: &Result<Bearer, _>| matches!(it, Err(Unverified::Unavailable(_)));
    assert!(all.iter().all(unavailable), "{all:?}");
    assert_eq!(
        fake.count(path),
        turns::AT_ONCE,
        "the others gave up before"
    );
}

#[tokio::test(start_paused = true)]
async fn one_address_with_many_forged_tokens_keeps_no_other_one_waiting() {
    let fake = Fake::default();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    fake.stall(path);
    let (reviews, forged, mut honest) = (reviews(&fake), token(&claims()), claims());
    honest["jti"] = json!("another");
    let honest = token(&honest);
    let from = |it: u8| Some(IpAddr::from([10, 0, 0, it]));
    let flood = futures_util::future::join_all((0..100).map(|_| reviews.verify(&forged, from(1))));
    let (_, _) = tokio::join!(flood, reviews.verify(&honest, from(2)));
    assert!(fake.was_sent(path, |it| it["spec"]["token"] == json!(honest)));
    assert_eq!(fake.count(path), turns::OF_ONE + 1);
}

#[tokio::test]
async fn a_pod_is_read_once_and_its_absence_told() {
    let fake = Fake::default();
    let confirmed = reviews(&fake).confirm(&bearer(), None).await.unwrap();
    assert!(matches!(confirmed, Confirmed::DoesNotRun(_)));
    let pod = serde_json::to_value(pod(&json!({"phase": "Running"}), None)).unwrap();
    fake.put("/api/v1/namespaces/shop/pods/cart-0", pod);
    let confirmed = reviews(&fake).confirm(&bearer(), None).await.unwrap();
    assert_eq!(confirmed, Confirmed::Runs);
    fake.fail("/api/v1/namespaces/shop/pods/cart-0", 403);
    let error = reviews(&fake).confirm(&bearer(), None).await.unwrap_err();
    assert!(matches!(error, Unverified::Unavailable(_)), "{error:?}");
}
