//! `weft token`: mints a token with the claims of a Kubernetes bound one.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// "namespace/name" of the pod.
    #[arg(long)]
    pod: String,
}

pub(crate) fn run(_arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
