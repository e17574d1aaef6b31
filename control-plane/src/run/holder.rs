//! The process that owns a mesh directory while pods live in it.
//!
//! Started by the first launcher (`run::found`), with a user namespace of its
//! own in which it is root; its network namespace is the switch between pods.
//! It gives addresses and names, starts the control plane and each pod's proxy,
//! and ends a while after the last pod, leaving the directory's state. All of
//! its children die with it, and namespaces end with their last process, so a
//! killed holder leaves nothing but files that the next one replaces.

mod capture;
mod connection;
mod control;
mod hosts;
mod manifests;
mod network;
mod pod;
mod processes;
mod proxy;
mod readiness;
mod restart;
mod state;
mod watch;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::setsid,
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use self::{connection::Connection, control::ControlPlane, network::Switch, state::Holder};
use super::{
    found::{self, READY, UNSHARED},
    mesh::Mesh,
    protocol::{Ask, Tell},
    userns::{self, Maps},
};
use crate::runtime::Tasks;

/// Without pods. Long enough for the next command of a script.
const IDLE: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Hold {
    #[arg(long)]
    pub(crate) mesh: PathBuf,
    #[arg(long)]
    pub(crate) manifests: PathBuf,
    #[arg(long)]
    pub(crate) control_plane: Option<String>,
    #[arg(long)]
    pub(crate) trust_domain: Option<String>,
    /// Of the launcher
    #[arg(long)]
    pub(crate) user: u32,
    #[arg(long)]
    pub(crate) group: u32,
}

/// The holder's life. What hinders its start goes to the launcher.
pub(crate) fn hold(options: &Hold) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let started = runtime.block_on(async { start(options) });
    match started {
        Ok((holder, listener)) => {
            say(READY)?;
            runtime.block_on(serve(holder, listener))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&format!("{error:#}"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// To the launcher that waits for it.
fn say(word: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{word}")?;
    out.flush()
}

fn start(options: &Hold) -> anyhow::Result<(Arc<Holder>, UnixListener)> {
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
    // Signals of the launcher's terminal are not for us.
    setsid()?;
    userns::leave()?;
    say(UNSHARED)?;
    io::stdin()
        .read_exact(&mut [0])
        .context("the launcher ended")?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| userns::refused(&error.into()))?;
    let switch = Switch::new()?;
    let mesh = Mesh::at(&options.mesh);
    clear_remains(&mesh)?;
    let program_maps = Maps::of_program(options.user, options.group)?;
    let listener = UnixListener::bind(mesh.holder_socket()).context("holder's socket")?;
    Ok((
        Arc::new(Holder::new(mesh, options.clone(), switch, program_maps)?),
        listener,
    ))
}

/// What only means something while a holder lives; under the lock, ours or our launcher's.
fn clear_remains(mesh: &Mesh) -> io::Result<()> {
    for entry in fs::read_dir(mesh.directory())?.flatten() {
        if entry.path().extension().is_some_and(|it| it == "sock") {
            fs::remove_file(entry.path())?;
        }
    }
    for directory in [mesh.pods(), mesh.generated()] {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn serve(holder: Arc<Holder>, listener: UnixListener) -> anyhow::Result<()> {
    let _manifests = watch::follow(Arc::clone(&holder))?;
    let has_own = holder.options.control_plane.is_none();
    let mut control_plane = has_own.then(|| ControlPlane::start(&holder.mesh, &holder.options));
    let mut launchers = Tasks::new();
    loop {
        match timeout(IDLE, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                let holder = Arc::clone(&holder);
                launchers.spawn(async move { Box::pin(answer(&holder, stream)).await });
            }
            Ok(Err(error)) => {
                // Out of descriptors, say: those who wait are served later.
                tracing::error!(%error, "launcher not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(_) if holder.is_empty() => {
                if let Some(lock) = no_more_launchers(&holder.mesh)? {
                    if let Some(control_plane) = control_plane.take() {
                        control_plane.end().await;
                    }
                    clear_remains(&holder.mesh)?;
                    tracing::info!("mesh ends: it has no pods");
                    // The kernel lets go of it: who gets the lock finds us gone.
                    std::mem::forget(lock);
                    return Ok(());
                }
            }
            Err(_) => {}
        }
    }
}

/// Takes the socket away unless somebody is just coming. Who comes later waits
/// for the lock and starts the next holder.
fn no_more_launchers(mesh: &Mesh) -> anyhow::Result<Option<File>> {
    let lock = found::open_lock(mesh)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    fs::remove_file(mesh.holder_socket())?;
    Ok(Some(lock))
}

async fn answer(holder: &Holder, stream: UnixStream) {
    let peer = stream.peer_cred().ok().and_then(|it| it.pid());
    let mut connection = Connection::new(stream);
    match connection.next().await {
        Some(Ask::Join(join)) => pod::live(holder, *join, &mut connection).await,
        Some(Ask::Map) => {
            let mapped = match peer.and_then(|pid| u32::try_from(pid).ok()) {
                Some(pid) => holder.program_maps.write(pid),
                None => Err(io::Error::other("unknown process")),
            };
            let said =
                mapped.map_or_else(|error| Tell::Refused(error.to_string()), |()| Tell::Mapped);
            connection.say(&said).await;
        }
        Some(_) | None => {}
    }
}

/// A binary of this version: the one beside ours.
fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    anyhow::bail!("{name} is not beside {}", own.display())
}
