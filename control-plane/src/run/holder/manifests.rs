//! What the user's manifests say about pods and services, and what the holder
//! adds to them.
//!
//! The directory of manifests stays the user's. What a cluster would fill in —
//! a Service's cluster IPs, a Pod's address, readiness and end — goes to the
//! mesh's own directory `generated`, one complete object per file, each
//! replacing the user's object of the same name: the control plane reads both,
//! the generated one last. Validity is the control plane's business: what can't
//! be read here is left out, and what was good of that file before stays.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::readiness::Readiness;
use crate::{
    model::INJECT,
    run::mesh::{file_name, write_atomically},
    sources::manifest::pod::INJECTED,
};

pub(crate) type Labels = BTreeMap<String, String>;

/// The last good content of each file.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    files: BTreeMap<PathBuf, Vec<Value>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// "namespace/name".
    pub(crate) name: String,
    object: Value,
    /// Empty: it names none.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// It wants none: its names mean its pods.
    pub(crate) headless: bool,
    pub(crate) selector: Labels,
}

/// A Pod manifest, from which `weft run` starts.
#[derive(Clone, Debug)]
pub(crate) struct Template(Value);

/// A pod as it lives, to be told to the control plane.
#[derive(Clone, Debug)]
pub(crate) struct PodState<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) labels: &'a Labels,
    pub(crate) service_account: &'a str,
    pub(crate) meshed: bool,
    pub(crate) ready: bool,
    /// When it was told to stop, RFC 3339.
    pub(crate) deleted: Option<&'a str>,
}

impl Manifests {
    /// Reads every file of `directory` again.
    pub(crate) fn read(&mut self, directory: &Path) -> io::Result<()> {
        let mut found = BTreeMap::new();
        for path in manifest_files(directory)? {
            let parsed = fs::read_to_string(&path).ok().and_then(|text| {
                serde_saphyr::from_multiple::<Value>(&text)
                    .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "manifest unreadable"))
                    .ok()
            });
            match (parsed, self.files.remove(&path)) {
                (Some(documents), _) | (None, Some(documents)) => {
                    found.insert(path, documents);
                }
                (None, None) => {}
            }
        }
        self.files = found;
        Ok(())
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = Service> {
        self.of_kind("Service").filter_map(Service::new)
    }

    /// The manifest of the pod "namespace/name".
    pub(crate) fn pod(&self, name: &str) -> Option<Template> {
        self.of_kind("Pod")
            .find(|object| full_name(object).as_deref() == Some(name))
            .cloned()
            .map(Template)
    }

    /// Names of all Pod manifests.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (String, Template)> {
        self.of_kind("Pod")
            .filter_map(|object| Some((full_name(object)?, Template(object.clone()))))
    }

    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.files
            .values()
            .flatten()
            .filter(move |object| object.get("kind").and_then(Value::as_str) == Some(kind))
    }
}

impl Service {
    fn new(object: &Value) -> Option<Self> {
        if text(object, "/spec/type") == Some("ExternalName") {
            return None;
        }
        let named = text(object, "/spec/clusterIP");
        let several = object.pointer("/spec/clusterIPs").and_then(Value::as_array);
        let mut all: Vec<&str> = several
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if all.is_empty() {
            all.extend(named.filter(|it| !it.is_empty()));
        }
        Some(Self {
            name: full_name(object)?,
            headless: all.contains(&"None"),
            cluster_ips: all.iter().filter_map(|it| it.parse().ok()).collect(),
            selector: labels(object, "/spec/selector"),
            object: object.clone(),
        })
    }

    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        !self.selector.is_empty()
            && self
                .selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The object with these cluster IPs.
    fn with_addresses(&self, addresses: &[IpAddr]) -> Value {
        let mut object = self.object.clone();
        let spec = entry(&mut object, "spec");
        let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        spec.insert("clusterIP".to_owned(), json!(texts.first()));
        spec.insert("clusterIPs".to_owned(), json!(texts));
        object
    }
}

impl Template {
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let several = self.0.pointer("/status/podIPs").and_then(Value::as_array);
        let mut all: Vec<&str> = several
            .into_iter()
            .flatten()
            .filter_map(|it| text(it, "/ip"))
            .collect();
        if all.is_empty() {
            all.extend(text(&self.0, "/status/podIP"));
        }
        all.iter().filter_map(|it| it.parse().ok()).collect()
    }

    pub(crate) fn labels(&self) -> Labels {
        labels(&self.0, "/metadata/labels")
    }

    pub(crate) fn service_account(&self) -> Option<String> {
        text(&self.0, "/spec/serviceAccountName").map(str::to_owned)
    }

    /// # Errors
    /// Which probe can't be made, for people.
    pub(crate) fn readiness(&self, address: IpAddr) -> Result<Readiness, String> {
        Readiness::of(&self.0, address)
    }

    /// An annotation `weft.dev/<name>`.
    pub(crate) fn annotation(&self, name: &str) -> Option<String> {
        let annotations = self.0.pointer("/metadata/annotations")?;
        annotations
            .get(format!("weft.dev/{name}"))?
            .as_str()
            .map(str::to_owned)
    }
}

/// The file for a Service whose cluster IPs were allocated.
pub(crate) fn service_file(service: &Service, addresses: &[IpAddr]) -> (String, Value) {
    (
        format!("service.{}.yaml", file_name(&service.name)),
        service.with_addresses(addresses),
    )
}

/// The file for a pod that lives.
pub(crate) fn pod_file(template: Option<&Template>, pod: &PodState<'_>) -> (String, Value) {
    let mut object = template.map_or_else(|| bare(pod.name), |it| it.0.clone());
    let metadata = entry(&mut object, "metadata");
    metadata.insert("uid".to_owned(), json!(pod.uid));
    let mut labels = pod.labels.clone();
    let said = if pod.meshed { "enabled" } else { "disabled" };
    labels.insert(INJECT.to_owned(), said.to_owned());
    // What is so, whatever its namespace says.
    match pod.meshed {
        true => labels.insert(INJECTED.to_owned(), "true".to_owned()),
        false => labels.remove(INJECTED),
    };
    metadata.insert("labels".to_owned(), json!(labels));
    if let Some(time) = pod.deleted {
        metadata.insert("deletionTimestamp".to_owned(), json!(time));
    }
    entry(&mut object, "spec").insert("serviceAccountName".to_owned(), json!(pod.service_account));
    let addresses: Vec<Value> = pod
        .addresses
        .iter()
        .map(|address| json!({ "ip": address.to_string() }))
        .collect();
    object["status"] = json!({
        "phase": "Running",
        "podIP": pod.addresses.first().map(IpAddr::to_string),
        "podIPs": addresses,
        "conditions": [{ "type": "Ready", "status": if pod.ready { "True" } else { "False" } }],
    });
    (format!("pod.{}.yaml", file_name(pod.name)), object)
}

/// The file for a Pod manifest that nobody runs: it serves nothing.
pub(crate) fn absent_pod_file(name: &str, template: &Template) -> (String, Value) {
    let mut object = template.0.clone();
    object["status"] =
        json!({ "phase": "Pending", "conditions": [{ "type": "Ready", "status": "False" }] });
    (format!("pod.{}.yaml", file_name(name)), object)
}

/// Makes `directory` hold exactly `files`; touches only those that differ.
pub(crate) fn write_generated(directory: &Path, files: &BTreeMap<String, Value>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, object) in files {
        // JSON is YAML, and its strings need no second thought.
        let content = format!("{object:#}\n");
        let path = directory.join(name);
        if fs::read(&path).ok().as_deref() != Some(content.as_bytes()) {
            write_atomically(&path, content.as_bytes())?;
        }
    }
    for path in manifest_files(directory)? {
        let is_wanted = path
            .file_name()
            .and_then(|it| it.to_str())
            .is_some_and(|name| files.contains_key(name));
        if !is_wanted {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn manifest_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_manifest = path
            .extension()
            .is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
        if is_manifest && path.is_file() {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

fn bare(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "containers": [{ "name": "program" }] },
    })
}

/// `None` where it has no name.
fn full_name(object: &Value) -> Option<String> {
    let namespace = text(object, "/metadata/namespace").unwrap_or("default");
    Some(format!("{namespace}/{}", text(object, "/metadata/name")?))
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

fn labels(object: &Value, pointer: &str) -> Labels {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let pairs = map
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    pairs.collect()
}

/// The object's field `name`, made an object where it is none.
fn entry<'a>(object: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let field = &mut object[name];
    if !field.is_object() {
        *field = json!({});
    }
    field.as_object_mut().expect("made one above")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "
kind: Service
metadata: { name: cart, namespace: shop }
spec: { selector: { app: cart }, ports: [{ port: 80, targetPort: 8080 }] }
---
kind: Pod
metadata: { name: cart-0, namespace: shop, labels: { app: cart }, annotations: { weft.dev/exclude-inbound-ports: '9000' } }
spec: { serviceAccountName: cart }
status: { podIPs: [{ ip: 10.244.0.9 }] }
---
kind: Service
metadata: { name: all }
spec: { clusterIP: None }
";

    fn shop(text: &str) -> (tempfile::TempDir, Manifests) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("shop.yaml"), text).unwrap();
        let mut manifests = Manifests::default();
        manifests.read(directory.path()).unwrap();
        (directory, manifests)
    }

    #[test]
    fn services_and_pods_are_found_among_the_documents_of_a_file() {
        let (_directory, manifests) = shop(SHOP);
        let services: Vec<Service> = manifests.services().collect();
        assert_eq!(services[0].name, "shop/cart");
        assert!(!services[0].headless && services[0].cluster_ips.is_empty());
        assert_eq!(services[1].name, "default/all");
        assert!(services[1].headless);
        let pod = manifests.pod("shop/cart-0").unwrap();
        assert!(services[0].selects(&pod.labels()));
        assert!(
            !services[1].selects(&pod.labels()),
            "no selector selects nothing"
        );
        assert_eq!(pod.addresses(), ["10.244.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(pod.service_account().as_deref(), Some("cart"));
        assert_eq!(
            pod.annotation("exclude-inbound-ports").as_deref(),
            Some("9000")
        );
        assert!(manifests.pod("shop/cart-1").is_none());
    }

    #[test]
    fn a_file_that_breaks_keeps_what_was_good_and_one_that_goes_takes_it_along() {
        let (directory, mut manifests) = shop(SHOP);
        let file = directory.path().join("shop.yaml");
        fs::write(&file, "kind: [").unwrap();
        manifests.read(directory.path()).unwrap();
        assert_eq!(manifests.services().count(), 2);
        fs::remove_file(&file).unwrap();
        manifests.read(directory.path()).unwrap();
        assert_eq!(manifests.services().count(), 0);
    }

    #[test]
    fn a_generated_service_is_the_users_with_its_addresses() {
        let (_directory, manifests) = shop(SHOP);
        let service = manifests.services().next().unwrap();
        let (name, object) = service_file(
            &service,
            &[
                "10.96.0.2".parse().unwrap(),
                "fd00:10:96::2".parse().unwrap(),
            ],
        );
        assert_eq!(name, "service.shop.cart.yaml");
        assert_eq!(
            object["spec"]["clusterIPs"],
            json!(["10.96.0.2", "fd00:10:96::2"])
        );
        assert_eq!(object["spec"]["ports"][0]["targetPort"], json!(8080));
    }

    #[test]
    fn a_generated_pod_says_where_it_is_and_whether_it_serves() {
        let (_directory, manifests) = shop(SHOP);
        let addresses = ["10.244.0.9".parse().unwrap()];
        let labels = Labels::from([("app".to_owned(), "cart".to_owned())]);
        let mut pod = PodState {
            name: "shop/cart-0",
            uid: "1",
            addresses: &addresses,
            labels: &labels,
            service_account: "cart",
            meshed: true,
            ready: true,
            deleted: None,
        };
        let (_, object) = pod_file(manifests.pod(pod.name).as_ref(), &pod);
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["weft.dev/inject"], json!("enabled"));
        assert_eq!(labels["weft.dev/injected"], json!("true"));
        assert_eq!(
            object["metadata"]["annotations"]["weft.dev/exclude-inbound-ports"],
            json!("9000")
        );
        assert_eq!(object["status"]["conditions"][0]["status"], json!("True"));
        pod.deleted = Some("2026-01-01T00:00:00Z");
        let (name, object) = pod_file(None, &pod);
        assert_eq!(name, "pod.shop.cart-0.yaml");
        assert_eq!(
            object["metadata"]["deletionTimestamp"],
            json!("2026-01-01T00:00:00Z")
        );
        let (_, object) = absent_pod_file("shop/cart-0", &manifests.pod("shop/cart-0").unwrap());
        assert_eq!(object["status"]["conditions"][0]["status"], json!("False"));
        assert_eq!(object["status"].get("podIPs"), None);
    }

    #[test]
    fn generated_files_follow_what_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("generated");
        let one = BTreeMap::from([
            ("a.yaml".to_owned(), json!({})),
            ("b.yaml".to_owned(), json!({})),
        ]);
        write_generated(&path, &one).unwrap();
        let before = fs::metadata(path.join("a.yaml"))
            .unwrap()
            .modified()
            .unwrap();
        let two = BTreeMap::from([("a.yaml".to_owned(), json!({}))]);
        write_generated(&path, &two).unwrap();
        assert!(!path.join("b.yaml").exists());
        assert_eq!(
            fs::metadata(path.join("a.yaml"))
                .unwrap()
                .modified()
                .unwrap(),
            before
        );
    }
}
