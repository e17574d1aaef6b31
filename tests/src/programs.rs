//! The mesh's own programs, for tests that run them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

const ALL: [&str; 3] = ["weft", "weft-control-plane", "weft-proxy"];

/// Where the newest build of them is: of this test's profile, or of `make programs`.
///
/// # Panics
/// When nobody has built them.
#[must_use]
pub fn directory() -> PathBuf {
    let test = std::env::current_exe().expect("a test runs from a file");
    let own = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .to_path_buf();
    let fast = own.with_file_name("fast");
    let built = |directory: &PathBuf| -> Option<SystemTime> {
        let times = ALL
            .iter()
            .map(|name| fs::metadata(directory.join(name))?.modified());
        times.collect::<Result<Vec<_>, _>>().ok()?.into_iter().min()
    };
    [own, fast]
        .into_iter()
        .filter_map(|directory| Some((built(&directory)?, directory)))
        .max()
        .map(|(_, directory)| directory)
        .expect("the mesh's programs are not built: `make programs`, or `cargo build --bins`")
}

/// Who runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Whoever runs the test: root in CI.
    Caller,
    /// An ordinary user without any name, home or group; the test's own user where that is not root.
    User,
}

/// No system gives this one to anybody.
const USER: u32 = 64_242;

impl As {
    #[must_use]
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if self.is_other() {
            command.uid(USER).gid(USER);
        }
        command
    }

    /// `weft`, where this user may execute it.
    #[must_use]
    pub fn weft(self) -> Command {
        self.command(self.programs().join("weft"))
    }

    /// An empty directory of this user's, short enough for sockets.
    ///
    /// # Panics
    /// When the file system refuses.
    #[must_use]
    pub fn directory(self) -> tempfile::TempDir {
        let directory = tempfile::Builder::new()
            .prefix("weft-")
            .tempdir_in("/tmp")
            .expect("/tmp is writable");
        if self.is_other() {
            std::os::unix::fs::chown(directory.path(), Some(USER), Some(USER))
                .expect("we are root");
        }
        directory
    }

    fn is_other(self) -> bool {
        self == Self::User && nix::unistd::geteuid().is_root()
    }

    /// A build below a home directory can't be entered by others: copied then.
    fn programs(self) -> PathBuf {
        let built = directory();
        if !self.is_other() || is_open(&built) {
            return built;
        }
        static COPY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
        COPY.get_or_init(|| copy(&built)).clone()
    }
}

fn is_open(directory: &Path) -> bool {
    let allows =
        |path: &Path| fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o005 == 0o005);
    directory.ancestors().all(allows) && ALL.iter().all(|name| allows(&directory.join(name)))
}

/// One copy for all runs, so that nothing piles up.
fn copy(built: &Path) -> PathBuf {
    let directory = PathBuf::from("/tmp/weft-tests-programs");
    fs::create_dir_all(&directory).expect("/tmp is writable");
    for name in ALL {
        let (from, to) = (built.join(name), directory.join(name));
        let time = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
        if time(&to) < time(&from) {
            let unfinished = to.with_extension(std::process::id().to_string());
            fs::copy(&from, &unfinished).expect("room in /tmp");
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))
                .expect("our own file");
            fs::rename(&unfinished, &to).expect("our own file");
        }
    }
    directory
}
