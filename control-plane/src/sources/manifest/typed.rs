//! A document's value as the type of its kind.
//!
//! After `document`, before the kind's `convert`. The crates' types skip fields
//! that they don't know, as they should for objects from an API server; in a
//! file such a field is a slip of the pen, so it is refused by name, as
//! `kubectl` does.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Refusal;

/// # Errors
/// A field that is unknown or of another type.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    // What it is has been read already; not every type keeps it.
    known(value, &|path| matches!(path, "apiVersion" | "kind"))
}

/// An object from an API server. Metadata may hold what we have never heard of;
/// a part of the specification that we don't know could say anything.
///
/// # Errors
/// A field of `spec` that is unknown, or any of another type.
pub(super) fn read_stored<T: DeserializeOwned>(value: &Value) -> Result<T, Refusal> {
    known(value, &|path| !path.starts_with("spec"))
}

fn known<T: DeserializeOwned>(
    value: &Value,
    may_be_unknown: &dyn Fn(&str) -> bool,
) -> Result<T, Refusal> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| {
        let path = path_of(&path);
        if !may_be_unknown(&path) {
            unknown.push(path);
        }
    });
    match (read, unknown.first()) {
        (Err(error), _) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            let message = error.to_string();
            let remedy = match message.ends_with("expected a string") {
                true => "write it in quotes",
                false => "correct the field",
            };
            Err(Refusal::new(&path, message, remedy))
        }
        (Ok(_), Some(field)) => {
            let remedy = "correct its name or its indentation, or remove it";
            Err(Refusal::new(field, "is no field of this kind", remedy))
        }
        (Ok(object), None) => Ok(object),
    }
}

/// `spec.rules[0].name`; optional values add nothing.
fn path_of(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    let below = |parent: &Path<'_>, key: &str| match path_of(parent) {
        parent if parent.is_empty() => key.to_owned(),
        parent => format!("{parent}.{key}"),
    };
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_of(parent)),
        Path::Map { parent, key } => below(parent, key),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => path_of(parent),
    }
}
