//! What happened, as inotify tells it, and what it asks for.
//!
//! Events of one moment are settled together: first each is judged, then
//! finished files are read and changed directories listed, once each.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use inotify::{EventMask, EventOwned, WatchDescriptor};
use tracing::warn;

use super::{Shelf, Tree, is_manifest};

/// What an event asks for.
enum Concern {
    Nothing,
    /// Somebody has finished this file.
    Finished(PathBuf),
    Missing(String),
    /// To be listed.
    Directory,
}

impl Tree {
    pub(in crate::sources::files) fn settle(&mut self, batch: &[EventOwned], shelf: &mut Shelf) {
        if batch
            .iter()
            .any(|event| event.mask.contains(EventMask::Q_OVERFLOW))
        {
            warn!("too many changes at once: reading all manifests anew");
            return self.rescan(shelf);
        }
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::new());
        for event in batch {
            let ended = event
                .mask
                .intersects(EventMask::IGNORED | EventMask::UNMOUNT);
            let mut missing = Vec::new();
            for directory in self.watched.get(&event.wd).into_iter().flatten() {
                match self.concerns(event, directory, shelf) {
                    Concern::Nothing => {}
                    Concern::Finished(path) => {
                        files.insert(path);
                    }
                    Concern::Missing(file) => missing.push(file),
                    Concern::Directory => {
                        directories.insert(directory.clone());
                    }
                }
            }
            missing.into_iter().for_each(|file| self.miss(file));
            if let Some(name) = &event.name
                && event
                    .mask
                    .intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO)
            {
                files.extend(self.links_to(&event.wd, name));
            }
            if ended {
                for path in self.watched.remove(&event.wd).into_iter().flatten() {
                    if let Some(directory) = self.directories.get_mut(&path) {
                        directory.watches.retain(|it| *it != event.wd);
                    }
                }
            }
        }
        for path in files {
            self.read(&path, shelf);
        }
        for directory in directories {
            if self.directories.contains_key(&directory) {
                self.list(&directory, shelf);
            }
        }
    }

    fn concerns(&self, event: &EventOwned, directory: &Path, shelf: &Shelf) -> Concern {
        let held = self.directories.get(directory);
        // What happens where a link leads names an entry there, not here.
        let is_here = held.is_some_and(|it| it.watches.first() == Some(&event.wd));
        let Some(path) = event.name.as_ref().map(|name| directory.join(name)) else {
            return Concern::Directory;
        };
        if !is_here || event.mask.contains(EventMask::ISDIR) {
            return Concern::Directory;
        }
        if event
            .mask
            .intersects(EventMask::DELETE | EventMask::MOVED_FROM)
        {
            let file = self.name_of(&path);
            return match (self.directories.contains_key(&path), shelf.has(&file)) {
                (true, _) => Concern::Directory,
                (false, true) => Concern::Missing(file),
                (false, false) => Concern::Nothing,
            };
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return Concern::Nothing;
        };
        if !metadata.is_file() {
            // A link, which others may lead through; or what only seems an entry.
            return Concern::Directory;
        }
        // Written to its end, or put in place whole: by a rename, as a hard link.
        let is_finished = event
            .mask
            .intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO)
            || (event.mask == EventMask::CREATE && metadata.nlink() > 1)
            || (event.mask == EventMask::ATTRIB && self.unread.contains(&path));
        match is_finished && is_manifest(&path) {
            true => Concern::Finished(path),
            false => Concern::Nothing,
        }
    }

    /// Links whose file is called so, in directories that this watch is for.
    fn links_to(&self, watch: &WatchDescriptor, name: &OsStr) -> Vec<PathBuf> {
        let directories = self.watched.get(watch);
        let is_watched = |link: &Path| {
            let parent = link.parent();
            parent.is_some_and(|it| directories.is_some_and(|all| all.contains(it)))
        };
        let leads =
            |link: &Path| fs::canonicalize(link).is_ok_and(|it| it.file_name() == Some(name));
        self.links
            .keys()
            .filter(|it| is_watched(it) && leads(it))
            .cloned()
            .collect()
    }
}
