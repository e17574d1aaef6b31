//! A program under `weft run`, and what a test does in its place.
//!
//! Under `world`. A test works in a pod in three ways: it starts programs
//! there, it opens sockets there that it uses itself, and it reads what the
//! pod's proxy says. Dropping the pod kills it; `stop` ends it in order.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
    unistd::Pid,
};
use serde_json::Value;

use super::{
    mesh::Mesh,
    metrics::Metrics,
    processes,
    program::{Finished, Program},
};
use crate::wait::{self, PATIENCE};

const METRICS_PORT: u16 = 15020;
/// For a connection of the test itself.
const CONNECT: Duration = Duration::from_secs(10);

/// A pod that is still to be started.
#[derive(Debug)]
pub struct PodBuilder {
    mesh: Arc<Mesh>,
    name: String,
    options: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    ports: Vec<u16>,
}

impl PodBuilder {
    pub(super) fn new(mesh: Arc<Mesh>, name: &str) -> Self {
        Self {
            mesh,
            name: name.to_owned(),
            options: Vec::new(),
            environment: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// A further option of `weft run`, like `--label`.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.options.push(name.into());
        self.options.push(value.as_ref().to_owned());
        self
    }

    /// An option without a value, like `--no-mesh`.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }

    /// Of the program. Of the proxies and the control plane too when it is the
    /// world's first pod.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The program is ready when it listens here.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Starts it; returns when its proxy and its program are ready.
    ///
    /// # Panics
    /// When it can't be had, with what `weft run` and the program said.
    #[must_use]
    #[track_caller]
    pub fn run<T: AsRef<OsStr>>(self, command: impl IntoIterator<Item = T>) -> Pod {
        let (namespace, name) = super::split(&self.name);
        let marker = self
            .mesh
            .directory()
            .join(format!("{namespace}.{name}.pid"));
        let _ = fs::remove_file(&marker);
        let mut launcher = self.mesh.weft();
        launcher.args(["run", "--mesh"]).arg(self.mesh.directory());
        launcher.args(["--pod", &self.name]).args(&self.options);
        if !self.mesh.meshed {
            launcher.arg("--no-mesh");
        }
        launcher.envs(self.environment);
        // Names its process before it becomes the program.
        let tell = "echo $$ >\"$0.new\" && mv \"$0.new\" \"$0\" && exec \"$@\"";
        launcher
            .args(["--", "sh", "-c", tell])
            .arg(&marker)
            .args(command);
        let mut launcher = Program::start(&self.name, launcher);
        let program = wait::until("the program's process", || {
            let found = fs::read_to_string(&marker).ok()?.trim().parse().ok();
            assert!(
                found.is_some() || launcher.is_running(),
                "{}: {}",
                self.name,
                launcher.stderr()
            );
            found
        });
        let pod = Pod {
            launcher,
            program: Pid::from_raw(program),
            holder: self.mesh.holder().expect("a mesh with a pod has a holder"),
            mesh: self.mesh,
            name: self.name,
        };
        for port in self.ports {
            pod.listens(port);
        }
        pod
    }
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    // Dropped first: the launcher's end is the pod's.
    launcher: Program,
    program: Pid,
    holder: Pid,
    name: String,
    mesh: Arc<Mesh>,
}

impl Pod {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its `weft run`, whose output is the program's.
    #[must_use]
    pub fn launcher(&self) -> &Program {
        &self.launcher
    }

    /// The program's process.
    #[must_use]
    pub fn program(&self) -> Pid {
        self.program
    }

    /// Until something in the pod listens on a TCP port.
    #[track_caller]
    pub fn listens(&self, port: u16) {
        let found = wait::within(PATIENCE, || {
            processes::listens(self.program, port).then_some(())
        });
        assert!(
            found.is_some(),
            "nothing listens on {port} in {}: {}{}",
            self.name,
            self.launcher.stdout(),
            self.launcher.stderr()
        );
    }

    /// Gives its first address to another pod, and nobody is told.
    ///
    /// # Panics
    /// When `ip` can't.
    pub fn lose_address_to(&self, other: &Self) {
        let address = format!("{}/16", self.address());
        for (pod, verb) in [(self, "delete"), (other, "add")] {
            let done = pod.inside(|| {
                let arguments = ["address", verb, &address, "dev", "eth0"];
                Command::new("ip").args(arguments).status()
            });
            assert!(done.expect("ip is installed").success(), "{verb} {address}");
        }
    }

    /// Its first address.
    ///
    /// # Panics
    /// When the pod's hosts file doesn't name it.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.resolve(super::split(&self.name).1)
    }

    /// What a name means to the pod's programs, its first address.
    ///
    /// # Panics
    /// When it means nothing, after a while.
    #[must_use]
    pub fn resolve(&self, name: &str) -> IpAddr {
        if let Ok(address) = name.parse() {
            return address;
        }
        let hosts = self
            .mesh
            .directory()
            .join("pods")
            .join(self.dotted())
            .join("hosts");
        wait::until(&format!("an address of {name} in {}", self.name), || {
            let text = fs::read_to_string(&hosts).ok()?;
            text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                let address = words.next()?;
                words.any(|it| it == name).then(|| address.parse().ok())?
            })
        })
    }

    fn dotted(&self) -> String {
        self.name.replacen('/', ".", 1)
    }

    /// A program that will run in the pod as its own would; add arguments and start it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let of = |pid, name: &str| processes::file(pid, &format!("ns/{name}"));
        let option = |name: &str, pid, kind| {
            let mut text = OsString::from(format!("--{name}="));
            text.push(of(pid, kind));
            text
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter", "--preserve-credentials"]);
        // First into the namespace that owns the others, last into the program's own.
        command.arg(option("user", self.holder, "user"));
        command.args(["--", "nsenter", "--preserve-credentials"]);
        for (name, kind) in [
            ("net", "net"),
            ("mount", "mnt"),
            ("uts", "uts"),
            ("user", "user"),
        ] {
            command.arg(option(name, self.program, kind));
        }
        command.arg("--").arg(program);
        command
    }

    /// Starts a program in the pod.
    #[must_use]
    #[track_caller]
    pub fn start<T: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = T>) -> Program {
        let mut words = command.into_iter();
        let program = words.next().expect("a command has a name");
        let mut command = self.command(&program);
        command.args(words);
        Program::start(&program.as_ref().to_string_lossy(), command)
    }

    /// Runs a program in the pod to its end.
    #[must_use]
    #[track_caller]
    pub fn output<T: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = T>) -> Finished {
        self.start(command).finished()
    }

    /// Does something in the pod's network: sockets made there stay there.
    ///
    /// # Panics
    /// When the network can't be entered, or when `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = File::open(processes::file(self.program, "ns/net")).expect("the pod runs");
        let entered = || {
            setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            work()
        };
        // A thread of its own: what it enters it never leaves.
        let worked = thread::scope(|scope| scope.spawn(entered).join());
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Listens on a port, on every address of the pod.
    ///
    /// # Panics
    /// When it is taken.
    #[must_use]
    pub fn listen(&self, port: u16) -> TcpListener {
        self.inside(|| TcpListener::bind(("::", port)).expect("the port is free"))
    }

    /// Connects as a program of the pod would, to a name or an address.
    ///
    /// # Errors
    /// As the system says.
    pub fn try_connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(self.resolve(host), port);
        self.inside(|| TcpStream::connect_timeout(&to, CONNECT))
    }

    /// The same, with reads and writes that end after [`PATIENCE`].
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, host: &str, port: u16) -> TcpStream {
        let stream = self
            .try_connect(host, port)
            .unwrap_or_else(|error| panic!("{host}:{port} from {}: {error}", self.name));
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        stream
    }

    /// The process of its proxy; another one after it was killed.
    #[must_use]
    pub fn proxy(&self) -> Pid {
        let network = processes::network(self.program).expect("the pod runs");
        wait::until("the proxy's process", || processes::proxy_in(&network))
    }

    /// Private memory of its proxy, in bytes.
    #[must_use]
    pub fn proxy_memory(&self) -> u64 {
        let rollup =
            fs::read_to_string(processes::file(self.proxy(), "smaps_rollup")).unwrap_or_default();
        let kilobytes: u64 = rollup
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        kilobytes * 1024
    }

    /// What its proxy counts.
    ///
    /// # Panics
    /// When the metrics port doesn't answer.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let mut stream = self.connect(&self.address().to_string(), METRICS_PORT);
        let ask = "GET /metrics HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("the proxy listens");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the proxy answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Metrics(body.to_owned())
    }

    /// What its proxy logged of requests and connections that have ended.
    #[must_use]
    pub fn access_log(&self) -> Vec<Value> {
        let log = self.mesh.log(&self.dotted());
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line.get("target").is_some_and(|it| it == "access"))
            .collect()
    }

    /// Until the access log has a line that `fits`.
    #[track_caller]
    pub fn logs(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(
            &format!("{what} in the access log of {}", self.name),
            || self.access_log().into_iter().find(|line| fits(line)),
        )
    }

    pub fn signal(&self, signal: Signal) {
        self.launcher.signal(signal);
    }

    /// Ends it in order, as `weft run` does on SIGTERM.
    #[must_use]
    #[track_caller]
    pub fn stop(self) -> Finished {
        let Self { launcher, .. } = self;
        launcher.signal(Signal::SIGTERM);
        launcher.finished()
    }
}
