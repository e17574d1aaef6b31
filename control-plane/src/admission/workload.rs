//! Objects that make pods, and where in them the pod stands.
//!
//! For `weft inject`: the webhook sees pods alone. Pure.

use serde_json::{Value, json};

use super::{
    Namespace, Refusal, Settings,
    inject::{self, Verdict},
};

/// The object with a proxy in its pods; `None` where it makes none that get one.
///
/// # Errors
/// What stands against it.
pub(crate) fn inject(
    object: &Value,
    settings: &Settings,
    token: &str,
) -> Result<Option<Value>, Refusal> {
    let kind = object.get("kind").and_then(Value::as_str);
    if let (Some("List"), Some(items)) = (kind, object.get("items").and_then(Value::as_array)) {
        return list(object, items, settings, token);
    }
    let Some(pointer) = kind.and_then(template) else {
        return Ok(None);
    };
    let Some(before) = object.pointer(pointer) else {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        return Err(Refusal::new(
            &field,
            "is missing",
            "write the pod's template",
        ));
    };
    let of = |field: &str| before.get(field).cloned().unwrap_or_else(|| json!({}));
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": of("metadata"),
        "spec": of("spec"),
    });
    let verdict = inject::inject(&pod, &Namespace::default(), settings, token);
    let verdict = verdict.map_err(|refusal| match pointer {
        "" => refusal,
        pointer => refusal.below(&pointer.trim_start_matches('/').replace('/', ".")),
    });
    let Verdict::Injected { pod, .. } = verdict? else {
        return Ok(None);
    };
    let mut object = object.clone();
    if let Some(place) = object.pointer_mut(pointer) {
        for field in ["metadata", "spec"] {
            place[field] = pod.get(field).cloned().unwrap_or_default();
        }
    }
    Ok(Some(object))
}

fn list(
    object: &Value,
    items: &[Value],
    settings: &Settings,
    token: &str,
) -> Result<Option<Value>, Refusal> {
    let mut changed = false;
    let mut after = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let injected = inject(item, settings, token)
            .map_err(|refusal| refusal.below(&format!("items[{index}]")))?;
        changed |= injected.is_some();
        after.push(injected.unwrap_or_else(|| item.clone()));
    }
    let mut object = object.clone();
    object["items"] = after.into();
    Ok(changed.then_some(object))
}

/// JSON pointer (RFC 6901) to the pod or its template.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Resources;

    fn settings() -> Settings {
        Settings {
            image: "weft.dev/proxy:0.1.0".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            control_plane: "control:15010".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_bundle: "pem".to_owned(),
            resources: Resources::default(),
            pull_secrets: Vec::new(),
            application_metrics: false,
        }
    }

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "a"}]},
        })
    }

    /// An object of `kind` around a pod's template, and where that stands.
    fn workload(kind: &str) -> (Value, &'static str) {
        match kind {
            "Pod" => {
                let mut pod = template();
                pod["kind"] = json!("Pod");
                (pod, "")
            }
            "CronJob" => (
                json!({"kind": kind, "spec": {"jobTemplate": {"spec": {"template": template()}}}}),
                "/spec/jobTemplate/spec/template",
            ),
            _ => (
                json!({"kind": kind, "spec": {"replicas": 2, "template": template()}}),
                "/spec/template",
            ),
        }
    }

    #[test]
    fn every_kind_that_makes_pods_gets_them_a_proxy() {
        for kind in [
            "Pod",
            "Deployment",
            "StatefulSet",
            "DaemonSet",
            "ReplicaSet",
            "ReplicationController",
            "Job",
            "CronJob",
        ] {
            let (object, pointer) = workload(kind);
            let injected = inject(&object, &settings(), "t").unwrap().unwrap();
            let pod = injected.pointer(pointer).unwrap();
            assert_eq!(
                pod["spec"]["initContainers"][1]["name"], "weft-proxy",
                "{kind}"
            );
            assert_eq!(pod["metadata"]["labels"]["app"], "web", "{kind}");
            assert_eq!(injected["spec"]["replicas"], object["spec"]["replicas"]);
            assert_eq!(injected["kind"], kind);
        }
        assert_eq!(
            inject(&json!({"kind": "Service"}), &settings(), "t"),
            Ok(None)
        );
    }

    #[test]
    fn items_of_a_list_are_injected_each() {
        let (job, _) = workload("Job");
        let list = json!({"kind": "List", "items": [{"kind": "Service"}, job]});
        let injected = inject(&list, &settings(), "t").unwrap().unwrap();
        assert_eq!(injected["items"][0], json!({"kind": "Service"}));
        let pod = &injected["items"][1]["spec"]["template"]["spec"];
        assert_eq!(pod["initContainers"][0]["name"], "weft-redirect");
    }

    #[test]
    fn a_refusal_names_the_field_from_the_root_of_the_object() {
        let (mut job, _) = workload("CronJob");
        job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"] =
            json!({"runAsUser": 2102});
        let list = json!({"kind": "List", "items": [job]});
        let refusal = inject(&list, &settings(), "t").unwrap_err();
        assert_eq!(
            refusal.field,
            "items[0].spec.jobTemplate.spec.template.spec.securityContext.runAsUser"
        );
        let refusal = inject(&json!({"kind": "Job", "spec": {}}), &settings(), "t").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "spec.template is missing: write the pod's template"
        );
    }
}
