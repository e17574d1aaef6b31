//! The directory as it is: which files there are, and which have been finished.
//!
//! Between inotify and `shelf`. A written or moved file is read for itself;
//! anything else that happens to a directory (entries come and go, links are
//! swapped, as Kubernetes swaps `..data` in a mounted ConfigMap) has it listed
//! again. Listing reads files that are new here and links that lead elsewhere
//! now, never a file that has been read: whoever writes it will finish.
//!
//! A file that is missing is given a moment to come back, since many editors
//! move the old one away before they write the new one: a policy must not
//! vanish for as long as that takes.
//!
//! Reads files and directories; only this part of the source does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{WatchDescriptor, Watches};
use tokio::time::Instant;
use tracing::warn;

use super::shelf::Shelf;

mod events;
mod watches;

pub(super) struct Tree {
    root: PathBuf,
    watches: Watches,
    /// Directories in the tree, by the path they have in it.
    directories: BTreeMap<PathBuf, Directory>,
    /// Paths that a watch is for: one directory may have several, by links.
    watched: HashMap<WatchDescriptor, BTreeSet<PathBuf>>,
    /// Links to files, with the file that each led to.
    links: BTreeMap<PathBuf, Identity>,
    /// Files that couldn't be read.
    unread: BTreeSet<PathBuf>,
    /// Files that are not there, for whose return there is time until then.
    missing: BTreeSet<String>,
    until: Option<Instant>,
}

struct Directory {
    identity: Identity,
    watches: Vec<WatchDescriptor>,
}

/// Device and inode.
type Identity = (u64, u64);

/// Longer than an editor takes between two system calls on a busy machine.
const GRACE: Duration = Duration::from_millis(100);

/// A manifest is for people to read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

impl Tree {
    pub(super) fn new(root: PathBuf, watches: Watches) -> Self {
        Self {
            root,
            watches,
            directories: BTreeMap::new(),
            watched: HashMap::new(),
            links: BTreeMap::new(),
            unread: BTreeSet::new(),
            missing: BTreeSet::new(),
            until: None,
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.directories.contains_key(&self.root)
    }

    /// Reads everything anew.
    pub(super) fn rescan(&mut self, shelf: &mut Shelf) {
        let root = self.root.clone();
        self.forget_watches(&root);
        let held: Vec<String> = shelf.paths().map(str::to_owned).collect();
        self.scan(&root, &[], shelf);
        for file in held {
            self.read(&root.join(&file), shelf);
        }
    }

    /// When to look whether missing files are back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// They have had their time.
    pub(super) fn give_up(&mut self, shelf: &mut Shelf) {
        self.until = None;
        for file in std::mem::take(&mut self.missing) {
            if !self.root.join(&file).is_file() {
                shelf.remove(&file);
            }
        }
    }

    fn miss(&mut self, file: String) {
        self.missing.insert(file);
        self.until.get_or_insert_with(|| Instant::now() + GRACE);
    }

    /// A directory that is new here, with all below it. `above` are those that
    /// it is in, so that a link to one of them ends here.
    fn scan(&mut self, path: &Path, above: &[Identity], shelf: &mut Shelf) {
        let Ok(metadata) = fs::metadata(path) else {
            return;
        };
        let identity = (metadata.dev(), metadata.ino());
        if above.contains(&identity) {
            warn!(path = %path.display(), "a link that leads back is not followed");
            return;
        }
        // Before it is listed, so that nothing comes unseen in between.
        let watches = match self.add_watch(path, path) {
            Ok(watch) => vec![watch],
            Err(error) => {
                warn!(path = %path.display(), %error, "a directory can't be watched");
                return;
            }
        };
        self.directories
            .insert(path.to_owned(), Directory { identity, watches });
        self.list(path, shelf);
    }

    fn list(&mut self, directory: &Path, shelf: &mut Shelf) {
        let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let same = |tree: &Self| {
            let identity = fs::metadata(directory).ok().map(|it| (it.dev(), it.ino()));
            tree.directories.get(directory).map(|it| it.identity) == identity
        };
        let Ok(mut entries) = entries else {
            return self.leave(directory, shelf);
        };
        if !same(self) {
            return self.leave(directory, shelf);
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut seen = BTreeSet::new();
        for entry in entries {
            let path = entry.path();
            if is_hidden(&entry.file_name()) {
                continue;
            }
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            seen.insert(path.clone());
            let is_link = entry.file_type().is_ok_and(|it| it.is_symlink());
            if metadata.is_dir() {
                self.enter(&path, (metadata.dev(), metadata.ino()), shelf);
            } else if metadata.is_file() && is_manifest(&path) {
                let identity = (metadata.dev(), metadata.ino());
                let leads_elsewhere =
                    is_link && self.links.insert(path.clone(), identity) != Some(identity);
                if leads_elsewhere {
                    self.watch_target(directory, &path);
                }
                if leads_elsewhere || !shelf.has(&self.name_of(&path)) {
                    self.read(&path, shelf);
                }
            }
        }
        let is_gone = |path: &Path| path.parent() == Some(directory) && !seen.contains(path);
        self.links.retain(|link, _| !is_gone(link));
        let gone: Vec<_> = self
            .directories
            .keys()
            .filter(|it| is_gone(it))
            .cloned()
            .collect();
        for path in gone {
            self.drop_directory(&path, shelf);
        }
        let gone = shelf.paths().filter(|it| is_gone(&self.root.join(it)));
        let gone: Vec<_> = gone.map(str::to_owned).collect();
        for file in gone {
            self.miss(file);
        }
    }

    /// A directory in one of ours: new, or another under a known path, as when
    /// a link is swapped.
    fn enter(&mut self, path: &Path, identity: Identity, shelf: &mut Shelf) {
        if self
            .directories
            .get(path)
            .is_some_and(|it| it.identity == identity)
        {
            return;
        }
        // What the one before held is compared with what this one holds, so
        // that what is in both doesn't vanish in between.
        self.forget_watches(path);
        let above: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter_map(|it| self.directories.get(it))
            .map(|it| it.identity)
            .collect();
        let held: Vec<String> = self.files_below(path, shelf);
        self.scan(path, &above, shelf);
        for file in held {
            self.read(&self.root.join(&file), shelf);
        }
    }

    /// It is gone. The root's last state stays; of others all files are gone.
    fn leave(&mut self, directory: &Path, shelf: &mut Shelf) {
        match directory == self.root {
            true => self.forget_watches(&self.root.clone()),
            false => self.drop_directory(directory, shelf),
        }
    }

    fn drop_directory(&mut self, path: &Path, shelf: &mut Shelf) {
        self.forget_watches(path);
        for file in self.files_below(path, shelf) {
            self.miss(file);
        }
    }

    fn files_below(&self, path: &Path, shelf: &Shelf) -> Vec<String> {
        let below = |it: &&str| self.root.join(it).starts_with(path);
        shelf.paths().filter(below).map(str::to_owned).collect()
    }

    fn read(&mut self, path: &Path, shelf: &mut Shelf) {
        let name = self.name_of(path);
        self.unread.remove(path);
        match read_text(path) {
            Ok(text) => shelf.put(&name, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if shelf.has(&name) {
                    self.miss(name);
                }
            }
            Err(error) => {
                self.unread.insert(path.to_owned());
                let remedy =
                    "let the control plane read a text of at most 16 MiB; its last state holds";
                shelf.refuse(&name, format!("can't be read: {error}"), remedy);
            }
        }
    }

    /// As problems call it, and as files are ordered.
    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    String::from_utf8(fs::read(path)?).map_err(|_| io::Error::other("it is no UTF-8 text"))
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(is_hidden);
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    !hidden && matches!(extension, "yaml" | "yml" | "json")
}

/// Also where no problem could name it.
fn is_hidden(name: &OsStr) -> bool {
    name.to_str().is_none_or(|it| it.starts_with('.'))
}
