//! Holds the layer table, `layers.toml`, against the imports in production code.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::source::{self, File};

#[derive(Deserialize)]
pub(crate) struct Table {
    source: String,
    pub(crate) layer: Vec<Layer>,
    #[serde(default)]
    exception: Vec<Exception>,
    #[serde(default)]
    exclusive: Vec<Exclusive>,
    #[serde(default, rename = "crate")]
    crates: Vec<Crate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) modules: Vec<String>,
    pub(crate) duty: String,
    pub(crate) never: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    from: String,
    to: Vec<String>,
    #[allow(
        dead_code,
        reason = "for the reader of the table; the field must be there"
    )]
    why: String,
}

/// A module that only some may import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exclusive {
    module: String,
    importers: Vec<String>,
}

/// A crate that only some modules may name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Crate {
    name: String,
    modules: Vec<String>,
    why: String,
}

pub(crate) fn tables() -> BTreeMap<String, Table> {
    toml::from_str(&source::read("tests/architecture/layers.toml"))
        .expect("layers.toml is a valid table")
}

/// The module that a file belongs to: the first name below `source`.
fn module<'a>(file: &'a File, source: &str) -> &'a str {
    let path = file
        .path
        .strip_prefix(source)
        .unwrap_or(&file.path)
        .trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Modules named after `crate::` or, in another crate of the same package
/// such as its binaries, after `library::`.
fn imports(code: &str, library: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for prefix in ["crate::", library] {
        for (at, _) in code.match_indices(prefix) {
            let before = code.get(..at).and_then(|before| before.chars().next_back());
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                continue;
            }
            found.extend(names(code.get(at + prefix.len()..).unwrap_or_default()));
        }
    }
    found
}

/// The first name of a path, or of each path in a group of braces.
fn names(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect()
    };
    let Some(group) = text.trim_start().strip_prefix('{') else {
        return vec![name(text)];
    };
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ if depth == 0 => parts.last_mut().expect("never empty").push(letter),
            _ => {}
        }
    }
    parts
        .iter()
        .map(|part| name(part.trim()))
        .filter(|part| !part.is_empty())
        .collect()
}

impl Table {
    fn row(&self, module: &str) -> Option<usize> {
        self.layer
            .iter()
            .position(|layer| layer.modules.iter().any(|known| known == module))
    }

    /// What is wrong with `from` importing `to`; `None` when it may.
    fn objection(&self, from: &str, to: &str) -> Option<String> {
        let exclusive = self
            .exclusive
            .iter()
            .find(|exclusive| exclusive.module == to);
        if let Some(exclusive) = exclusive
            && !exclusive.importers.iter().any(|importer| importer == from)
        {
            return Some(format!(
                "only {} may import {to}",
                exclusive.importers.join(", ")
            ));
        }
        let excepted = |exception: &Exception| {
            exception.from == from && exception.to.iter().any(|name| name == to)
        };
        if self.exception.iter().any(excepted) {
            return None;
        }
        let (own, other) = (self.row(from)?, self.row(to)?);
        let name = |row: usize| self.layer.get(row).map_or("", |layer| layer.name.as_str());
        (other <= own).then(|| {
            format!(
                "{from} ({}) must not import {to} ({})",
                name(own),
                name(other)
            )
        })
    }
}

#[test]
fn modules_import_only_from_layers_below() {
    let mut wrong = Vec::new();
    for (package, table) in tables() {
        let library = format!("weft_{}::", package.replace('-', "_"));
        for file in source::production(&table.source) {
            let from = module(&file, &table.source);
            for to in imports(&file.code, &library) {
                if table.row(&to).is_none() || to == from {
                    continue;
                }
                if let Some(objection) = table.objection(from, &to) {
                    wrong.push(format!("{}: {objection}", file.path));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against tests/architecture/layers.toml:\n  {}\nMove what is shared down a layer, or hand it in \
         from `app` as an argument.",
        wrong.join("\n  ")
    );
}

#[test]
fn every_module_stands_in_the_table_and_the_other_way_round() {
    let mut wrong = Vec::new();
    for table in tables().values() {
        let files = source::production(&table.source);
        let there: BTreeSet<_> = files
            .iter()
            .map(|file| module(file, &table.source))
            .collect();
        for name in &there {
            if table.row(name).is_none() {
                wrong.push(format!(
                    "{}/{name} is in no layer: add it to layers.toml",
                    table.source
                ));
            }
        }
        for name in table.layer.iter().flat_map(|layer| &layer.modules) {
            if !there.contains(name.as_str()) {
                wrong.push(format!(
                    "{}/{name} is in layers.toml and does not exist",
                    table.source
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "layers.toml and the sources disagree:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn some_crates_are_named_in_their_module_alone() {
    let mut wrong = Vec::new();
    for table in tables().values() {
        for file in source::production(&table.source) {
            let from = module(&file, &table.source);
            for named in &table.crates {
                let path = format!("{}::", named.name);
                if file.code.contains(&path) && !named.modules.iter().any(|allowed| allowed == from)
                {
                    wrong.push(format!("{} names {}: {}", file.path, named.name, named.why));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "crates outside of their module:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn the_scanner_sees_every_form_of_import() {
    let code = "use crate::{a::b, c::{d, e}, f}; use crate::g; crate::h::i(); weft_x::j::k; mycrate::l; pub(in crate::m) n;";
    let found: Vec<_> = imports(code, "weft_x::").into_iter().collect();
    assert_eq!(found, ["a", "c", "f", "g", "h", "j", "m"]);
}
