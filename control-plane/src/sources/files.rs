//! The files source: a directory of manifests, watched.
//!
//! Before `index`, by way of `app`. Every `.yaml`, `.yml` and `.json` below the
//! directory counts, except in entries that begin with a dot; links are
//! followed. A file is read when somebody has finished writing it or has moved
//! it there, so that no half-written one is. What a file says holds until it is
//! complete without it (`shelf` knows what that means) or deleted.
//!
//! A change is out as soon as it is read. Only a file that is missing is given
//! a moment to come back (`tree`).

mod memory;
mod shelf;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask, Watches};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use crate::{model::FileProblem, sources::Update};
use memory::Memory;
use shelf::Shelf;
use tree::Tree;

/// The first update, empty or not, is the whole of it. Watches until the
/// receiver is gone. A directory that doesn't exist is waited
/// for, and one that has vanished keeps its last state until it is back. In
/// `memory`, a directory of this source's own, the last good texts outlive the
/// process.
///
/// # Errors
/// When the system refuses to watch.
pub(crate) async fn watch(
    directory: PathBuf,
    memory: Option<PathBuf>,
    updates: mpsc::Sender<Update>,
) -> io::Result<()> {
    let mut stream = Inotify::init()?.into_event_stream(vec![0; BUFFER])?;
    let mut source = Source {
        tree: Tree::new(directory.clone(), stream.watches()),
        shelf: Shelf::default(),
        memory: Memory::open(memory),
        told: None,
    };
    for (path, text) in source.memory.recall() {
        source.shelf.put(&path, &text);
    }
    loop {
        tokio::select! {
            there = wait_for(&directory, &mut stream) => there?,
            () = updates.closed() => return Ok(()),
        }
        source.tree.rescan(&mut source.shelf);
        if source.told.is_none() {
            // What was deleted before the start won't come back by itself.
            source.tree.give_up(&mut source.shelf);
        }
        while source.tree.is_there() {
            if let Some(update) = source.update()
                && updates.send(update).await.is_err()
            {
                return Ok(());
            }
            tokio::select! {
                batch = next(&mut stream) => source.tree.settle(&batch?, &mut source.shelf),
                () = until(source.tree.deadline()) => source.tree.give_up(&mut source.shelf),
                () = updates.closed() => return Ok(()),
            }
        }
        warn!(directory = %directory.display(), "the directory of manifests is gone: its last state holds");
    }
}

/// Some dozen events at once.
const BUFFER: usize = 16 * 1024;

struct Source {
    tree: Tree,
    shelf: Shelf,
    memory: Memory,
    told: Option<Vec<FileProblem>>,
}

impl Source {
    /// What nobody has been told yet.
    fn update(&mut self) -> Option<Update> {
        for (path, text) in self.shelf.take_good() {
            match text {
                Some(text) => self.memory.keep(&path, &text),
                None => self.memory.forget(&path),
            }
        }
        let events = self.shelf.take_events();
        let moved = self.shelf.take_moved();
        let problems = self.shelf.problems();
        if events.is_empty() && moved.is_empty() && self.told.as_ref() == Some(&problems) {
            return None;
        }
        for problem in &problems {
            let is_new = self
                .told
                .as_ref()
                .is_none_or(|told| !told.contains(problem));
            if is_new {
                let FileProblem {
                    file,
                    document,
                    line,
                    field,
                    message,
                    remedy,
                    ..
                } = problem;
                warn!(%file, ?document, line, %field, %message, %remedy, "manifest refused");
            }
        }
        self.told = Some(problems.clone());
        debug!(
            events = events.len(),
            problems = problems.len(),
            "manifests changed"
        );
        Some(Update {
            events,
            moved,
            problems,
            is_whole: true,
        })
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// All that has happened by now, at least one.
async fn next(stream: &mut EventStream<Vec<u8>>) -> io::Result<Vec<EventOwned>> {
    let ended = || io::Error::other("inotify ended");
    let mut batch = vec![stream.next().await.ok_or_else(ended)??];
    while let Some(Some(event)) = stream.next().now_or_never() {
        batch.push(event?);
    }
    Ok(batch)
}

/// Until it is a directory: watches the nearest one above it that there is.
async fn wait_for(directory: &Path, stream: &mut EventStream<Vec<u8>>) -> io::Result<()> {
    let mut watches: Watches = stream.watches();
    let mut warned = BTreeSet::new();
    while !directory.is_dir() {
        let above = directory.ancestors().skip(1).find(|it| it.is_dir());
        let above = above.unwrap_or_else(|| Path::new("."));
        let mask =
            WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        let watched = watches.add(above, mask)?;
        // It may have come between the look and the watch.
        if directory.is_dir() {
            watches.remove(watched)?;
            break;
        }
        if warned.insert(above.to_owned()) {
            warn!(directory = %directory.display(), "waiting for the directory of manifests");
        }
        let batch = next(stream).await?;
        let is_gone = |event: &EventOwned| event.mask.contains(EventMask::IGNORED);
        if !batch.iter().any(is_gone) {
            watches.remove(watched)?;
        }
    }
    Ok(())
}
