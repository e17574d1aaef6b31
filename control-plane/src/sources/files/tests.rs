//! A real directory, changed as people and programs change it.

mod broken;
mod cookbook;
mod watching;

use std::{fs, path::Path, time::Duration};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::model::{Event, Key, Kind, Name, Object};

/// A directory and who watches it.
struct World {
    directory: TempDir,
    updates: mpsc::Receiver<Update>,
    tasks: JoinSet<()>,
}

impl World {
    /// Watches `below` a directory prepared by `fill`.
    fn with(below: &str, fill: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        Self::over(directory, below, None)
    }

    fn over(directory: TempDir, below: &str, memory: Option<PathBuf>) -> Self {
        let (sender, updates) = mpsc::channel(16);
        let root = directory.path().join(below);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { watch(root, memory, sender).await.unwrap() });
        Self {
            directory,
            updates,
            tasks,
        }
    }

    /// The control plane starts again.
    async fn restarted(mut self, below: &str, memory: Option<PathBuf>) -> Self {
        self.tasks.shutdown().await;
        Self::over(self.directory, below, memory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn update(&mut self) -> Update {
        let update = tokio::time::timeout(Duration::from_secs(20), self.updates.recv()).await;
        update.expect("an update in time").expect("a watcher")
    }

    /// Of the next update: what is there now as "+name", what is gone as "-name".
    async fn told(&mut self) -> Vec<String> {
        told(&self.update().await)
    }
}

fn told(update: &Update) -> Vec<String> {
    let mut told: Vec<_> = update
        .events
        .iter()
        .map(|event| match event {
            Event::Apply(object) => format!("+{}", object.key().name),
            Event::Delete(key) => format!("-{}", key.name),
        })
        .collect();
    told.sort();
    told
}

fn service(name: &str) -> String {
    service_on(name, 80)
}

fn service_on(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.0.0.1, ports: [{{port: {port}}}]}}\n---\n"
    )
}

fn key(name: &str) -> Key {
    Key {
        kind: Kind::Service,
        name: Name::new("shop", name),
    }
}
