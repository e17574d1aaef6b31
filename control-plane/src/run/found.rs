//! Finds the mesh's holder, or founds the mesh.
//!
//! Between `run::launch`, which wants a connection, and `run::holder`, which
//! answers one. Two launchers that come at once are put in order by a lock on
//! the directory; a holder that crashed leaves a socket that nobody answers,
//! which the next one replaces.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, bail};
use nix::unistd::{getegid, geteuid};

use super::{
    Arguments,
    mesh::Mesh,
    own_stage,
    userns::{self, Maps},
};

/// The holder's words on its standard output while it starts.
pub(crate) const UNSHARED: &str = "unshared";
pub(crate) const READY: &str = "ready";

pub(crate) fn connect(mesh: &Mesh, arguments: &Arguments) -> anyhow::Result<UnixStream> {
    if let Ok(stream) = UnixStream::connect(mesh.holder_socket()) {
        return Ok(stream);
    }
    let lock = open_lock(mesh)?;
    lock.lock().context("lock of the mesh directory")?;
    // Somebody else may have been faster.
    if let Ok(stream) = UnixStream::connect(mesh.holder_socket()) {
        return Ok(stream);
    }
    start(mesh, arguments)?;
    UnixStream::connect(mesh.holder_socket()).context("holder of the mesh")
}

pub(crate) fn open_lock(mesh: &Mesh) -> anyhow::Result<File> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(mesh.lock());
    lock.with_context(|| mesh.lock().display().to_string())
}

/// Starts the holder and returns when it answers. Its ids are mapped from
/// here, since a process can't do that for itself.
fn start(mesh: &Mesh, arguments: &Arguments) -> anyhow::Result<()> {
    let manifests = match &arguments.manifests {
        Some(directory) => directory
            .canonicalize()
            .with_context(|| format!("--manifests {}", directory.display()))?,
        None => mesh.manifests(),
    };
    fs::create_dir_all(mesh.manifests()).with_context(|| mesh.manifests().display().to_string())?;
    let maps = Maps::of_holder()?;
    let log = log_file(&mesh.log("holder"))?;
    let mut command = own_stage("hold");
    command.args([
        "--user",
        &geteuid().to_string(),
        "--group",
        &getegid().to_string(),
    ]);
    command
        .arg("--mesh")
        .arg(mesh.directory())
        .arg("--manifests")
        .arg(manifests);
    if let Some(control_plane) = &arguments.control_plane {
        command.args(["--control-plane", control_plane]);
    }
    if let Some(trust_domain) = &arguments.trust_domain {
        command.args(["--trust-domain", trust_domain]);
    }
    let mut holder = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("starting the holder of the mesh")?;
    let mut words = BufReader::new(holder.stdout.take().context("pipe")?);
    expect(&mut words, UNSHARED)?;
    maps.write(holder.id())
        .map_err(|error| userns::refused(&error))?;
    holder.stdin.take().context("pipe")?.write_all(b"\n")?;
    expect(&mut words, READY)
}

/// The holder either says the word or why not.
fn expect(words: &mut impl BufRead, word: &str) -> anyhow::Result<()> {
    let mut line = String::new();
    words.read_line(&mut line)?;
    match line.trim() {
        said if said == word => Ok(()),
        "" => bail!("the holder of the mesh ended while starting"),
        reason => bail!("{reason}"),
    }
}

/// Appends; readable by its owner alone.
pub(crate) fn log_file(path: &Path) -> anyhow::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    file.with_context(|| path.display().to_string())
}
