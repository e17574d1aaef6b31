//! A whole mesh for a test: `weft run` with real programs in a directory of its own.
//!
//! A [`World`] is a mesh directory and its manifests, a [`Pod`] is a program
//! under `weft run` in it, and a [`Program`] is whatever else a test starts in
//! a pod. The same world can be had without a mesh, to compare. Everything that
//! was started ends when the last of them is dropped: processes, namespaces,
//! mounts, files.
//!
//! ```no_run
//! use weft_tests::world::{self, World};
//!
//! let world = World::new(&world::service("shop/web", &[80]));
//! let web = world.pod("shop/web-0").port(80).run(["python3", "-m", "http.server", "80"]);
//! let client = world.idle("shop/client-0");
//! assert!(client.output(["curl", "--silent", "web.shop"]).status.success());
//! assert!(web.metrics().contains("weft_"));
//! ```

mod mesh;
mod metrics;
mod pod;
mod processes;
mod program;

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::mesh::Mesh;
pub use self::{
    metrics::Metrics,
    pod::{Pod, PodBuilder},
    program::{Finished, Program},
};
use crate::wait;

/// A mesh directory and all that lives from it.
#[derive(Clone, Debug)]
pub struct World {
    mesh: Arc<Mesh>,
}

/// Can this process make a world with everything in it? Says why when it can't.
#[must_use]
pub fn possible() -> bool {
    let possible = nix::unistd::geteuid().is_root();
    if !possible {
        let why = "entering a pod's network from a test needs root";
        // Past what the test runner captures, as `tests/run.sh` counts it.
        let _unheard = writeln!(io::stderr(), "SKIPPED: {why}");
    }
    possible
}

/// Manifests of a meshed namespace.
#[must_use]
pub fn namespace(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{weft.dev/inject: enabled}}}}\n---\n"
    )
}

/// Manifests of service "namespace/name" on ports whose targets have the same
/// numbers, and of its namespace. Its pods are NAME-0, NAME-1, ….
#[must_use]
pub fn service(name: &str, ports: &[u16]) -> String {
    let (space, name) = split(name);
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("{{name: p{port}, port: {port}, targetPort: {port}}}"))
        .collect();
    format!(
        "{}apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {space}}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{}]\n---\n",
        namespace(space),
        ports.join(", ")
    )
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').expect("a name is NAMESPACE/NAME")
}

impl World {
    /// With sidecars. `manifests` are what its control plane reads first.
    #[must_use]
    pub fn new(manifests: &str) -> Self {
        Self::with(true, manifests, &[])
    }

    /// The same programs, networks and names, but no sidecars.
    #[must_use]
    pub fn without_mesh(manifests: &str) -> Self {
        Self::with(false, manifests, &[])
    }

    /// With knobs (`WEFT_…`) of its proxies and its control plane.
    #[must_use]
    pub fn with(meshed: bool, manifests: &str, knobs: &[(&str, &str)]) -> Self {
        let knobs = knobs
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        let world = Self {
            mesh: Arc::new(Mesh::new(meshed, knobs)),
        };
        world.write_manifest("first.yaml", manifests);
        world
    }

    #[must_use]
    pub fn is_meshed(&self) -> bool {
        self.mesh.meshed
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.mesh.directory()
    }

    /// A fresh directory for a program's files, open to every user.
    #[must_use]
    pub fn scratch(&self, name: &str) -> std::path::PathBuf {
        self.mesh.scratch(name)
    }

    /// Where those directories are.
    #[must_use]
    pub fn scratch_root(&self) -> &Path {
        self.mesh.scratch_root()
    }

    /// Whole or not at all, as an editor does.
    pub fn write_manifest(&self, file: &str, text: &str) {
        let path = self.directory().join("manifests").join(file);
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, text).expect("manifests can be written");
        fs::rename(unfinished, path).expect("manifests can be written");
    }

    pub fn remove_manifest(&self, file: &str) {
        fs::remove_file(self.directory().join("manifests").join(file)).expect("it was written");
    }

    /// A pod "namespace/name" that is still to be started.
    #[must_use]
    pub fn pod(&self, name: &str) -> PodBuilder {
        PodBuilder::new(Arc::clone(&self.mesh), name)
    }

    /// A pod whose program does nothing: for programs and sockets of the test.
    #[must_use]
    pub fn idle(&self, name: &str) -> Pod {
        self.pod(name).run(["sleep", "infinity"])
    }

    /// Of `holder`, `control-plane`, or a pod's proxy as `namespace.name`.
    #[must_use]
    pub fn log(&self, of: &str) -> String {
        self.mesh.log(of)
    }

    /// The CLI, with the world's knobs; add arguments and start it.
    #[must_use]
    pub fn weft(&self) -> std::process::Command {
        self.mesh.weft()
    }

    /// `weft status --output json`.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        self.told("status", &[])
    }

    /// `weft explain --output json` of a GET.
    #[must_use]
    pub fn explain(&self, from: &str, to: &str) -> serde_json::Value {
        self.told("explain", &["--from", from, "--to", to])
    }

    fn told(&self, subcommand: &str, arguments: &[&str]) -> serde_json::Value {
        let mut command = self.mesh.weft();
        command
            .arg(subcommand)
            .args(arguments)
            .args(["--output", "json", "--mesh"])
            .arg(self.directory());
        let finished = Program::start("weft", command).finished();
        assert!(
            finished.status.success(),
            "weft {subcommand}: {}",
            finished.stderr()
        );
        serde_json::from_slice(&finished.stdout).expect("it prints JSON")
    }

    /// The control plane's process; another one after it was killed.
    #[must_use]
    pub fn control_plane(&self) -> Pid {
        wait::until("the control plane", || {
            processes::owner(&self.directory().join("status.sock"))
        })
    }

    /// KILL, STOP, CONT…
    pub fn signal_control_plane(&self, signal: Signal) {
        kill(self.control_plane(), signal).expect("the control plane runs");
    }
}
