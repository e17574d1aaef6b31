//! The last good text of each file, for the next start.
//!
//! Beside `files`. While a file is broken its objects stay as they were; without
//! a memory they would be gone as soon as the control plane starts again, and
//! with them the policy that they hold. Loses nothing but comfort when it can't
//! be written: then it warns, and the files themselves decide.
//!
//! Never read after the start.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tracing::warn;

pub(super) struct Memory {
    directory: Option<PathBuf>,
}

impl Memory {
    /// `None` remembers nothing.
    pub(super) fn open(directory: Option<PathBuf>) -> Self {
        let make = |it: &PathBuf| fs::DirBuilder::new().recursive(true).mode(0o700).create(it);
        if let Some(Err(error)) = directory.as_ref().map(make) {
            warn!(%error, "last good manifests can't be kept");
            return Self { directory: None };
        }
        Self { directory }
    }

    /// Path and text of each file, as it was last good.
    pub(super) fn recall(&self) -> Vec<(String, String)> {
        let entries = self.directory.iter().filter_map(|it| fs::read_dir(it).ok());
        let mut all = Vec::new();
        for entry in entries.flatten().flatten() {
            let path = entry.file_name().to_str().and_then(path_of);
            let text = fs::read_to_string(entry.path());
            if let (Some(path), Ok(text)) = (path, text) {
                all.push((path, text));
            }
        }
        all
    }

    pub(super) fn keep(&self, path: &str, text: &str) {
        let Some(directory) = &self.directory else {
            return;
        };
        let kept = directory.join(name_of(path));
        // A rename, so that what is kept is never half of it.
        let write = || {
            let half = directory.join(HALF);
            fs::write(&half, text)?;
            fs::rename(&half, &kept)
        };
        warn_of(write(), path);
    }

    pub(super) fn forget(&self, path: &str) {
        let Some(directory) = &self.directory else {
            return;
        };
        let gone = fs::remove_file(directory.join(name_of(path)));
        warn_of(
            gone.or_else(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    Ok(())
                } else {
                    Err(error)
                }
            }),
            path,
        );
    }
}

/// No path is called so: `name_of` leaves no dot at the beginning alone.
const HALF: &str = ".half";

fn warn_of(done: io::Result<()>, path: &str) {
    if let Err(error) = done {
        warn!(%path, %error, "a last good manifest can't be kept");
    }
}

/// One name in one directory for a path of several.
fn name_of(path: &str) -> String {
    format!("_{}", path.replace('%', "%25").replace('/', "%2F"))
}

fn path_of(name: &str) -> Option<String> {
    let path = name
        .strip_prefix('_')?
        .replace("%2F", "/")
        .replace("%25", "%");
    // Nothing but what `name_of` could have written.
    let is_below = !Path::new(&path).is_absolute() && !path.split('/').any(|it| it == "..");
    is_below.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::open(Some(directory.path().join("new/here")));
        memory.keep("sub/100%2F.yaml", "one");
        memory.keep("a.yaml", "two");
        memory.keep("a.yaml", "three");
        let mut all = memory.recall();
        all.sort();
        let pair = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        assert_eq!(
            all,
            [pair("a.yaml", "three"), pair("sub/100%2F.yaml", "one")]
        );
        memory.forget("a.yaml");
        memory.forget("never.yaml");
        assert_eq!(memory.recall(), [pair("sub/100%2F.yaml", "one")]);
    }
}
