//! What the injector writes against what the proxy takes, and the
//! CustomResourceDefinitions against their types.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use weft_control_plane::reference as control_plane;
use weft_proxy::{config::Config, reference};

use crate::{documents, source};

#[test]
fn the_table_of_annotations_is_the_code() {
    let mut table = "| Annotation | Value | What it does | Knob |\n|---|---|---|---|\n".to_owned();
    for it in control_plane::annotations() {
        if it.is_written_by_the_mesh {
            continue;
        }
        let knob = it.knob.map_or_else(String::new, |it| format!("`{it}`"));
        let (name, form, help) = (it.name, it.form, it.help);
        writeln!(table, "| `{name}` | {form} | {help} | {knob} |").expect("a string takes text");
    }
    documents::hold("docs/injection.md", "annotations", &table);
}

/// Knobs that differ between pods by nature, or that redirection, image and
/// volumes are made for.
const OF_THE_INJECTOR: [&str; 15] = [
    "WEFT_POD_NAMESPACE",
    "WEFT_POD_NAME",
    "WEFT_POD_UID",
    "WEFT_SERVICE_ACCOUNT",
    "WEFT_TRUST_DOMAIN",
    "WEFT_CONTROL_ADDRESS",
    "WEFT_TOKEN_FILE",
    "WEFT_TRUST_BUNDLE_FILE",
    "WEFT_STATE_DIR",
    "WEFT_ADMIN_SOCKET",
    "WEFT_PROBES",
    "WEFT_PROXY_MARK",
    "WEFT_OUTBOUND_LISTEN",
    "WEFT_INBOUND_LISTEN",
    "WEFT_DEBUG_LISTEN",
];

/// They are asked from outside of the pod, by fixed port.
const FIXED: [&str; 2] = ["WEFT_METRICS_LISTEN", "WEFT_HEALTH_LISTEN"];

#[test]
fn every_knob_of_the_proxy_is_an_annotation_or_the_injectors() {
    let by_annotation: BTreeSet<_> = control_plane::annotations()
        .into_iter()
        .filter_map(|it| it.knob)
        .collect();
    let ours: BTreeSet<_> = OF_THE_INJECTOR.into_iter().chain(FIXED).collect();
    let all: BTreeSet<_> = reference::knobs().iter().map(|it| it.name).collect();
    let told: BTreeSet<_> = by_annotation.union(&ours).copied().collect();
    let missing: Vec<_> = all.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&all).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "no annotation for {missing:?}; no knob {unknown:?}: declare it in admission/annotations.rs, or say here that it \
         is the injector's"
    );
}

/// Values at and around the bounds of any knob.
const VALUES: [&str; 42] = [
    "9090/metrics",
    "15020/metrics",
    "0",
    "1",
    "2",
    "9",
    "10",
    "15",
    "16",
    "255",
    "256",
    "257",
    "1023",
    "1024",
    "4096",
    "4097",
    "65534",
    "65535",
    "65536",
    "100000",
    "100001",
    "1000000",
    "1000001",
    "1048576",
    "1048577",
    "10000000",
    "10000001",
    "2147483647",
    "2147483648",
    "-1",
    "1.5",
    "5ms",
    "30s",
    "10m",
    "24h",
    "5",
    "1d",
    "none",
    "text",
    "all",
    "info",
    "99999999999999999999h",
];

#[test]
fn a_proxy_takes_every_value_that_admission_takes() {
    for annotation in control_plane::annotations() {
        let Some(knob) = annotation.knob else {
            continue;
        };
        let mut taken = 0;
        for value in VALUES.into_iter().filter(|it| annotation.takes(it)) {
            taken += 1;
            let config = Config::from_source(|name| match name {
                "WEFT_POD_NAMESPACE" => Some("shop".to_owned()),
                "WEFT_POD_NAME" => Some("web-0".to_owned()),
                "WEFT_CONTROL_ADDRESS" => Some("control:15010".to_owned()),
                name if name == knob => Some(value.to_owned()),
                _ => None,
            });
            assert!(config.is_ok(), "{} = {value}: {config:?}", annotation.name);
        }
        assert!(taken > 0, "{}: no value tried is taken", annotation.name);
    }
}

const HEAD: &str =
    "# Made of the types in control-plane/src/sources/manifest by `make regenerate`: edit those.\n";

#[test]
fn the_custom_resource_definitions_are_the_types() {
    let folder = source::root().join("charts/weft-crds/templates");
    for (name, yaml) in control_plane::definitions().expect("definitions can be written") {
        let path = folder.join(name);
        let fresh = format!("{HEAD}{yaml}");
        assert!(
            !fresh.contains("{{"),
            "{name}: Helm would take this for a template"
        );
        if documents::should_write() {
            fs::create_dir_all(&folder).expect("the folder can be made");
            fs::write(&path, &fresh).expect("the file can be written");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == fresh,
            "charts/weft-crds/templates/{name} differs from the types. Write it again by `make regenerate`, and commit \
             the result."
        );
    }
}
