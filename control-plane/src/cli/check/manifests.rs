//! Manifests, before anybody applies them.
//!
//! Reads files as the files source does and joins them as a control plane
//! would. What can't be taken is an error, by file, field and remedy. What leads
//! nowhere within these files is a warning: it may be elsewhere. Documents of
//! other kinds are left alone.

use std::{
    collections::BTreeMap,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::Context;

use super::{Finding, Found, Severity, What};
use crate::{
    index::Index,
    model::{Event, Key, Kind, Object},
    sources::manifest::{self, Content, Refusal},
};

pub(super) fn read(path: &Path, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.context("standard input")?;
        files.push((shown, text));
        return Ok(());
    }
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).with_context(|| shown.clone())?;
        files.push((shown, text));
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path)
        .and_then(|all| {
            all.map(|it| it.map(|it| it.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(|| shown)?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let is_manifest = [".yaml", ".yml", ".json"]
            .iter()
            .any(|it| name.ends_with(it));
        if !name.starts_with('.') && (entry.is_dir() || is_manifest) {
            read(&entry, files)?;
        }
    }
    Ok(())
}

/// Names and texts of files.
pub(super) fn check(files: &[(String, String)]) -> Found {
    let mut found = Found {
        of: "objects of the mesh",
        ..Found::default()
    };
    let mut objects: BTreeMap<Key, (String, Object)> = BTreeMap::new();
    for (file, text) in files {
        let documents = match manifest::read(text) {
            Ok(documents) => documents,
            Err(unreadable) => {
                error(
                    &mut found,
                    &format!("{file}:{}", unreadable.line),
                    "",
                    &unreadable.refusal,
                );
                continue;
            }
        };
        for document in documents {
            let place = format!("{file}:{}", document.line);
            match document.content {
                Content::Foreign { .. } => {}
                Content::Refused { key, refusal } => {
                    let object = key.map_or_else(|_| String::new(), |key| key.to_string());
                    error(&mut found, &place, &object, &refusal);
                }
                Content::Object(object) => {
                    let key = object.key();
                    if let Some((first, _)) = objects.get(&key) {
                        let message = format!("is {} in {first} already", key.name);
                        let remedy = "keep one of the two";
                        let refusal = Refusal::new("metadata.name", message, remedy);
                        error(&mut found, &place, &key.to_string(), &refusal);
                    } else {
                        objects.insert(key, (place, object));
                    }
                }
            }
        }
    }
    warn(&objects, &mut found);
    found.looked_at = objects.len();
    found
}

/// What routes and policies of Services refer to. Who is selected by labels is
/// a matter of pods, which manifests seldom hold.
fn warn(objects: &BTreeMap<Key, (String, Object)>, found: &mut Found) {
    let mut index = Index::default();
    for (at, (_, object)) in (0..).zip(objects.values()) {
        index.apply(Event::Apply(addressed(object.clone(), at)));
    }
    let told = [Kind::HttpRoute, Kind::GrpcRoute, Kind::BackendPolicy];
    for problem in index.problems().filter(|it| told.contains(&it.object.kind)) {
        let place = objects
            .get(&problem.object)
            .map(|(place, _)| place.as_str());
        let place = place.unwrap_or_default();
        found.findings.push(Finding {
            severity: Severity::Warning,
            what: What::Reference,
            place: place.to_owned(),
            object: problem.object.to_string(),
            field: problem.field.clone(),
            message: problem.message.clone(),
            remedy: problem.remedy.clone(),
        });
    }
}

fn error(found: &mut Found, place: &str, object: &str, refusal: &Refusal) {
    found.findings.push(Finding {
        severity: Severity::Error,
        what: What::Manifest,
        place: place.to_owned(),
        object: object.to_owned(),
        field: refusal.field.clone(),
        message: refusal.message.clone(),
        remedy: refusal.remedy.clone(),
    });
}

/// A Service gets its address from the cluster; here any does, of a range that
/// nobody has (RFC 1112 §4).
fn addressed(object: Object, at: u32) -> Object {
    match object {
        Object::Service(mut service) if service.addresses.is_empty() => {
            let address = Ipv4Addr::from(0xf000_0000 | at);
            service.addresses = [IpAddr::V4(address)].into();
            Object::Service(service)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asking::Output;

    fn text(found: &Found) -> String {
        found.text(Output::Table).unwrap()
    }

    fn of(texts: &[&str]) -> Found {
        let files = texts.iter().zip(["a.yaml", "b.yaml"]);
        let files: Vec<_> = files
            .map(|(text, name)| (name.to_owned(), (*text).to_owned()))
            .collect();
        check(&files)
    }

    const SHOP: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: cart}]
  rules: [{backendRefs: [{name: cart, port: 80}]}]
";

    #[test]
    fn good_manifests_beside_those_of_others_are_good() {
        let found = of(&[SHOP]);
        assert_eq!(
            (found.errors(), found.warnings()),
            (0, 0),
            "{}",
            text(&found)
        );
        assert_eq!(
            text(&found),
            "2 objects of the mesh, 0 errors, 0 warnings\n"
        );
    }

    #[test]
    fn what_cannot_be_taken_is_an_error_with_its_place_field_and_remedy() {
        let found = of(&[&SHOP.replace("rules: [{", "rules: [{retry: {codes: [200]}, ")]);
        let expected = "error: a.yaml:9 HTTPRoute shop/cart: spec.rules[0].retry.codes[0]: is 200: write 400 to 599\n";
        assert!(text(&found).starts_with(expected), "{}", text(&found));
        assert_eq!((found.errors(), found.warnings()), (1, 0));
        let found = of(&["a: [1\n"]);
        assert!(
            text(&found).starts_with("error: a.yaml:"),
            "{}",
            text(&found)
        );
    }

    #[test]
    fn what_leads_nowhere_here_is_a_warning() {
        let found = of(&[&SHOP.replace("backendRefs: [{name: cart", "backendRefs: [{name: ghost")]);
        let expected = "warning: a.yaml:9 HTTPRoute shop/cart: spec.rules[0].backendRefs[0]: there is no Service shop/ghost";
        assert!(text(&found).starts_with(expected), "{}", text(&found));
        assert_eq!((found.errors(), found.warnings()), (0, 1));
    }

    #[test]
    fn an_object_that_stands_twice_is_an_error_that_names_both_places() {
        let found = of(&[SHOP, SHOP]);
        assert_eq!(found.errors(), 2, "{}", text(&found));
        assert!(text(&found).contains("b.yaml:1 Service shop/cart"));
        assert!(
            text(&found).contains("in a.yaml:1 already"),
            "{}",
            text(&found)
        );
    }

    #[test]
    fn directories_are_read_as_the_files_source_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        for name in ["b.yml", "below/a.json", ".hidden.yaml", "notes.txt"] {
            std::fs::write(directory.path().join(name), "# nothing\n").unwrap();
        }
        let mut files = Vec::new();
        read(directory.path(), &mut files).unwrap();
        let names = files
            .iter()
            .map(|(name, _)| name.rsplit('/').next().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["b.yml", "a.json"]);
    }
}
