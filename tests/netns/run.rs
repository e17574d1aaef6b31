//! `weft run`, as root and as an ordinary user: names, signals, exit status,
//! sharing, and that nothing stays behind.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weft_tests::{programs::As, wait};

/// A mesh of its own, whose processes end with the test.
struct Mesh {
    user: As,
    directory: tempfile::TempDir,
}

impl Mesh {
    fn new(user: As) -> Self {
        let mesh = Self {
            user,
            directory: user.directory(),
        };
        let made = user
            .command("mkdir")
            .arg(mesh.path().join("manifests"))
            .status()
            .unwrap();
        assert!(made.success());
        mesh
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn manifest(&self, name: &str, text: &str) {
        let unfinished = self.path().join(name);
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.path().join("manifests").join(name)).unwrap();
    }

    /// `weft run --pod shop/<pod> <options> -- sh -c <script>`
    fn run(&self, pod: &str, options: &[&str], script: &str) -> Command {
        let mut command = self.user.weft();
        command
            .arg("run")
            .arg("--mesh")
            .arg(self.path())
            .args(["--pod", &format!("shop/{pod}")]);
        command
            .args(options)
            .args(["--", "sh", "-c", script])
            .current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, pod: &str, options: &[&str], script: &str) -> Output {
        self.run(pod, options, script).output().unwrap()
    }

    /// A program that has written `started` once it runs.
    fn start(&self, pod: &str, options: &[&str], script: &str) -> Running {
        let mark = self.path().join(format!("{pod}.started"));
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; {script}",
            mark.display()
        );
        let child = self.run(pod, options, &script).spawn().unwrap();
        let running = Running(child);
        until("the program starts", || mark.exists());
        running
    }

    /// Processes that have the mesh's directory in their command line.
    fn processes(&self) -> Vec<String> {
        let directory = self.path().display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|it| fs::read_to_string(it.path().join("cmdline")).ok());
        lines
            .filter(|line| line.contains(&directory))
            .map(|line| line.replace('\0', " "))
            .collect()
    }

    fn number_in(&self, file: &str) -> i32 {
        fs::read_to_string(self.path().join(file))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in fs::read_dir(self.path().join("logs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(log.path()).unwrap_or_default();
            eprintln!("== {}\n{text}", log.path().display());
        }
    }
}

/// Ended with the test that started it.
struct Running(Child);

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn code(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait::until(what, || holds().then_some(()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs until it answers, since a server is not there at once.
const FETCH: &str = "for i in $(seq 400); do curl -sf --max-time 5 http://cart/secret-path && exit 0; sleep 0.02; done; exit 1";

const SERVER: &str = "mkdir -p www && echo visible-secret > www/secret-path && exec python3 -m http.server --directory www 80 2>/dev/null";

const CART: &str = "
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop }
spec: { selector: { app: cart }, ports: [{ port: 80 }] }
";

fn for_everybody(test: impl Fn(As)) {
    for user in [As::Caller, As::User] {
        eprintln!("as {user:?}");
        test(user);
    }
}

#[test]
fn pods_of_two_commands_share_a_mesh_and_find_each_other_by_name() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        mesh.manifest("shop.yaml", CART);
        let _server = mesh.start("cart-0", &["--no-mesh"], SERVER);
        let got = mesh.output("front-0", &["--no-mesh"], FETCH);
        assert_eq!(
            text(&got.stdout),
            "visible-secret\n",
            "{}",
            text(&got.stderr)
        );
    });
}

#[test]
fn bytes_on_the_wire_are_readable_without_a_mesh_and_not_with_it() {
    for_everybody(|user| {
        for (options, readable) in [(&["--no-mesh"][..], true), (&[][..], false)] {
            let mesh = Mesh::new(user);
            mesh.manifest("shop.yaml", CART);
            let _server = mesh.start("cart-0", options, SERVER);
            let wire = mesh.path().join("wire.pcap");
            let options = [options, &["--capture", wire.to_str().unwrap()]].concat();
            let got = mesh.output("front-0", &options, FETCH);
            assert_eq!(
                text(&got.stdout),
                "visible-secret\n",
                "{}",
                text(&got.stderr)
            );
            let bytes = fs::read(wire).unwrap();
            let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|it| it == needle);
            assert!(bytes.len() > 500, "the exchange is in the capture");
            assert_eq!(holds(b"visible-secret"), readable);
            assert_eq!(holds(b"secret-path"), readable);
        }
    });
}

#[test]
fn the_exit_status_is_the_programs() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        for (script, code) in [
            ("exit 0", 0),
            ("exit 7", 7),
            ("kill -KILL $$", 137),
            ("exec /does/not/exist", 127),
        ] {
            assert_eq!(
                mesh.output("p-0", &["--no-mesh"], script).status.code(),
                Some(code),
                "{script}"
            );
        }
    });
}

#[test]
fn signals_reach_the_program() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ] {
            let name = signal.as_str().trim_start_matches("SIG");
            let script = format!("trap 'exit 9' {name}; : > trapped; while :; do sleep 0.01; done");
            let running = mesh.start("p-0", &["--no-mesh"], &script);
            until("the trap is set", || mesh.path().join("trapped").exists());
            running.signal(signal);
            assert_eq!(running.code(), Some(9), "{signal}");
            for mark in ["p-0.started", "trapped"] {
                fs::remove_file(mesh.path().join(mark)).unwrap();
            }
        }
    });
}

#[test]
fn a_killed_launcher_leaves_nothing_behind() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let script = "setsid sh -c 'echo $$ > daemon.new; mv daemon.new daemon; trap : TERM; while :; do sleep 1; done' & \
                      trap '' TERM; while :; do sleep 1; done";
        let running = mesh.start("p-0", &[], script);
        until("the daemon runs", || mesh.path().join("daemon").exists());
        running.signal(Signal::SIGKILL);
        let gone = |pid: i32| !Path::new("/proc").join(pid.to_string()).exists();
        until("program and daemon are gone", || {
            gone(mesh.number_in("daemon")) && gone(mesh.number_in("p-0.started"))
        });
        until("all processes of the mesh are gone", || {
            mesh.processes().is_empty()
        });
        assert_eq!(
            fs::read_dir(mesh.path())
                .unwrap()
                .flatten()
                .filter(|it| it.path().extension().is_some_and(|it| it == "sock"))
                .count(),
            0
        );
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(mesh.path().to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn a_killed_holder_ends_its_pods_and_the_next_run_founds_the_mesh_again() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let running = mesh.start("p-0", &[], "exec sleep 1000");
        let holder = fs::read_dir("/proc").unwrap().flatten().find_map(|it| {
            let line = fs::read_to_string(it.path().join("cmdline")).ok()?;
            let is_holder = line.contains("stage\0hold") && line.contains(mesh.path().to_str()?);
            is_holder
                .then(|| it.file_name().to_str()?.parse::<i32>().ok())
                .flatten()
        });
        kill(Pid::from_raw(holder.unwrap()), Signal::SIGKILL).unwrap();
        assert_eq!(running.code(), Some(143));
        until("all processes of the mesh are gone", || {
            mesh.processes().is_empty()
        });
        assert!(mesh.output("p-0", &[], "true").status.success());
    });
}

#[test]
fn first_starts_at_once_found_one_mesh() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let all: Vec<Child> = (0..4)
            .map(|i| {
                mesh.run(&format!("p-{i}"), &["--no-mesh"], "cat /etc/hosts")
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut addresses = std::collections::BTreeSet::new();
        for child in all {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            addresses.extend(
                text(&output.stdout)
                    .lines()
                    .filter(|it| it.starts_with("10.244."))
                    .map(str::to_owned),
            );
        }
        assert_eq!(addresses.len(), 4, "{addresses:?}");
    });
}

#[test]
fn a_program_has_its_callers_ids_and_no_power_over_its_network() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let script = "id -u; python3 -c 'import socket\ns = socket.socket()\ntry:\n  s.setsockopt(1, 36, 22359)\n  print(\"marked\")\nexcept PermissionError:\n  print(\"refused\")'; \
                      ip link set lo down 2>/dev/null && echo down; ulimit -c 0; \
                      unshare -Ur ip link set lo down 2>/dev/null && echo down; \
                      python3 -c 'import socket; socket.socket().bind((\"0.0.0.0\", 80)); print(\"bound\")'; true";
        let got = mesh.output("p-0", &["--no-mesh"], script);
        let own = text(&user.command("id").arg("-u").output().unwrap().stdout);
        assert_eq!(
            text(&got.stdout),
            format!("{own}refused\nbound\n"),
            "{}",
            text(&got.stderr)
        );
    });
}

#[test]
fn names_follow_the_manifests_under_a_running_program() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let script = "until getent ahostsv4 bank.pay | grep -q '^10.96.7.7 '; do sleep 0.02; done; touch found; \
                      while getent ahostsv4 bank.pay >/dev/null; do sleep 0.02; done";
        let running = mesh.start("p-0", &[], script);
        mesh.manifest("pay.yaml", "kind: Service\napiVersion: v1\nmetadata: { name: bank, namespace: pay }\nspec: { clusterIP: 10.96.7.7, ports: [{ port: 80 }] }\n");
        until("the name is there", || mesh.path().join("found").exists());
        fs::remove_file(mesh.path().join("manifests/pay.yaml")).unwrap();
        assert_eq!(running.code(), Some(0));
    });
}

#[test]
fn a_pod_runs_once_and_a_wrong_name_is_refused() {
    let mesh = Mesh::new(As::User);
    let _running = mesh.start("p-0", &["--no-mesh"], "exec sleep 1000");
    let second = mesh.output("p-0", &["--no-mesh"], "true");
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("shop/p-0 is running already"),
        "{}",
        text(&second.stderr)
    );
    let wrong = mesh.output("P_0", &["--no-mesh"], "true");
    assert!(
        text(&wrong.stderr).contains("NAMESPACE/NAME"),
        "{}",
        text(&wrong.stderr)
    );
}

#[test]
fn a_probe_that_can_not_be_made_is_refused_by_name() {
    let mesh = Mesh::new(As::User);
    mesh.manifest(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p-0, namespace: shop}\nspec: {containers: [{name: a, readinessProbe: {exec: {command: []}}}]}\n",
    );
    let refused = mesh.output("p-0", &["--no-mesh"], "true");
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("a readinessProbe exec has no command"),
        "{said}"
    );
}

#[test]
fn switched_off_user_namespaces_are_told_with_their_remedy() {
    let mesh = Mesh::new(As::User);
    let weft = As::User.weft().get_program().to_owned();
    // The limit holds below the namespace that it is set in.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces; exec {} run --mesh {} --pod shop/p-0 -- true",
        weft.display(),
        mesh.path().display()
    );
    let got = As::User
        .command("unshare")
        .args(["-Ur", "sh", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(got.status.code(), Some(1));
    let said = text(&got.stderr);
    assert!(
        said.contains("sysctl -w user.max_user_namespaces="),
        "{said}"
    );
}

#[test]
fn a_system_without_a_hosts_file_is_told_so_and_nothing_runs() {
    for_everybody(|user| {
        let mesh = Mesh::new(user);
        let weft = user.weft().get_program().to_owned();
        let script = format!(
            "mkdir etc && mount --bind etc /etc && exec {} run --mesh {} --pod shop/p-0 --no-mesh -- touch ran",
            weft.display(),
            mesh.path().display()
        );
        let mut command = user.command("unshare");
        command.args(["-Urm", "sh", "-c", &script]);
        let got = command.current_dir(mesh.path()).output().unwrap();
        let said = text(&got.stderr);
        assert!(!got.status.success(), "{said}");
        assert!(said.contains("/etc/hosts can't be replaced"), "{said}");
        assert!(!mesh.path().join("ran").exists());
        until("all processes of the mesh are gone", || {
            mesh.processes().is_empty()
        });
    });
}
