//! `weft run`: any program with its own sidecar, in a network of its own.
//!
//! A mesh without a cluster is a directory. The first `weft run` starts its
//! holder (`run::holder`), which owns the networks, the control plane and the
//! proxies; later ones join it over a socket (`run::protocol`). The launcher
//! (`run::launch`) stays in the foreground and lends its terminal to the
//! program, which `run::inside` puts into the pod's namespaces.
//!
//! Works as root and as an ordinary user, in the same way: the holder's user
//! namespace owns every network, and the program runs in a user namespace
//! below it with the caller's own ids, so it can't set packet marks or touch
//! links, even when it is root. That is why the proxies need no user of their
//! own here and are told apart by mark.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Args, Subcommand};

mod addresses;
mod found;
mod holder;
mod inside;
mod launch;
pub(crate) mod mesh;
mod netlink;
mod protocol;
mod userns;

/// `weft run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// The pod that the program is, as NAMESPACE/NAME
    #[arg(long)]
    pub(crate) pod: String,
    /// The mesh's directory; default: $XDG_RUNTIME_DIR/weft, else /tmp/weft-UID
    #[arg(long)]
    pub(crate) mesh: Option<PathBuf>,
    /// Directory of the mesh's manifests; default: MESH/manifests. The first run of a mesh decides
    #[arg(long)]
    pub(crate) manifests: Option<PathBuf>,
    /// Use this control plane (IP:PORT or unix:PATH) and start none. The first run of a mesh decides
    #[arg(long)]
    pub(crate) control_plane: Option<String>,
    /// Trust domain of every identity in the mesh; default: cluster.local. The first run of a mesh decides
    #[arg(long, value_name = "NAME", value_parser = crate::config::trust_domain)]
    pub(crate) trust_domain: Option<String>,
    /// Roots that this control plane proves itself with; default: those in MESH/state
    #[arg(
        long,
        value_name = "FILE",
        requires = "control_plane",
        conflicts_with = "no_mesh"
    )]
    pub(crate) trust_bundle: Option<PathBuf>,
    /// Token by which this control plane knows the pod (`weft token`), read again for each
    /// certificate; default: one is made with the key in MESH/state
    #[arg(
        long,
        value_name = "FILE",
        requires = "control_plane",
        conflicts_with = "no_mesh"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Service account; default: the Pod manifest's, else `default`
    #[arg(long)]
    pub(crate) service_account: Option<String>,
    /// Label of the pod, KEY=VALUE; default: the Pod manifest's, else app=NAME without its ordinal
    #[arg(long = "label", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// No sidecar: the same network and names, for comparison. Service names mean their pods
    #[arg(long)]
    pub(crate) no_mesh: bool,
    /// Record the pod's packets, as they are between pods, into this pcap file
    #[arg(long)]
    pub(crate) capture: Option<PathBuf>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// What `weft run` starts of itself; nobody types these.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Stage {
    /// Owns a mesh directory
    Hold(holder::Hold),
    /// Becomes a pod's program
    Program(inside::Program),
    /// Becomes a command beside a pod's program
    Beside(inside::Beside),
    /// Becomes a pod's proxy, or the control plane
    Companion(inside::Companion),
}

/// This binary again, as a stage; named in process lists like what was typed.
pub(crate) fn own_stage(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("weft").args(["stage", name]);
    command
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

/// Runs the program; the exit code is the program's, or 128 + the signal that
/// ended it.
///
/// # Errors
/// When the mesh, the pod's network or its sidecar can't be had.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    launch::run(arguments)
}

/// Runs a stage of `weft run`.
///
/// # Errors
/// When its namespaces or its mesh directory can't be had.
pub(crate) fn stage(stage: &Stage) -> anyhow::Result<ExitCode> {
    // Every stage inherits what the launcher blocked to hear by itself.
    launch::signals().thread_unblock()?;
    match stage {
        Stage::Hold(options) => holder::hold(options),
        Stage::Program(program) => inside::program(program),
        Stage::Beside(beside) => inside::beside(beside),
        Stage::Companion(companion) => inside::companion(companion),
    }
}
