//! The directory of a world, and the end of everything that lives from it.
//!
//! Under `world`; pods hold it too, so that it outlives them. Its end is a
//! check: a process that survives is a failure of the test.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::processes;
use crate::{programs, wait};

/// For processes that were killed to be gone.
const END: Duration = Duration::from_secs(10);
/// Lines of each log that a failed test shows.
const SHOWN: usize = 40;

#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) meshed: bool,
    directory: TempDir,
    scratch: TempDir,
    weft: PathBuf,
    knobs: Vec<(OsString, OsString)>,
}

impl Mesh {
    pub(super) fn new(meshed: bool, knobs: Vec<(OsString, OsString)>) -> Self {
        let make = |prefix| tempfile::Builder::new().prefix(prefix).tempdir();
        let directory = make("weft-").expect("a temporary directory can be made");
        let scratch = make("weft-files-").expect("a temporary directory can be made");
        fs::create_dir(directory.path().join("manifests")).expect("it is new");
        open_to_all(scratch.path());
        Self {
            meshed,
            directory,
            scratch,
            weft: programs::directory().join("weft"),
            knobs,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn scratch_root(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::create_dir(&path).expect("each name once");
        open_to_all(&path);
        path
    }

    /// The CLI, which ends with the calling thread, however that ends.
    pub(super) fn weft(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.weft);
        // Everything is seen by default; a test may say otherwise.
        command.env("WEFT_ACCESS_LOG", "all");
        command.envs(self.knobs.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(super) fn log(&self, of: &str) -> String {
        let path = self.directory().join("logs").join(format!("{of}.log"));
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn holder(&self) -> Option<Pid> {
        processes::owner(&self.directory().join("holder.sock"))
    }

    #[allow(clippy::print_stderr, reason = "a failed test shows what happened")]
    fn show_logs(&self) {
        let Ok(logs) = fs::read_dir(self.directory().join("logs")) else {
            return;
        };
        for entry in logs.flatten() {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(SHOWN);
            eprintln!("--- {}", entry.file_name().display());
            eprintln!("{}", lines.get(from..).unwrap_or_default().join("\n"));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        let directory = self
            .directory
            .path()
            .as_os_str()
            .as_encoded_bytes()
            .to_vec();
        // Of the pods, the proxies among them, while the holder still names them.
        let networks = self
            .holder()
            .map(processes::networks_below)
            .unwrap_or_default();
        let rest = wait::within(END, || {
            let rest = processes::that_mention(&directory, &networks);
            for pid in &rest {
                // It may have ended by itself.
                let _ = kill(*pid, Signal::SIGKILL);
            }
            rest.is_empty().then_some(())
        });
        if rest.is_none() && !thread::panicking() {
            panic!("processes of the mesh are still there");
        }
    }
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("it is ours");
}
