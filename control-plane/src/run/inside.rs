//! The last step before another program: into its namespaces, then become it.
//!
//! Runs in a process of its own, without threads, as `setns` on a user
//! namespace demands; after `run::launch` (the program), `run::holder::proxy`
//! (proxies) and `run::holder::readiness` (commands). Never returns when all is
//! well.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::BufReader,
    os::unix::{
        ffi::OsStrExt,
        net::UnixStream,
        process::{CommandExt, parent_id},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::sethostname,
};

use super::{
    protocol::{self, Ask, Tell},
    userns,
};

/// The program of a pod.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Program {
    /// Ends with it.
    #[arg(long)]
    pub(crate) parent: u32,
    #[arg(long)]
    pub(crate) user_namespace: PathBuf,
    #[arg(long)]
    pub(crate) network_namespace: PathBuf,
    /// Replaces /etc/hosts
    #[arg(long)]
    pub(crate) hosts: PathBuf,
    #[arg(long)]
    pub(crate) hostname: String,
    /// Socket of the holder, which maps its ids
    #[arg(long)]
    pub(crate) holder: PathBuf,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// A command that a pod's manifest has run beside its program.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Beside {
    /// Ends with it.
    #[arg(long)]
    pub(crate) parent: u32,
    /// The program: its namespaces, environment and directory
    #[arg(long)]
    pub(crate) process: u32,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Something of the holder's beside a pod's program.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Companion {
    /// Ends with it.
    #[arg(long)]
    pub(crate) parent: u32,
    /// None: the holder's own
    #[arg(long)]
    pub(crate) network_namespace: Option<PathBuf>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

pub(crate) fn program(stage: &Program) -> anyhow::Result<ExitCode> {
    let mut holder = UnixStream::connect(&stage.holder).context("holder of the mesh")?;
    setns(
        File::open(&stage.user_namespace)?,
        CloneFlags::CLONE_NEWUSER,
    )
    .context("user namespace of the mesh")?;
    enter_network(&stage.network_namespace)?;
    // Both belong to the mesh's user namespace: the program can't undo them.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
    sethostname(&stage.hostname)?;
    replace_hosts(&stage.hosts)?;

    userns::leave()?;
    protocol::send(&mut holder, &Ask::Map)?;
    match protocol::receive(&mut BufReader::new(&holder)).context("ids of the program")? {
        Tell::Mapped => {}
        other => bail!("ids of the program: {other:?}"),
    }
    drop(holder);
    become_command(stage.parent, &stage.command, |_| {})
}

pub(crate) fn beside(stage: &Beside) -> anyhow::Result<ExitCode> {
    let process = Path::new("/proc").join(stage.process.to_string());
    let environment = fs::read(process.join("environ"))?;
    let directory = fs::read_link(process.join("cwd"))?;
    // The user namespace is the last: whoever is in there may enter no other.
    for (name, kind) in [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("user", CloneFlags::CLONE_NEWUSER),
    ] {
        let namespace = File::open(process.join("ns").join(name))?;
        setns(namespace, kind).with_context(|| format!("{name} namespace of the program"))?;
    }
    let pairs = environment.split(|byte| *byte == 0).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
    });
    become_command(stage.parent, &stage.command, |command| {
        command.env_clear().envs(pairs).current_dir(&directory);
    })
}

pub(crate) fn companion(stage: &Companion) -> anyhow::Result<ExitCode> {
    if let Some(network) = &stage.network_namespace {
        enter_network(network)?;
    }
    become_command(stage.parent, &stage.command, |_| {})
}

fn enter_network(namespace: &Path) -> anyhow::Result<()> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET).context("network namespace of the pod")
}

/// For this mount namespace alone. A file over a file, so that the holder can
/// change its content under running programs.
fn replace_hosts(hosts: &Path) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("private mounts")?;
    mount(Some(hosts), "/etc/hosts", none, MsFlags::MS_BIND, none)
        .context("names: /etc/hosts can't be replaced in the pod (it must exist)")
}

/// Dies with `parent`, however that ends.
fn become_command(
    parent: u32,
    command: &[OsString],
    prepare: impl FnOnce(&mut Command),
) -> anyhow::Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before the line above.
    if parent_id() != parent {
        bail!("the process that started this one has gone");
    }
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    prepare(&mut command);
    let error = command.exec();
    #[allow(
        clippy::print_stderr,
        reason = "a command line answers on its standard error"
    )]
    {
        eprintln!("weft: {}: {error}", program.display());
    }
    // As shells do.
    Ok(ExitCode::from(
        if error.kind() == std::io::ErrorKind::NotFound {
            127
        } else {
            126
        },
    ))
}
