//! The cluster as an operator sees it: through `kubectl` and `helm`.
//!
//! Every command is bounded. Nothing here knows the mesh.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Of one `kubectl` request; what takes longer says so with `--timeout`.
const REQUEST: &str = "--request-timeout=60s";

/// What a command said, and whether it was content.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed.
    ///
    /// # Panics
    /// With both of its outputs, if it failed.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        assert!(self.ok, "{}\n{}", self.out, self.err);
        self.out
    }
}

/// # Panics
/// If there is no such program.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Said {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; tests/cluster/run puts it on the path")
        });
    let mut stdin = child.stdin.take().unwrap();
    // Who fails before it has read everything tells why by its status.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    Said::new(&child.wait_with_output().unwrap())
}

#[track_caller]
pub(crate) fn kubectl(args: &[&str]) -> Said {
    kubectl_with(args, "")
}

/// What takes longer than a request: so many seconds.
#[track_caller]
pub(crate) fn kubectl_for(seconds: usize, args: &[&str]) -> Said {
    let timeout = format!("--request-timeout={seconds}s");
    run("kubectl", &[&[timeout.as_str()], args].concat(), "")
}

/// With something on its standard input.
#[track_caller]
pub(crate) fn kubectl_with(args: &[&str], input: &str) -> Said {
    run("kubectl", &[&[REQUEST], args].concat(), input)
}

/// Creates or changes objects, in a namespace unless they name their own.
#[track_caller]
pub(crate) fn apply(namespace: &str, manifests: &str) -> Said {
    kubectl_with(
        &["--namespace", namespace, "apply", "--filename", "-"],
        manifests,
    )
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where what a failed test leaves behind is written.
pub(crate) fn failures() -> PathBuf {
    // The test program lies in TARGET/debug/deps.
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().join("cluster-failures")
}

/// A command in the network of the node that a pod runs on; none where the
/// cluster is somebody else's.
pub(crate) fn on_node(node: &str) -> Option<Command> {
    let number = node.strip_prefix("node")?;
    std::path::Path::new("/run/netns")
        .join(format!("knode{number}"))
        .exists()
        .then(|| {
            let mut command = Command::new(root().join("tests/cluster/kubernetes"));
            command.args(["node", number]);
            command
        })
}
