//! Watches, and the paths that each is for.
//!
//! A directory has its own; the directories that its links lead to have further
//! ones on its behalf. A watch ends with its last path.

use std::{fs, io, path::Path};

use inotify::{WatchDescriptor, WatchMask};

use super::Tree;

impl Tree {
    pub(super) fn add_watch(
        &mut self,
        path: &Path,
        on_behalf: &Path,
    ) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let watch = self.watches.add(path, mask)?;
        self.watched
            .entry(watch.clone())
            .or_default()
            .insert(on_behalf.to_owned());
        Ok(watch)
    }

    /// A link's file changes where it is.
    pub(super) fn watch_target(&mut self, directory: &Path, link: &Path) {
        let Ok(target) = fs::canonicalize(link) else {
            return;
        };
        let Some(parent) = target.parent() else {
            return;
        };
        if let Ok(watch) = self.add_watch(parent, directory)
            && let Some(directory) = self.directories.get_mut(directory)
            && !directory.watches.contains(&watch)
        {
            directory.watches.push(watch);
        }
    }

    /// Of a directory and all below it.
    pub(super) fn forget_watches(&mut self, path: &Path) {
        self.links.retain(|link, _| !link.starts_with(path));
        let below: Vec<_> = self
            .directories
            .keys()
            .filter(|it| it.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            let Some(directory) = self.directories.remove(&path) else {
                continue;
            };
            for watch in directory.watches {
                let Some(paths) = self.watched.get_mut(&watch) else {
                    continue;
                };
                paths.remove(&path);
                if paths.is_empty() {
                    self.watched.remove(&watch);
                    // It may have ended with its directory.
                    let _ = self.watches.remove(watch);
                }
            }
        }
    }
}
