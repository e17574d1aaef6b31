//! `weft check`: what is wrong with manifests, before anybody applies them.
//!
//! Reads files as the files source does and joins them as a control plane
//! would. What can't be taken is an error, by file, field and remedy. What leads
//! nowhere within these files is a warning: it may be elsewhere. Documents of
//! other kinds are left alone.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};

use super::asking;
use crate::{
    index::Index,
    model::{Event, Key, Kind, Object},
    sources::manifest::{self, Content, Refusal},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file, a directory of .yaml, .yml and .json, or - for standard input; repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// Errors end in exit code 1, warnings don't.
///
/// # Errors
/// A path that can't be read.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        read(path, &mut files)?;
    }
    if files.is_empty() {
        bail!("no .yaml, .yml or .json in what -f names");
    }
    let found = check(&files);
    asking::print(&found.text)?;
    Ok(match found.errors {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn read(path: &Path, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
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

#[derive(Debug, Default)]
struct Found {
    text: String,
    errors: usize,
    warnings: usize,
}

impl Found {
    fn error(&mut self, place: &str, refusal: &Refusal) {
        self.errors += 1;
        let Refusal {
            field,
            message,
            remedy,
            ..
        } = refusal;
        self.line(&format!("error: {place}: {field} {message}: {remedy}"));
    }

    fn line(&mut self, line: &str) {
        let _a_string_takes_all = writeln!(self.text, "{line}");
    }
}

/// Names and texts of files.
fn check(files: &[(String, String)]) -> Found {
    let mut found = Found::default();
    let mut objects: BTreeMap<Key, (String, Object)> = BTreeMap::new();
    for (file, text) in files {
        let documents = match manifest::read(text) {
            Ok(documents) => documents,
            Err(unreadable) => {
                found.error(&format!("{file}:{}", unreadable.line), &unreadable.refusal);
                continue;
            }
        };
        for document in documents {
            let place = format!("{file}:{}", document.line);
            match document.content {
                Content::Foreign { .. } => {}
                Content::Refused { key, refusal } => {
                    let object = key.map_or_else(|_| String::new(), |key| format!(" {key}"));
                    found.error(&format!("{place}{object}"), &refusal);
                }
                Content::Object(object) => {
                    let key = object.key();
                    if let Some((first, _)) = objects.get(&key) {
                        let message = format!("is {} in {first} already", key.name);
                        let remedy = "keep one of the two";
                        let refusal = Refusal::new("metadata.name", message, remedy);
                        found.error(&format!("{place} {key}"), &refusal);
                    } else {
                        objects.insert(key, (place, object));
                    }
                }
            }
        }
    }
    warn(&objects, &mut found);
    let (errors, warnings) = (found.errors, found.warnings);
    found.line(&format!(
        "{} objects of the mesh, {errors} errors, {warnings} warnings",
        objects.len()
    ));
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
        found.warnings += 1;
        let (object, field) = (&problem.object, &problem.field);
        let (message, remedy) = (&problem.message, &problem.remedy);
        found.line(&format!(
            "warning: {place} {object}: {field}: {message}: {remedy}"
        ));
    }
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
        assert_eq!((found.errors, found.warnings), (0, 0), "{}", found.text);
        assert_eq!(found.text, "2 objects of the mesh, 0 errors, 0 warnings\n");
    }

    #[test]
    fn what_cannot_be_taken_is_an_error_with_its_place_field_and_remedy() {
        let found = of(&[&SHOP.replace("rules: [{", "rules: [{retry: {codes: [200]}, ")]);
        let expected = "error: a.yaml:9 HTTPRoute shop/cart: spec.rules[0].retry.codes[0] is 200: write 400 to 599\n";
        assert!(found.text.starts_with(expected), "{}", found.text);
        assert_eq!((found.errors, found.warnings), (1, 0));
        let found = of(&["a: [1\n"]);
        assert!(found.text.starts_with("error: a.yaml:"), "{}", found.text);
    }

    #[test]
    fn what_leads_nowhere_here_is_a_warning() {
        let found = of(&[&SHOP.replace("backendRefs: [{name: cart", "backendRefs: [{name: ghost")]);
        let expected = "warning: a.yaml:9 HTTPRoute shop/cart: spec.rules[0].backendRefs[0]: there is no Service shop/ghost";
        assert!(found.text.starts_with(expected), "{}", found.text);
        assert_eq!((found.errors, found.warnings), (0, 1));
    }

    #[test]
    fn an_object_that_stands_twice_is_an_error_that_names_both_places() {
        let found = of(&[SHOP, SHOP]);
        assert_eq!(found.errors, 2, "{}", found.text);
        assert!(found.text.contains("b.yaml:1 Service shop/cart"));
        assert!(found.text.contains("in a.yaml:1 already"), "{}", found.text);
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
