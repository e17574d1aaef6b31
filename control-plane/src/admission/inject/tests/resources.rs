use super::*;
use crate::admission::Bounds;

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
    let demands = Bounds {
        demands_limit: true,
        ..Bounds::default()
    };
    let demanding = Namespace {
        cpu: demands.clone(),
        memory: demands.clone(),
        ..Namespace::default()
    };
    let memory_alone = Namespace {
        memory: demands,
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

/// Of CPU; memory is free.
fn bounded(least: &str, most: &str, ratio: &str) -> Namespace {
    let text = |it: &str| (!it.is_empty()).then(|| it.to_owned());
    Namespace {
        cpu: Bounds {
            demands_limit: !most.is_empty() || !ratio.is_empty(),
            least: text(least),
            most: text(most),
            ratio: text(ratio),
        },
        ..Namespace::default()
    }
}

/// LimitRanger compares each container's requests and limits; what it refuses
/// never runs.
#[test]
fn what_a_limit_range_does_not_allow_is_moved_to_where_it_does() {
    let none = json!({});
    let asked = json!({"weft.dev/proxy-cpu-request": "20m"});
    let limited = json!({"weft.dev/proxy-cpu-limit": "200m"});
    for (annotations, spec, (least, most, ratio), cpu) in [
        (&none, "{}", ("100m", "", ""), json!(["100m", null])),
        (&none, "{}", ("", "200m", ""), json!(["20m", "200m"])),
        (&none, "{}", ("", "10m", ""), json!(["10m", "10m"])),
        (&none, "{}", ("1", "2", ""), json!(["1", "1"])),
        (&none, "{}", ("", "", "10"), json!(["50m", "500m"])),
        (&none, "{}", ("", "", "3"), json!(["167m", "500m"])),
        (&none, "{}", ("", "", "25"), json!(["20m", "500m"])),
        (&asked, "{}", ("", "", "10"), json!(["20m", "200m"])),
        (&limited, "{}", ("", "", "2"), json!(["100m", "200m"])),
        // Guaranteed stays Guaranteed.
        (
            &none,
            GUARANTEED,
            ("", "200m", "1"),
            json!(["200m", "200m"]),
        ),
        (&none, GUARANTEED, ("1", "2", ""), json!(["1", "1"])),
    ] {
        let [request, limit, ..] =
            given(&with(annotations, spec), &bounded(least, most, ratio)).unwrap();
        assert_eq!(
            json!([request, limit]),
            cpu,
            "{annotations} {spec} {least} {most} {ratio}"
        );
    }
    let memory = Namespace {
        memory: bounded("", "", "3").cpu,
        ..Namespace::default()
    };
    let [.., request, limit] = given(&with(&none, "{}"), &memory).unwrap();
    // A third of 256 MiB, whole.
    assert_eq!((request, limit), (json!("89478486"), json!("256Mi")));
}

#[test]
fn what_somebody_asked_for_and_the_namespace_does_not_allow_is_refused_with_the_remedy() {
    let request = |text: &str| json!({"weft.dev/proxy-cpu-request": text});
    let limit = |text: &str| json!({"weft.dev/proxy-cpu-limit": text});
    let both = json!({"weft.dev/proxy-cpu-request": "10m", "weft.dev/proxy-cpu-limit": "1"});
    for (annotations, bounds, expected) in [
        (
            request("10m"),
            ("50m", "", ""),
            "metadata.annotations[\"weft.dev/proxy-cpu-request\"] is 10m, less than a LimitRange of the namespace allows: \
             raise it to 50m, or remove it",
        ),
        (
            limit("2"),
            ("", "1", ""),
            "metadata.annotations[\"weft.dev/proxy-cpu-limit\"] is 2, more than a LimitRange of the namespace allows: \
             lower it to 1, or remove it",
        ),
        (
            both,
            ("", "", "4"),
            "metadata.annotations[\"weft.dev/proxy-cpu-limit\"] is 1, more than 4 times the request 10m, which is what a \
             LimitRange of the namespace allows: lower it, or raise weft.dev/proxy-cpu-request",
        ),
        (
            json!({}),
            ("2", "1", ""),
            "spec.initContainers would get no cpu that the namespace's LimitRanges allow a container: at least 2, at most 1: \
             correct the LimitRanges",
        ),
    ] {
        let (least, most, ratio) = bounds;
        let refusal = given(&with(&annotations, "{}"), &bounded(least, most, ratio)).unwrap_err();
        assert_eq!(refusal.to_string(), expected);
    }
}
