use super::*;

mod broken;

use crate::admission::Resources;

fn webhook(has_root: bool) -> Webhook {
    let settings = has_root.then(|| Settings {
        image: "weft.dev/proxy:0.1.0".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
        control_plane: "control:15010".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        trust_bundle: "pem".to_owned(),
        resources: Resources::default(),
        pull_secrets: Vec::new(),
        application_metrics: false,
    });
    Webhook {
        settings: Arc::new(move || settings.clone()),
        namespace: Arc::new(|_| Box::pin(std::future::ready(Namespace::default()))),
    }
}

fn review(object: &Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "7", "namespace": "shop", "operation": "CREATE", "object": object},
    });
    review.to_string().into_bytes()
}

async fn asked(webhook: &Webhook, path: Path, object: &Value) -> Value {
    let (_, answer) = answer(webhook, path, &review(object)).await.unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], "7");
    answer["response"].clone()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-"},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    })
}

#[tokio::test]
async fn a_pod_is_answered_with_a_patch_of_what_differs() {
    let answer = asked(&webhook(true), Path::Inject, &pod()).await;
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["patchType"], "JSONPatch");
    let patch = STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let paths: Vec<_> = patch
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "/metadata/annotations",
            "/metadata/labels",
            "/spec/initContainers",
            "/spec/volumes"
        ]
    );
}

#[tokio::test]
async fn a_refused_pod_says_why_to_the_person_who_made_it() {
    let mut pod = pod();
    pod["spec"]["securityContext"] = json!({"runAsUser": 2102});
    let answer = asked(&webhook(true), Path::Inject, &pod).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["status"]["code"], 422);
    let message = answer["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("weft: spec.securityContext.runAsUser is 2102"),
        "{message}"
    );
}

#[tokio::test]
async fn no_pod_runs_unmeshed_because_there_is_no_root_yet() {
    let answer = asked(&webhook(false), Path::Inject, &pod()).await;
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["status"]["code"], 503);
}

#[tokio::test]
async fn a_deletion_and_kinds_of_others_pass() {
    let webhook = webhook(true);
    for (path, object) in [
        (Path::Inject, Value::Null),
        (Path::Validate, Value::Null),
        (
            Path::Validate,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
        ),
    ] {
        assert_eq!(asked(&webhook, path, &object).await["allowed"], true);
    }
}

#[tokio::test]
async fn what_is_no_review_gets_no_answer() {
    for body in ["", "{}", "[]", r#"{"request": {"object": {}}}"#] {
        let answer = answer(&webhook(true), Path::Inject, body.as_bytes()).await;
        assert!(answer.is_err(), "{body}");
    }
}

#[test]
fn a_token_is_random() {
    let (one, other) = (token().unwrap(), token().unwrap());
    assert!(one.len() == 32 && one != other);
}

#[tokio::test]
async fn nobody_changes_what_the_webhook_has_said_of_a_pod() {
    let pod = |labels: Value| json!({"kind": "Pod", "metadata": {"name": "a", "labels": labels}});
    let (with, without) = (json!({"weft.dev/injected": "true"}), json!({"app": "a"}));
    let more = json!({"weft.dev/injected": "true", "app": "a"});
    for (before, after, is_allowed) in [
        (&with, &more, true),
        (&without, &json!(null), true),
        (&with, &without, false),
        (&without, &with, false),
        (&with, &json!({"weft.dev/injected": "false"}), false),
    ] {
        let review = json!({"request": {
            "uid": "7", "operation": "UPDATE", "object": pod(after.clone()), "oldObject": pod(before.clone()),
        }});
        let webhook = webhook(true);
        let body = review.to_string();
        let (_, answer) = answer(&webhook, Path::Validate, body.as_bytes())
            .await
            .unwrap();
        let response = &answer["response"];
        assert_eq!(response["allowed"], is_allowed, "{before} {after}");
        if !is_allowed {
            let message = response["status"]["message"].as_str().unwrap();
            assert!(message.contains("weft.dev/inject=disabled"), "{message}");
        }
    }
}
