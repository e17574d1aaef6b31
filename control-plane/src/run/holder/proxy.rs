//! The sidecar of a pod under `weft run`: started, made ready, drained, ended.
//!
//! Owned by `run::holder::pod`. The proxy runs as root of the holder's user
//! namespace in the pod's network namespace; it is told apart from the program
//! by a packet mark, which the program can't set. Redirection stays when the
//! proxy dies, so nothing passes by it; it is started again.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::restart::Restart;
use crate::run::{found::log_file, own_stage};

/// On every packet of a proxy; any value that the host does not use in a
/// namespace of ours will do.
pub(crate) const MARK: u32 = 0x5757;

const HEALTH_PORT: u16 = 15021;
/// From the start of the proxy to readiness; a loaded machine needs seconds.
const START_LIMIT: Duration = Duration::from_secs(30);
/// What is over sooner is not worth a line.
const QUIET: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// Everything that a proxy is started from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) binary: PathBuf,
    /// Path by which a child opens the pod's network namespace.
    pub(crate) namespace: PathBuf,
    pub(crate) address: IpAddr,
    pub(crate) knobs: BTreeMap<&'static str, OsString>,
    pub(crate) excluded_inbound: Option<String>,
    pub(crate) excluded_outbound: Option<String>,
    pub(crate) admin: PathBuf,
    pub(crate) log: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    plan: Plan,
    child: Option<Child>,
    /// When a proxy that died is started again.
    again: Instant,
    restart: Restart,
}

impl Proxy {
    /// Redirects the pod's traffic, then starts the proxy: never the other way
    /// round, so that nothing passes by it.
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut redirect = plan.command(&["redirect", "--proxy-mark", &MARK.to_string()])?;
        for (option, ports) in [
            ("--exclude-inbound-ports", &plan.excluded_inbound),
            ("--exclude-outbound-ports", &plan.excluded_outbound),
        ] {
            if let Some(ports) = ports {
                redirect.arg(option).arg(ports);
            }
        }
        let said = redirect
            .stderr(Stdio::piped())
            .output()
            .await
            .context("weft-proxy redirect")?;
        if !said.status.success() {
            bail!(
                "weft-proxy redirect: {}",
                String::from_utf8_lossy(&said.stderr).trim()
            );
        }
        let child = plan.run()?;
        Ok(Self {
            plan,
            child: Some(child),
            again: Instant::now(),
            restart: Restart::new(),
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Waits for readiness; `waiting` hears what for.
    pub(crate) async fn ready(&mut self, mut waiting: impl FnMut(String)) -> anyhow::Result<()> {
        let (until, tell) = (Instant::now() + START_LIMIT, Instant::now() + QUIET);
        let mut last = String::new();
        while Instant::now() < until {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!(
                    "the proxy ended ({status}) before it was ready: {}",
                    self.last_words()
                );
            }
            match health(SocketAddr::new(self.plan.address, HEALTH_PORT)).await {
                Ok(Health::Ready) => return Ok(()),
                Ok(Health::Waits(what)) => last = what,
                // Not listening yet.
                Err(_) => "its start".clone_into(&mut last),
            }
            if Instant::now() >= tell {
                waiting(format!("the proxy waits for: {last}"));
            }
            sleep(POLL).await;
        }
        bail!(
            "the proxy is not ready after {} s ({last}); log: {}",
            START_LIMIT.as_secs(),
            self.plan.log.display()
        )
    }

    /// Never returns: starts it again whenever it dies. Can be dropped and
    /// called again at any await.
    pub(crate) async fn tend(&mut self) {
        loop {
            if let Some(child) = &mut self.child {
                let status = child.wait().await;
                self.child = None;
                let pause = self.restart.pause();
                self.again = Instant::now() + pause;
                tracing::warn!(log = %self.plan.log.display(), ?status, ?pause, "proxy died");
            }
            sleep_until(self.again).await;
            match self.plan.run() {
                Ok(child) => self.child = Some(child),
                Err(error) => {
                    tracing::error!(%error, "proxy not started");
                    self.again = Instant::now() + self.restart.pause();
                }
            }
        }
    }

    /// Its pod was told to stop.
    pub(crate) async fn drain(&self) {
        let command = self
            .plan
            .command(&["drain", "--socket"])
            .map(|mut command| {
                command.arg(&self.plan.admin);
                command
            });
        let done = match command {
            Ok(mut command) => command.status().await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        match done {
            Ok(status) if status.success() => {}
            other => tracing::warn!(?other, log = %self.plan.log.display(), "drain refused"),
        }
    }

    /// The program has ended: lets it finish what is in flight, for `grace`.
    pub(crate) async fn end(&mut self, grace: Duration) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have just ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if timeout(grace, child.wait()).await.is_err() {
            tracing::warn!(log = %self.plan.log.display(), ?grace, "proxy killed: it did not end in time");
            let _ = child.kill().await;
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.plan.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(5);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Plan {
    fn run(&self) -> anyhow::Result<Child> {
        self.command(&["run"])?.spawn().context("weft-proxy")
    }

    /// `weft-proxy ARGUMENTS` in the pod's network; dies with the holder.
    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let log = log_file(&self.log)?;
        let mut command = Command::from(own_stage("companion"));
        command.args(["--parent", &std::process::id().to_string()]);
        command
            .arg("--network-namespace")
            .arg(&self.namespace)
            .arg("--")
            .arg(&self.binary)
            .args(arguments);
        command
            .envs(&self.knobs)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }
}

/// A path by which a child can open what we have open.
pub(crate) fn path_of(file: &impl AsRawFd) -> PathBuf {
    Path::new("/proc")
        .join(std::process::id().to_string())
        .join("fd")
        .join(file.as_raw_fd().to_string())
}

/// A token is as good as a key: readable by its owner alone.
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let unfinished = path.with_extension("unfinished");
    let _ = fs::remove_file(&unfinished);
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    fs::rename(unfinished, path)
}

enum Health {
    Ready,
    Waits(String),
}

/// Asks as a kubelet would.
async fn health(address: SocketAddr) -> io::Result<Health> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.take(8 * 1024).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(Duration::from_secs(1), ask)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if answer.split_whitespace().nth(1) == Some("200") {
        return Ok(Health::Ready);
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let report: Value = serde_json::from_str(body).unwrap_or_default();
    let missing = report.get("waiting_for").and_then(Value::as_array);
    let missing: Vec<&str> = missing
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    Ok(Health::Waits(missing.join(", ")))
}
