//! Objects that say what isn't so, or what can't be taken.

use super::*;
use crate::model::{AccessTarget, ConditionKind, Reason, Verdict};

/// Anybody can write the label.
#[tokio::test(start_paused = true)]
async fn a_label_alone_makes_no_pod_meshed() {
    let fake = Fake::default();
    let mut pretends = pod("web-0", "u", true);
    pretends["spec"]["initContainers"] = json!([{"name": "other"}]);
    fake.put(PODS, pretends);
    fake.put(PODS, pod("web-1", "v", true));
    let listener = Listener::synced(&fake).await;
    let inject = |name: &str| listener.pod(name).and_then(|it| it.injected);
    assert_eq!(inject("shop/web-0"), Some(false));
    assert_eq!(inject("shop/web-1"), Some(true));
}

fn access(name: &str, app: &str, more: &Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "mtls": "Strict"});
    spec["unknown"] = more.clone();
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "AccessPolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": "u", "generation": 3}, "spec": spec,
    })
}

#[tokio::test(start_paused = true)]
async fn a_closed_policy_closes_whom_it_is_for_now() {
    let fake = Fake::default();
    fake.put(POLICIES, access("a", "cart", &json!(1)));
    let mut listener = Listener::synced(&fake).await;
    let of = |app: &str| AccessTarget::Selected([("app".to_owned(), app.to_owned())].into());
    let targets =
        |listener: &Listener| match listener.objects.get(&key(Kind::AccessPolicy, "shop/a")) {
            Some(Object::AccessPolicy(policy)) => policy.targets.clone(),
            other => panic!("{other:?}"),
        };
    assert_eq!(targets(&listener), [of("cart")]);
    fake.put(POLICIES, access("a", "payment", &json!(1)));
    listener.until(|it| targets(it) == [of("payment")]).await;
}

fn verdict<'a>(listener: &'a Listener, of: &Key) -> &'a Verdict {
    let mut problems = listener.problems.iter();
    let found = problems.find(|it| it.object.as_ref() == Some(of));
    found.and_then(|it| it.verdict.as_ref()).expect("a verdict")
}

/// GEP-713: PolicyReasonInvalid.
#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_taken_is_answered_with_the_field() {
    let fake = Fake::default();
    fake.put(POLICIES, access("a", "cart", &json!(1)));
    let mut backend = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "BackendPolicy",
        "metadata": {"name": "b", "namespace": "shop", "uid": "v", "generation": 4},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "retries": {"attempts": "many"},
        },
    });
    let backends = "/apis/weft.dev/v1alpha1/backendpolicies";
    fake.put(backends, backend.clone());
    let mut listener = Listener::synced(&fake).await;
    let (access, of_backend) = (
        key(Kind::AccessPolicy, "shop/a"),
        key(Kind::BackendPolicy, "shop/b"),
    );
    for (key, uid, generation, about, field) in [
        (&access, "u", 3, ("Namespace", None, "shop"), "spec.unknown"),
        (
            &of_backend,
            "v",
            4,
            ("Service", Some("shop"), "cart"),
            "spec.retries.attempts",
        ),
    ] {
        let verdict = verdict(&listener, key);
        assert_eq!(
            (verdict.uid.as_str(), verdict.generation),
            (uid, generation)
        );
        let [entry] = verdict.entries.as_slice() else {
            panic!("{verdict:?}")
        };
        let reference = &entry.reference;
        let told = (
            reference.kind.as_deref().unwrap(),
            reference.namespace.as_deref(),
            reference.name.as_str(),
        );
        assert_eq!(told, about);
        let condition = &entry.conditions[0];
        assert_eq!(
            (condition.kind, condition.holds, condition.reason),
            (ConditionKind::Accepted, false, Reason::Invalid)
        );
        assert!(condition.message.starts_with(field), "{condition:?}");
    }
    backend["spec"] = json!(7);
    fake.put(backends, backend);
    listener
        .until(|it| verdict(it, &of_backend).entries[0].reference.name == "shop")
        .await;
}

/// 400 to a watch from a version: it would be refused for ever.
#[tokio::test(start_paused = true)]
async fn a_version_that_is_refused_is_not_asked_for_again() {
    let fake = Fake::default();
    fake.put(SERVICES, service("cart"));
    let mut listener = Listener::synced(&fake).await;
    fake.refuse_versions(true);
    fake.cut();
    fake.put(SERVICES, service("late"));
    listener
        .until(|it| it.has(Kind::Service, "shop/late"))
        .await;
}
