//! The objects of a large cluster, as an API server writes them.
//!
//! Served by `cluster`. What people and controllers add is there in its usual
//! size: most of a pod is what nobody but the kubelet reads.

pub(crate) const SERVICES: usize = 10_000;
/// Of each Service.
pub(crate) const ENDPOINTS: usize = 10;
pub(crate) const PODS: usize = SERVICES * ENDPOINTS;
const NODES: usize = 1_000;
const NAMESPACES: usize = 100;

/// What the mesh has given to the cluster's pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pods {
    /// Every one has a proxy.
    Meshed,
    /// None has.
    Plain,
}

/// Objects of one kind, by its plural.
pub(crate) fn all(pods: Pods) -> Vec<(&'static str, Vec<String>)> {
    let pod = |at: usize| match pods {
        Pods::Meshed => of_pod(POD, at),
        Pods::Plain => of_pod(METADATA, at),
    };
    vec![
        ("namespaces", (0..NAMESPACES).map(namespace).collect()),
        ("nodes", (0..NODES).map(node).collect()),
        ("services", (0..SERVICES).map(service).collect()),
        (
            "endpointslices",
            (0..SERVICES).map(|it| slice(it, 1, None)).collect(),
        ),
        ("pods", (0..PODS).map(pod).collect()),
    ]
}

pub(crate) fn team(service: usize) -> String {
    format!("team-{}", service % NAMESPACES)
}

pub(crate) fn cluster_ip(service: usize) -> String {
    format!("10.96.{}.{}", service >> 8, service & 255)
}

pub(crate) fn pod_name(service: usize, endpoint: usize) -> String {
    format!("service-{service}-6f5d8b9c7d-{endpoint:05}")
}

fn pod_ip(pod: usize) -> String {
    format!(
        "10.{}.{}.{}",
        128 + (pod >> 16),
        (pod >> 8) & 255,
        pod & 255
    )
}

fn uid(kind: usize, at: usize) -> String {
    format!("6f1a0e0c-2f5d-4a83-{kind:04x}-{at:012x}")
}

fn namespace(at: usize) -> String {
    let (name, uid) = (format!("team-{at}"), uid(1, at));
    fill(NAMESPACE, &[("name", &name), ("uid", &uid)])
}

fn node(at: usize) -> String {
    let range = format!("10.{}.{}.0/24", 128 + (at >> 8), at & 255);
    let values = [
        ("name", format!("node-{at}")),
        ("uid", uid(2, at)),
        ("range", range),
        ("zone", format!("zone-{}", at % 3)),
    ];
    filled(NODE, &values)
}

fn service(at: usize) -> String {
    let values = [
        ("name", format!("service-{at}")),
        ("namespace", team(at)),
        ("uid", uid(3, at)),
        ("ip", cluster_ip(at)),
    ];
    filled(SERVICE, &values)
}

/// Of `service`, in `version`; all of its endpoints are ready but `unready`.
pub(crate) fn slice(service: usize, version: usize, unready: Option<usize>) -> String {
    let endpoints: Vec<String> = (0..ENDPOINTS)
        .map(|endpoint| {
            let pod = service * ENDPOINTS + endpoint;
            let values = [
                ("ip", pod_ip(pod)),
                ("ready", (unready != Some(endpoint)).to_string()),
                ("node", format!("node-{}", pod % NODES)),
                ("zone", format!("zone-{}", pod % NODES % 3)),
                ("namespace", team(service)),
                ("pod", pod_name(service, endpoint)),
                ("uid", uid(4, pod)),
            ];
            filled(ENDPOINT, &values)
        })
        .collect();
    let values = [
        ("name", format!("service-{service}")),
        ("namespace", team(service)),
        ("uid", uid(5, service)),
        ("version", version.to_string()),
        ("endpoints", endpoints.join(",")),
    ];
    filled(SLICE, &values)
}

fn of_pod(template: &str, pod: usize) -> String {
    let (service, endpoint) = (pod / ENDPOINTS, pod % ENDPOINTS);
    let values = [
        ("name", pod_name(service, endpoint)),
        ("service", format!("service-{service}")),
        ("namespace", team(service)),
        ("uid", uid(4, pod)),
        ("ip", pod_ip(pod)),
        ("node", format!("node-{}", pod % NODES)),
    ];
    filled(template, &values)
}

fn filled(template: &str, values: &[(&str, String)]) -> String {
    let values: Vec<(&str, &str)> = values.iter().map(|it| (it.0, it.1.as_str())).collect();
    fill(template, &values)
}

/// `@name@` is what `values` say.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    for (at, part) in template.split('@').enumerate() {
        let value = || values.iter().find(|it| it.0 == part).map(|it| it.1);
        match at % 2 {
            0 => text.push_str(part),
            _ => text.push_str(value().expect("every name of a template has its value")),
        }
    }
    text
}

const NAMESPACE: &str = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"@name@","uid":"@uid@","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"kubernetes.io/metadata.name":"@name@","weft.dev/inject":"enabled"}},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}"#;

const NODE: &str = r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"@name@","uid":"@uid@","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"kubernetes.io/hostname":"@name@","kubernetes.io/os":"linux","topology.kubernetes.io/region":"region-a","topology.kubernetes.io/zone":"@zone@"}},"spec":{"podCIDR":"@range@","podCIDRs":["@range@"]},"status":{"capacity":{"cpu":"64","memory":"263782152Ki","pods":"110"},"nodeInfo":{"kubeletVersion":"v1.34.0","operatingSystem":"linux"}}}"#;

const SERVICE: &str = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"@name@","namespace":"@namespace@","uid":"@uid@","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"@name@","app.kubernetes.io/part-of":"a-large-shop","app.kubernetes.io/managed-by":"Helm"},"annotations":{"meta.helm.sh/release-name":"@name@","meta.helm.sh/release-namespace":"@namespace@"},"managedFields":[{"manager":"helm","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:meta.helm.sh/release-name":{},"f:meta.helm.sh/release-namespace":{}},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:app.kubernetes.io/part-of":{}}},"f:spec":{"f:internalTrafficPolicy":{},"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}}]},"spec":{"ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":"http"}],"selector":{"app.kubernetes.io/name":"@name@"},"clusterIP":"@ip@","clusterIPs":["@ip@"],"type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"},"status":{"loadBalancer":{}}}"#;

const SLICE: &str = r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"@name@-x7k2p","generateName":"@name@-","namespace":"@namespace@","uid":"@uid@","resourceVersion":"@version@","generation":7,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"@name@","app.kubernetes.io/part-of":"a-large-shop","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","kubernetes.io/service-name":"@name@"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-01-01T00:00:00Z"},"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"@name@","uid":"@uid@","controller":true,"blockOwnerDeletion":true}],"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"discovery.k8s.io/v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"@uid@\"}":{}}},"f:ports":{}}}]},"addressType":"IPv4","endpoints":[@endpoints@],"ports":[{"name":"http","protocol":"TCP","port":8080}]}"#;

const ENDPOINT: &str = r#"{"addresses":["@ip@"],"conditions":{"ready":@ready@,"serving":@ready@,"terminating":false},"targetRef":{"kind":"Pod","namespace":"@namespace@","name":"@pod@","uid":"@uid@"},"nodeName":"@node@","zone":"@zone@"}"#;

/// What is asked for of pods without a proxy.
const METADATA: &str = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"@name@","generateName":"@service@-6f5d8b9c7d-","namespace":"@namespace@","uid":"@uid@","resourceVersion":"1","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"@service@","app.kubernetes.io/part-of":"a-large-shop","pod-template-hash":"6f5d8b9c7d"},"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-01T00:00:00Z"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"@service@-6f5d8b9c7d","uid":"@uid@","controller":true,"blockOwnerDeletion":true}],"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/restartedAt":{}},"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:app.kubernetes.io/part-of":{},"f:pod-template-hash":{}},"f:ownerReferences":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:env":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{},"f:readinessProbe":{},"f:resources":{},"f:terminationMessagePath":{}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{}}}}]}}"#;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"@name@","generateName":"@service@-6f5d8b9c7d-","namespace":"@namespace@","uid":"@uid@","resourceVersion":"1","generation":1,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app.kubernetes.io/name":"@service@","app.kubernetes.io/part-of":"a-large-shop","pod-template-hash":"6f5d8b9c7d","weft.dev/injected":"true"},"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-01-01T00:00:00Z"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"@service@-6f5d8b9c7d","uid":"@uid@","controller":true,"blockOwnerDeletion":true}],"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/restartedAt":{}},"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:app.kubernetes.io/part-of":{},"f:pod-template-hash":{}},"f:ownerReferences":{}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:env":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{},"f:readinessProbe":{},"f:resources":{},"f:terminationMessagePath":{}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{}}}},{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:phase":{},"f:podIP":{},"f:podIPs":{},"f:startTime":{}}},"subresource":"status"}]},"spec":{"volumes":[{"name":"kube-api-access-4fxkz","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}],"defaultMode":420}},{"name":"weft-identity","projected":{"sources":[{"serviceAccountToken":{"audience":"weft","expirationSeconds":3600,"path":"token"}}],"defaultMode":420}}],"initContainers":[{"name":"weft-redirect","image":"registry.example/weft/proxy:0.1.0","args":["redirect"],"resources":{"limits":{"cpu":"100m","memory":"32Mi"},"requests":{"cpu":"10m","memory":"16Mi"}},"securityContext":{"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]},"runAsUser":0}},{"name":"weft-proxy","image":"registry.example/weft/proxy:0.1.0","restartPolicy":"Always","env":[{"name":"WEFT_POD","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"WEFT_NAMESPACE","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}},{"name":"WEFT_TRUST_BUNDLE","value":"-----BEGIN CERTIFICATE-----MIIBhTCCASugAwIBAgIUQ0Z6b2V5c3l6bW9yZXRoYW5vbmVodW5kcmVkYnl0ZXN3YXNub3Rlbm91Z2h0b21ha2VpdGxvbmc-----END CERTIFICATE-----"}],"ports":[{"name":"weft-metrics","containerPort":15020,"protocol":"TCP"},{"name":"weft-health","containerPort":15021,"protocol":"TCP"}],"startupProbe":{"httpGet":{"path":"/ready","port":15021,"scheme":"HTTP"},"periodSeconds":1,"failureThreshold":120},"resources":{"requests":{"cpu":"20m","memory":"24Mi"}},"securityContext":{"runAsUser":2102,"runAsNonRoot":true,"readOnlyRootFilesystem":true}}],"containers":[{"name":"app","image":"registry.example/team/app:1.2.3","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"metrics","containerPort":9090,"protocol":"TCP"}],"env":[{"name":"DATABASE","value":"postgres.database:5432"},{"name":"CACHE","value":"redis.cache:6379"},{"name":"LOG_LEVEL","value":"info"},{"name":"PASSWORD","valueFrom":{"secretKeyRef":{"name":"app","key":"password"}}},{"name":"POD_IP","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"status.podIP"}}}],"resources":{"limits":{"cpu":"1","memory":"512Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"volumeMounts":[{"name":"kube-api-access-4fxkz","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"livenessProbe":{"httpGet":{"path":"/probe/app/liveness","port":15021,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10},"readinessProbe":{"httpGet":{"path":"/probe/app/readiness","port":15021,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"@node@","securityContext":{},"schedulerName":"default-scheduler","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},"status":{"phase":"Running","conditions":[{"type":"PodReadyToStartContainers","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"Initialized","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"ContainersReady","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"},{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}],"hostIP":"172.18.0.3","hostIPs":[{"ip":"172.18.0.3"}],"podIP":"@ip@","podIPs":[{"ip":"@ip@"}],"startTime":"2026-01-01T00:00:00Z","initContainerStatuses":[{"name":"weft-proxy","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}},"lastState":{},"ready":true,"restartCount":0,"image":"registry.example/weft/proxy:0.1.0","imageID":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","containerID":"containerd://2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae","started":true}],"containerStatuses":[{"name":"app","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}},"lastState":{},"ready":true,"restartCount":0,"image":"registry.example/team/app:1.2.3","imageID":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","containerID":"containerd://fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9","started":true}],"qosClass":"Burstable"}}"#;
