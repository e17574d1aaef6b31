//! Follows the user's manifests, for their services' addresses and names.
//!
//! Reacts to a finished write, a rename and a removal, as the control plane's
//! own source does.

use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};

use super::state::Holder;
use crate::runtime::{self, Task};

pub(crate) fn follow(holder: Arc<Holder>) -> anyhow::Result<Task> {
    let directory = &holder.options.manifests;
    let inotify = Inotify::init()?;
    let finished =
        WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    inotify
        .watches()
        .add(directory, finished)
        .with_context(|| format!("manifests {}", directory.display()))?;
    let mut events = inotify.into_event_stream([0; 4096])?;
    holder.reread();
    Ok(runtime::spawn(async move {
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                tracing::warn!(%error, "events of the manifests' directory lost");
            }
            holder.reread();
        }
    }))
}
