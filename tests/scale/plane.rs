//! The control plane's own program, and what the system says that it uses.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use tempfile::TempDir;
use weft_tests::{programs, wait};

/// Much longer than it may need: a loaded machine gives it little.
const PATIENCE: Duration = Duration::from_secs(300);

/// Killed when it is dropped.
pub(crate) struct Plane {
    child: Child,
    directory: TempDir,
    pub(crate) listen: SocketAddr,
    health: SocketAddr,
}

impl Plane {
    /// Reads the cluster at `api_server`.
    pub(crate) fn start(api_server: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: large\n\
             clusters: [{{name: large, cluster: {{server: \"http://{api_server}\"}}}}]\n\
             users: [{{name: large, user: {{}}}}]\n\
             contexts: [{{name: large, context: {{cluster: large, user: large}}}}]\n"
        );
        fs::write(&kubeconfig, text).unwrap();
        let (listen, health) = (free(), free());
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program())
            .args(["--source", "kubernetes", "--authority", "state-dir"])
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .args(["--listen", &listen.to_string()])
            .args(["--health-listen", &health.to_string()])
            .env("KUBECONFIG", kubeconfig)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            directory,
            listen,
            health,
        }
    }

    /// With `state` in it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Everything was read, and proxies are answered.
    pub(crate) fn wait_until_ready(&mut self) {
        let health = self.health;
        let ready = wait::within(PATIENCE, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            is_ready(health)
        });
        assert!(ready.is_some(), "not ready: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }

    /// Of all its threads, those that have ended too.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = self.file("stat");
        // The second field is a name in parentheses that may hold anything.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().unwrap()).sum();
        let each = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        Duration::from_secs(ticks) / u32::try_from(each).unwrap()
    }

    /// Bytes that it has, and that it ever had.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let status = self.file("status");
        let of = |field: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|it| it.strip_prefix(field)).unwrap();
            let value = value.trim().trim_end_matches(" kB");
            value.parse::<u64>().unwrap() * 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _has_ended = self.child.wait();
    }
}

/// Of `make programs`: a debug build says little.
fn program() -> PathBuf {
    let built = programs::directory().with_file_name("fast");
    let program = built.join("weft-control-plane");
    assert!(
        program.is_file(),
        "make programs builds {}",
        program.display()
    );
    program
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn is_ready(health: SocketAddr) -> Option<()> {
    let mut socket = TcpStream::connect(health).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = b"GET /ready HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n";
    socket.write_all(request).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(())
}
