//! The directory that is a mesh: what lies where in it.
//!
//! Pure paths, but for making the directory itself. The first `weft run` makes
//! it; CA, keys and allocations in it outlive the mesh's processes.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::unistd::getuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mesh {
    directory: PathBuf,
}

impl Mesh {
    /// The default: of this user, gone with the session where the system does so.
    pub(crate) fn default_directory() -> PathBuf {
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) if Path::new(&runtime).is_dir() => Path::new(&runtime).join("weft"),
            _ => PathBuf::from(format!("/tmp/weft-{}", getuid())),
        }
    }

    /// Makes what is missing. Refuses a directory that others could have prepared.
    pub(crate) fn open(directory: Option<&Path>) -> anyhow::Result<Self> {
        let directory = directory.map_or_else(Self::default_directory, Path::to_path_buf);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory);
        made.with_context(|| format!("mesh directory {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let metadata = fs::symlink_metadata(&directory)?;
        if metadata.uid() != getuid().as_raw() {
            bail!(
                "mesh directory {} belongs to another user (uid {})",
                directory.display(),
                metadata.uid()
            );
        }
        // It holds the keys of every identity in the mesh.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        if directory.as_os_str().len() + LONGEST_SOCKET.len() > SOCKET_PATH {
            bail!(
                "mesh directory {}: a socket's path is limited to {SOCKET_PATH} bytes; choose a shorter one with --mesh",
                directory.display()
            );
        }
        Ok(Self { directory })
    }

    /// The same, for a process that `open` has prepared it for.
    pub(crate) fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_path_buf(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Held while a holder starts or ends, so that there is one.
    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    pub(crate) fn holder_socket(&self) -> PathBuf {
        self.directory.join("holder.sock")
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    pub(crate) fn status_socket(&self) -> PathBuf {
        self.directory.join("status.sock")
    }

    /// Of a proxy, short because of the limit on socket paths.
    pub(crate) fn admin_socket(&self, index: u16) -> PathBuf {
        self.directory.join(format!("proxy-{index}.sock"))
    }

    /// CA and token key.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where the user's manifests are, unless `--manifests` says otherwise.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    /// What the holder tells the control plane in the same words.
    pub(crate) fn generated(&self) -> PathBuf {
        self.directory.join("generated")
    }

    pub(crate) fn allocations(&self) -> PathBuf {
        self.directory.join("allocations.json")
    }

    pub(crate) fn log(&self, of: &str) -> PathBuf {
        self.directory.join("logs").join(format!("{of}.log"))
    }

    /// Files of a live pod: `shop.cart-0`.
    pub(crate) fn pod(&self, name: &str) -> PathBuf {
        self.directory.join("pods").join(file_name(name))
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.directory.join("pods")
    }
}

/// "shop/cart-0" as a file's name; no two names share one, since a namespace
/// has no dot.
pub(crate) fn file_name(name: &str) -> String {
    name.replacen('/', ".", 1)
}

/// Writes it whole or not at all, by rename.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // A name that no source of manifests reads.
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, content)?;
    fs::rename(&unfinished, path)
}

const LONGEST_SOCKET: &str = "/proxy-65535.sock";
/// `sun_path` with its final zero.
const SOCKET_PATH: usize = 107;
