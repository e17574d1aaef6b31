//! `weft status`: asks a control plane's status socket and prints the answer.

use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Directory of a mesh started by `weft run`.
    #[arg(long, value_name = "DIR")]
    mesh: Option<PathBuf>,
}

pub(crate) fn run(_arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
