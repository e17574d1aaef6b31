//! A program of the demo in its pod: `weft run`, as anybody would type it.
//!
//! Under `demo::shop` and `demo::caller`. What it says goes to a log; it dies
//! with the demo, however that ends, and its terminal's signals are ours.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::run::own_stage;

/// Between asking and killing.
const GRACE: Duration = Duration::from_secs(5);

/// How `weft run` is asked for a pod.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mesh: PathBuf,
    /// Below the namespace `shop`.
    pub(crate) pod: &'static str,
    /// Further options of `weft run`.
    pub(crate) options: Vec<OsString>,
    pub(crate) command: Vec<OsString>,
    /// Of the certificates, if this is the run that founds the mesh.
    pub(crate) certificate_lifetime: Duration,
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) child: Child,
    log: PathBuf,
    pod: &'static str,
}

impl Program {
    /// Its standard streams are ours if `talks`.
    pub(crate) fn start(plan: &Plan, talks: bool) -> anyhow::Result<Self> {
        let logs = plan.mesh.join("programs");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{}.log", plan.pod));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::from(own_stage("companion"));
        command
            .args(["--parent", &std::process::id().to_string(), "--"])
            .arg(std::env::current_exe()?)
            .arg("run")
            .arg("--mesh")
            .arg(&plan.mesh)
            .args(["--pod", &format!("shop/{}", plan.pod)])
            .args(&plan.options)
            .arg("--")
            .args(&plan.command)
            .env(
                "WEFT_CERTIFICATE_LIFETIME",
                format!("{}s", plan.certificate_lifetime.as_secs()),
            )
            .stdin(if talks { Stdio::piped() } else { Stdio::null() })
            .stderr(file.try_clone()?)
            .stdout(if talks { Stdio::piped() } else { file.into() })
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().context(plan.pod)?;
        Ok(Self {
            child,
            log,
            pod: plan.pod,
        })
    }

    /// # Errors
    /// When it has ended: what it said last.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended, {status}: {}", self.pod, last_words(&self.log)),
            None => Ok(()),
        }
    }

    /// Asks it to stop, and waits; kills it in the end.
    pub(crate) async fn end(&mut self) {
        self.child.stdin.take();
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have just ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if timeout(GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

pub(crate) fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(3);
    lines.get(from..).unwrap_or_default().join("; ")
}
