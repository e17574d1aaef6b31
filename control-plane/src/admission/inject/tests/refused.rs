use super::*;

#[test]
fn pods_that_would_bypass_or_break_the_mesh_are_refused_with_the_remedy() {
    for (spec, expected) in [
        (
            "securityContext: {runAsUser: 2102}",
            "spec.securityContext.runAsUser is 2102, the proxy's own user: the container's traffic would bypass the mesh: \
             run it as another user",
        ),
        (
            "containers: [{name: app, image: a, securityContext: {runAsUser: 2102}}]",
            "spec.containers[0].securityContext.runAsUser is 2102, the proxy's own user: the container's traffic would \
             bypass the mesh: run it as another user",
        ),
        (
            "initContainers: [{name: first, image: a, ports: [{containerPort: 15006}]}]",
            "spec.initContainers[0].ports[0].containerPort is 15006, a port of the mesh: listen on another one: 15001, \
             15006 and 15020 to 15022 are taken",
        ),
        (
            "containers: [{name: app, image: a, readinessProbe: {httpGet: {port: web}}}]",
            "spec.containers[0].readinessProbe.httpGet.port is \"web\", which is no port of this container: name one of \
             the container's ports, or write a number from 1 to 65535",
        ),
        (
            "containers: [{name: app, image: a, livenessProbe: {httpGet: {port: 15021, path: /probe/app/liveness}}}]",
            "spec.containers[0].livenessProbe asks the proxy, and the annotation weft.dev/probes doesn't say what for: \
             write the probe as it was before injection",
        ),
        (
            "containers: [{name: app, image: a, ports: {containerPort: 80}}]",
            "spec.containers[0].ports can't be read: invalid type: map, expected a sequence: correct the field",
        ),
    ] {
        let refusal = inject(&pod(spec)).unwrap_err();
        assert_eq!(refusal.to_string(), expected);
    }
}

#[test]
fn ports_of_udp_are_free() {
    let spec =
        "containers: [{name: app, image: a, ports: [{containerPort: 15001, protocol: UDP}]}]";
    assert!(inject(&pod(spec)).is_ok());
}

#[test]
fn a_namespace_that_enforces_pod_security_is_told_what_to_do() {
    for (level, is_refused) in [
        ("baseline", true),
        ("restricted", true),
        ("privileged", false),
    ] {
        let label = "pod-security.kubernetes.io/enforce".to_owned();
        let namespace = Namespace {
            labels: BTreeMap::from([(label, level.to_owned())]),
            ..Namespace::default()
        };
        let verdict = super::super::inject(&pod("{}"), &namespace, &settings(), "secret");
        assert_eq!(verdict.is_err(), is_refused, "{level}");
        if let Err(refusal) = verdict {
            let remedy = "kubectl label --overwrite namespace shop pod-security.kubernetes.io/enforce=privileged";
            assert!(refusal.remedy.contains(remedy), "{refusal}");
            assert!(
                refusal.remedy.contains("weft.dev/inject=disabled"),
                "{refusal}"
            );
        }
    }
}

#[test]
fn labels_and_annotations_with_slips_are_refused() {
    let mut labelled = pod("{}");
    labelled["metadata"]["labels"] = json!({"weft.dev/inject": "true"});
    let refusal = inject(&labelled).unwrap_err();
    assert!(
        refusal.to_string().contains("write enabled or disabled"),
        "{refusal}"
    );
    let mut annotated = pod("{}");
    annotated["metadata"]["annotations"] = json!({"weft.dev/workers": "many"});
    let refusal = inject(&annotated).unwrap_err();
    assert!(refusal.to_string().contains("from 1 to 256"), "{refusal}");
}

#[test]
fn a_label_that_only_the_webhook_writes_is_refused_of_others() {
    for spec in ["{}", "{hostNetwork: true}"] {
        let mut pod = pod(spec);
        pod["metadata"]["labels"] = json!({"weft.dev/injected": "true"});
        let refusal = inject(&pod).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "metadata.labels[\"weft.dev/injected\"] says whether the pod was given a proxy, which only the mesh's webhook \
             may say: remove it: a pod that gets a proxy gets it too"
        );
    }
}
