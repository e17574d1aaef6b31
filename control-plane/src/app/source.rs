//! From the sources to the hub.

use std::path::PathBuf;

use crate::{runtime::Task, serve::hub::Hub};

/// # Errors
/// When a directory can't be watched.
pub(crate) fn start(_directories: &[PathBuf], _hub: &Hub) -> anyhow::Result<Vec<Task>> {
    Ok(Vec::new())
}
