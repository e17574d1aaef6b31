use super::*;

/// Request and limit of both added containers, CPU and memory.
fn given(pod: &Value, namespace: &Namespace) -> Result<[Value; 4], Refusal> {
    match super::super::inject(pod, namespace, &settings(), "secret")? {
        Verdict::Injected { pod, .. } => {
            let all = &pod["spec"]["initContainers"];
            assert_eq!(all[0]["resources"], all[1]["resources"]);
            let of = |part: &str, name: &str| all[1]["resources"][part][name].clone();
            Ok([
                of("requests", "cpu"),
                of("limits", "cpu"),
                of("requests", "memory"),
                of("limits", "memory"),
            ])
        }
        other => panic!("{other:?}"),
    }
}

fn with(annotations: &Value, spec: &str) -> Value {
    let mut pod = pod(spec);
    pod["metadata"]["annotations"] = annotations.clone();
    pod
}

const GUARANTEED: &str =
    "containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]";

/// One of its containers isn't.
const BURSTABLE: &str = "initContainers: [{name: first, image: a}]
containers: [{name: app, image: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]";

#[test]
fn limits_are_set_where_they_are_demanded_and_nowhere_else() {
    let demanding = Namespace {
        demands_cpu_limit: true,
        demands_memory_limit: true,
        ..Namespace::default()
    };
    let memory_alone = Namespace {
        demands_memory_limit: true,
        ..Namespace::default()
    };
    let free = Namespace::default();
    let none = json!({});
    let more = json!({"weft.dev/proxy-cpu-limit": "2", "weft.dev/proxy-cpu-request": "1"});
    let less = json!({"weft.dev/proxy-memory-limit": "16Mi"});
    for (pod, namespace, expected) in [
        (with(&none, "{}"), &free, json!(["20m", null, "32Mi", null])),
        (
            with(&none, "{}"),
            &demanding,
            json!(["20m", "500m", "32Mi", "256Mi"]),
        ),
        (
            with(&none, "{}"),
            &memory_alone,
            json!(["20m", null, "32Mi", "256Mi"]),
        ),
        (with(&more, "{}"), &free, json!(["1", "2", "32Mi", null])),
        // The default request follows a limit that is below it.
        (
            with(&less, "{}"),
            &free,
            json!(["20m", null, "16Mi", "16Mi"]),
        ),
        (
            with(&none, GUARANTEED),
            &free,
            json!(["500m", "500m", "256Mi", "256Mi"]),
        ),
        (
            with(&less, GUARANTEED),
            &free,
            json!(["500m", "500m", "16Mi", "16Mi"]),
        ),
        (
            with(&none, BURSTABLE),
            &free,
            json!(["20m", null, "32Mi", null]),
        ),
        // Resources of the pod as a whole are shared.
        (
            with(&none, "resources: {limits: {cpu: 1, memory: 1Gi}}"),
            &demanding,
            json!([null, null, null, null]),
        ),
    ] {
        let given = given(&pod, namespace).unwrap();
        assert_eq!(json!(given), expected, "{pod} {namespace:?}");
    }
}

#[test]
fn annotations_that_contradict_each_other_are_refused() {
    let free = Namespace::default();
    let swapped = json!({"weft.dev/proxy-cpu-limit": "100m", "weft.dev/proxy-cpu-request": "0.2"});
    let refusal = given(&with(&swapped, "{}"), &free).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "metadata.annotations[\"weft.dev/proxy-cpu-request\"] is 0.2, more than the limit 100m: \
         lower it, or raise weft.dev/proxy-cpu-limit"
    );
    let burst = json!({"weft.dev/proxy-memory-request": "64Mi"});
    let refusal = given(&with(&burst, GUARANTEED), &free).unwrap_err();
    assert!(
        refusal.message.contains("would not be Guaranteed any more"),
        "{refusal}"
    );
    // The limit said twice is no contradiction.
    let same = json!({"weft.dev/proxy-cpu-limit": "1", "weft.dev/proxy-cpu-request": "1000m"});
    assert!(given(&with(&same, GUARANTEED), &free).is_ok());
}
