//! The mesh's own control plane: started, and started again when it dies.
//!
//! It runs beside the switch, in no pod; proxies reach it over a unix socket,
//! which network namespaces don't separate.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{Hold, restart::Restart, sibling};
use crate::{
    run::{addresses::RANGES, found::log_file, mesh::Mesh, own_stage},
    runtime::{self, Task},
};

const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct ControlPlane {
    to_end: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    _task: Task,
}

impl ControlPlane {
    pub(crate) fn start(mesh: &Mesh, options: &Hold) -> Self {
        let (to_end, asked_to_end) = oneshot::channel();
        let (has_ended, ended) = oneshot::channel();
        let (mesh, options) = (mesh.clone(), options.clone());
        let task = runtime::spawn(async move {
            keep(&mesh, &options, asked_to_end).await;
            let _ = has_ended.send(());
        });
        Self {
            to_end,
            ended,
            _task: task,
        }
    }

    /// Ends it in order, then answers.
    pub(crate) async fn end(self) {
        let _ = self.to_end.send(());
        let _ = self.ended.await;
    }
}

/// Waits until the mesh's own control plane can be reached, and so has made
/// what proxies trust.
pub(crate) async fn ready(mesh: &Mesh) -> anyhow::Result<()> {
    let until = Instant::now() + START_LIMIT;
    while UnixStream::connect(mesh.control_socket()).await.is_err() {
        if Instant::now() > until {
            let log = mesh.log("control-plane");
            bail!("the control plane does not answer; log: {}", log.display());
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn keep(mesh: &Mesh, options: &Hold, mut asked_to_end: oneshot::Receiver<()>) {
    let mut restart = Restart::new();
    loop {
        match spawn(mesh, options) {
            Ok(mut child) => tokio::select! {
                status = child.wait() => tracing::warn!(?status, "control plane died"),
                _ = &mut asked_to_end => return end(child).await,
            },
            Err(error) => tracing::error!(%error, "control plane not started"),
        }
        let pause = restart.pause();
        tracing::info!(?pause, "control plane is started again");
        tokio::select! {
            () = sleep(pause) => {}
            _ = &mut asked_to_end => return,
        }
    }
}

async fn end(mut child: Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have just ended.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!(?GRACE, "control plane killed: it did not end in time");
        let _ = child.kill().await;
    }
}

fn spawn(mesh: &Mesh, options: &Hold) -> anyhow::Result<Child> {
    let log = log_file(&mesh.log("control-plane"))?;
    let mut command = Command::from(own_stage("companion"));
    command.args(["--parent", &std::process::id().to_string(), "--"]);
    command.arg(sibling("weft-control-plane")?);
    // The later source's object replaces an earlier one's of the same name.
    for directory in [&options.manifests, &mesh.generated()] {
        command
            .arg("--source")
            .arg(format!("files:{}", directory.display()));
    }
    command.arg("--state-dir").arg(mesh.state());
    command
        .arg("--listen")
        .arg(format!("unix:{}", mesh.control_socket().display()));
    command.arg("--status-socket").arg(mesh.status_socket());
    if let Some(trust_domain) = &options.trust_domain {
        command.args(["--trust-domain", trust_domain]);
    }
    for range in RANGES {
        command.args(["--range", range]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().context("weft-control-plane")
}
