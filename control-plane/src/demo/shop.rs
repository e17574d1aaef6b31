//! The shop: a mesh in a temporary directory, its manifests and its programs.
//!
//! Made by `demo`, used by every step, closed at the end whatever happened.
//! Real programs are taken where they are installed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use futures_util::future::join_all;
use tokio::{
    net::UnixStream,
    time::{interval, timeout},
};

use super::{
    caller::{Caller, LOOK},
    job::Target,
    program::{Plan, Program},
};
use crate::{
    cli::asking,
    report::Report,
    run::mesh::{Mesh, write_atomically},
};

/// Short, so that rotation can be seen: a proxy renews after three fifths. What
/// is left then is for a control plane that is away.
pub(crate) const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30);

/// Where programs are, of which some are not on an ordinary user's path.
const PROGRAMS: [&str; 5] = [
    "/usr/sbin",
    "/usr/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/sbin",
];

/// The holder ends two seconds after the last pod.
const HOLDER_ENDS: Duration = Duration::from_secs(8);

const MANIFESTS: [(&str, &str); 3] = [
    ("shop.yaml", include_str!("manifests/shop.yaml")),
    ("canary.yaml", include_str!("manifests/canary.yaml")),
    ("stock.yaml", include_str!("manifests/stock.yaml")),
];
pub(crate) const PAYMENT: (&str, &str) = ("payment.yaml", include_str!("manifests/payment.yaml"));
pub(crate) const CART: (&str, &str) = ("cart.yaml", include_str!("manifests/cart.yaml"));
const NGINX: &str = include_str!("manifests/nginx.conf");

#[derive(Debug)]
pub(crate) struct Shop {
    mesh: Mesh,
    programs: BTreeMap<&'static str, Program>,
    shopper: Option<Caller>,
    guest: Option<Caller>,
    nginx: Option<PathBuf>,
    redis: Option<PathBuf>,
}

impl Shop {
    /// # Errors
    /// When there is no place for its directory.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let template = std::env::temp_dir().join("weft-demo-XXXXXX");
        let directory = nix::unistd::mkdtemp(&template).context("temporary directory")?;
        let mesh = Mesh::open(Some(&directory))?;
        for directory in [
            mesh.manifests(),
            directory.join("faults"),
            directory.join("nginx"),
        ] {
            fs::create_dir(directory)?;
        }
        for (file, text) in MANIFESTS {
            fs::write(mesh.manifests().join(file), text)?;
        }
        Ok(Self {
            mesh,
            programs: BTreeMap::new(),
            shopper: None,
            guest: None,
            nginx: installed("nginx"),
            redis: installed("redis-server"),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.mesh.directory()
    }

    /// Programs by service, with their versions.
    pub(crate) fn programs(&self) -> BTreeMap<&'static str, String> {
        let own = |what: &str| format!("our own {what}");
        let version =
            |path: &Option<PathBuf>, option| path.as_deref().map(|it| version(it, option));
        BTreeMap::from([
            (
                "front",
                version(&self.nginx, "-v")
                    .unwrap_or_else(|| own("HTTP service (nginx is not installed)")),
            ),
            (
                "store",
                version(&self.redis, "--version")
                    .unwrap_or_else(|| own("memory in cart (Redis is not installed)")),
            ),
            ("catalog", own("HTTP service, two versions")),
            ("cart", own("HTTP service that speaks Redis' protocol")),
            ("stock", own("HTTP service, three pods")),
            ("payment", own("gRPC service")),
        ])
    }

    /// Pods that have a sidecar once everything is open.
    pub(crate) fn pods(&self) -> Vec<&'static str> {
        let callers = ["guest-0", "shopper-0"];
        let mut pods: Vec<_> = self.programs.keys().copied().chain(callers).collect();
        pods.sort_unstable();
        pods
    }

    // ── programs ────────────────────────────────────────────────────────────

    /// Starts what is not there yet of `pods`.
    pub(crate) fn start(
        &mut self,
        pods: &[&'static str],
        options: &[OsString],
    ) -> anyhow::Result<()> {
        for pod in pods {
            let Some(command) = self.command(pod)? else {
                continue;
            };
            let program = Program::start(&self.plan(pod, options, command), false)?;
            self.programs.insert(pod, program);
        }
        Ok(())
    }

    pub(crate) fn start_shopper(&mut self, options: &[OsString]) -> anyhow::Result<()> {
        let plan = self.plan("shopper-0", options, service(&["caller"])?);
        self.shopper = Some(Caller::start(&plan)?);
        Ok(())
    }

    pub(crate) fn start_guest(&mut self) -> anyhow::Result<()> {
        let plan = self.plan("guest-0", &[], service(&["caller"])?);
        self.guest = Some(Caller::start(&plan)?);
        Ok(())
    }

    pub(crate) async fn end(&mut self, pods: &[&'static str]) {
        let mut ending: Vec<Program> = pods
            .iter()
            .filter_map(|it| self.programs.remove(it))
            .collect();
        join_all(ending.iter_mut().map(Program::end)).await;
    }

    pub(crate) async fn end_shopper(&mut self) {
        if let Some(shopper) = self.shopper.take() {
            shopper.end().await;
        }
    }

    /// # Errors
    /// When one of them has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.programs.values_mut().try_for_each(Program::check)
    }

    pub(crate) fn shopper(&mut self) -> anyhow::Result<&mut Caller> {
        self.shopper
            .as_mut()
            .context("the shopper has not been started")
    }

    pub(crate) fn guest(&mut self) -> anyhow::Result<&mut Caller> {
        self.guest
            .as_mut()
            .context("the guest has not been started")
    }

    fn plan(&self, pod: &'static str, options: &[OsString], command: Vec<OsString>) -> Plan {
        Plan {
            mesh: self.directory().to_path_buf(),
            pod,
            options: options.to_vec(),
            command,
            certificate_lifetime: CERTIFICATE_LIFETIME,
        }
    }

    /// `None`: nothing runs in this pod here.
    fn command(&self, pod: &'static str) -> anyhow::Result<Option<Vec<OsString>>> {
        let faults = self.fault(pod);
        let web = |says: &str| -> anyhow::Result<_> {
            let mut command = service(&["web", "--name", pod, "--says", says, "--fails-while"])?;
            command.push(faults.clone().into());
            Ok(Some(command))
        };
        match pod {
            "front-0" => self.front().map(Some),
            "store-0" => Ok(self.redis.as_ref().map(|redis| {
                let options = [
                    "--save",
                    "",
                    "--bind",
                    "*",
                    "-::*",
                    "--protected-mode",
                    "no",
                    "--dir",
                ];
                let mut command = vec![redis.into()];
                command.extend(options.map(OsString::from));
                command.push(self.directory().into());
                command
            })),
            "catalog-v1-0" => web("teapots"),
            "catalog-v2-0" => web("teapots and kettles"),
            "cart-0" => {
                let mut command = service(&["cart", "--name", pod])?;
                if self.redis.is_some() {
                    command.extend(["--store", "store.shop:6379"].map(OsString::from));
                }
                Ok(Some(command))
            }
            "payment-0" => service(&["payment", "--name", pod, "--refuses-every", "10"]).map(Some),
            _ => web("7 left"),
        }
    }

    fn front(&self) -> anyhow::Result<Vec<OsString>> {
        let Some(nginx) = &self.nginx else {
            return service(&["front", "--name", "front-0"]);
        };
        let directory = self.directory().join("nginx");
        let configuration = directory.join("nginx.conf");
        fs::write(
            &configuration,
            NGINX.replace("DIRECTORY", &directory.display().to_string()),
        )?;
        Ok([
            nginx.as_os_str(),
            "-p".as_ref(),
            directory.as_os_str(),
            "-e".as_ref(),
            "stderr".as_ref(),
            "-c".as_ref(),
            configuration.as_os_str(),
        ]
        .map(OsString::from)
        .to_vec())
    }

    // ── what anybody could do by hand ───────────────────────────────────────

    /// Puts a manifest in place, whole.
    pub(crate) fn apply(&self, (file, text): (&str, &str)) -> anyhow::Result<()> {
        write_atomically(&self.mesh.manifests().join(file), text.as_bytes()).context("manifest")
    }

    /// Edits a manifest as an editor would.
    pub(crate) fn edit(
        &self,
        file: &str,
        edit: impl FnOnce(String) -> String,
    ) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.mesh.manifests().join(file))?;
        self.apply((file, &edit(text)))
    }

    /// While this file exists, the pod answers 503.
    pub(crate) fn fault(&self, pod: &str) -> PathBuf {
        self.directory().join("faults").join(pod)
    }

    /// The last line in the log of a pod's proxy that has all of `parts`.
    pub(crate) fn proxy_said(&self, pod: &str, parts: &[&str]) -> Option<String> {
        let log = fs::read(self.mesh.log(&format!("shop.{pod}"))).ok()?;
        let log = String::from_utf8_lossy(&log);
        let line = log
            .lines()
            .rev()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(ToOwned::to_owned)
    }

    /// What `weft status` shows; an error while there is no control plane.
    pub(crate) async fn status(&self) -> anyhow::Result<Report> {
        asking::fetch(&self.mesh.status_socket(), "/status").await
    }

    /// Of the control plane, if it runs: whoever listens on its socket.
    pub(crate) async fn control_plane(&self) -> Option<i32> {
        let stream = UnixStream::connect(self.mesh.status_socket()).await.ok()?;
        stream.peer_cred().ok()?.pid()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Report) -> bool,
    ) -> anyhow::Result<Report> {
        let mut look = interval(LOOK);
        let wait = async {
            loop {
                look.tick().await;
                self.check()?;
                if let Ok(report) = self.status().await
                    && wanted(&report)
                {
                    return anyhow::Ok(report);
                }
            }
        };
        timeout(limit, wait)
            .await
            .context("the mesh did not come to the state that it should")?
    }

    /// Waits until a service answers the shopper.
    pub(crate) async fn until_open(&mut self, target: Target) -> anyhow::Result<()> {
        let answered = self.shopper()?.until_ok(target).await.map(|_| ());
        // That a program has ended says more than that it didn't answer.
        self.check()?;
        answered
    }

    /// Ends everything, and leaves nothing.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        let mut programs: Vec<Program> = std::mem::take(&mut self.programs).into_values().collect();
        let callers = [self.shopper.take(), self.guest.take()];
        let callers = join_all(callers.into_iter().flatten().map(Caller::end));
        tokio::join!(join_all(programs.iter_mut().map(Program::end)), callers);
        let mut look = interval(LOOK);
        let gone = async {
            // It lets go of the lock when it has taken away what it made.
            while self.mesh.holder_socket().exists() || !is_free(&self.mesh.lock()) {
                look.tick().await;
            }
        };
        let gone = timeout(HOLDER_ENDS, gone).await;
        fs::remove_dir_all(self.directory())
            .with_context(|| format!("{} remains", self.directory().display()))?;
        gone.context("the holder of the mesh has not ended")
    }
}

/// Nobody holds it, or it was never made.
fn is_free(lock: &Path) -> bool {
    fs::File::open(lock).is_ok_and(|lock| lock.try_lock().is_ok()) || !lock.exists()
}

/// One of our own programs.
fn service(role: &[&str]) -> anyhow::Result<Vec<OsString>> {
    let mut command = vec![std::env::current_exe()?.into(), "demo-service".into()];
    command.extend(role.iter().map(OsString::from));
    Ok(command)
}

fn installed(program: &str) -> Option<PathBuf> {
    let mut places = PROGRAMS.iter().map(|place| Path::new(place).join(program));
    places.find(|path| path.is_file())
}

/// As the program says it, in its first line.
fn version(program: &Path, option: &str) -> String {
    let said = Command::new(program).arg(option).output();
    let text = said
        .map(|it| [it.stdout, it.stderr].concat())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    match line.split_once("nginx version: ") {
        Some((_, version)) => version.to_owned(),
        None => line.split(" sha=").next().unwrap_or(line).to_owned(),
    }
}
