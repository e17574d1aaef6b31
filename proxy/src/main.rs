//! Process shell of the sidecar: which command, and its configuration.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use weft_proxy::{app, config::Config, redirect};

/// The sidecar of Weft, a service mesh. Configured by WEFT_* in its environment.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Carry the pod's traffic until SIGTERM (the default).
    Run,
    /// Bring the traffic of this network namespace to the proxy.
    Redirect(redirect::Command),
    /// Tell the running proxy that its pod is going away: it keeps serving, and retires connections.
    Drain(app::Drain),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command.unwrap_or(Command::Run) {
        Command::Run => app::run(Config::from_environment()?),
        Command::Redirect(command) => command.run().context("redirect"),
        Command::Drain(command) => command.run().context("drain"),
    }
}
