//! `weft`, the operators' CLI: one module per subcommand.
//!
//! Each module owns its arguments (a clap `Args`) and a `run` that answers the
//! exit code or an error for people. Never holds what a subcommand does.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{demo, run};

pub(crate) mod asking;
mod ca;
mod certify;
mod check;
mod explain;
mod inject;
mod kubeconfig;
mod status;
mod token;

#[derive(Debug, Parser)]
#[command(name = "weft", about = "Operates a Weft mesh", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a program with its own sidecar, in a network namespace of its own.
    Run(run::Arguments),
    /// What `run` starts of itself.
    #[command(subcommand, hide = true)]
    Stage(run::Stage),
    /// Runs a small shop of real programs in a mesh, and shows what a mesh does for it.
    Demo(demo::Arguments),
    /// What `demo` runs in its pods.
    #[command(subcommand, hide = true)]
    DemoService(demo::Role),
    /// Gives the workloads of a manifest their proxy, as the webhook does, without a cluster.
    Inject(inject::Arguments),
    /// Shows proxies, what they hold, certificates and broken objects.
    Status(status::Arguments),
    /// Says what the mesh would do with a request: service, route, backends, verdict.
    Explain(explain::Arguments),
    /// Rotates the root of a mesh in a cluster.
    Ca(ca::Arguments),
    /// Asks a control plane for a certificate, as the proxy of a new pod does; `helm test` runs it.
    Certify(certify::Arguments),
    /// Finds what is wrong: with manifests by file and field, or with a running mesh.
    Check(check::Arguments),
    /// Mints a service-account token for a pod of a mesh without a cluster.
    Token(token::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let answer = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Stage(stage) => run::stage(&stage),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoService(role) => demo::service(&role),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Ca(arguments) => ca::run(&arguments),
        Command::Certify(arguments) => certify::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
    };
    answer.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

#[allow(
    clippy::print_stderr,
    reason = "a command line answers on its standard error"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("weft: {error:#}");
}
