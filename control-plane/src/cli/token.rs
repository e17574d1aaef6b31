//! `weft token`: mints a token with the claims of a Kubernetes bound one, for a
//! proxy of a mesh without a cluster.
//!
//! Needs the state directory, so whoever may call it is the authority anyway.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};

use crate::{
    ca::token::{Claimed, Key},
    clock::Wall,
    config::duration,
    identity::is_part,
    model::Name,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod that it speaks for, NAMESPACE/NAME
    #[arg(long)]
    pod: String,
    /// The control plane's state directory
    #[arg(long, alias = "state", value_name = "DIR")]
    state_dir: PathBuf,
    /// The pod's service account; the control plane refuses one that is not the pod's
    #[arg(long, default_value = "default")]
    service_account: String,
    /// The pod's UID; default: whichever pod has the name
    #[arg(long, default_value = "")]
    uid: String,
    /// How long it is good for
    #[arg(long, default_value = "1h", value_parser = duration)]
    lifetime: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some((namespace, name)) = arguments
        .pod
        .split_once('/')
        .filter(|(a, b)| is_part(a) && is_part(b))
    else {
        bail!("--pod: NAMESPACE/NAME, as in shop/cart-0");
    };
    if !is_part(&arguments.service_account) {
        bail!("--service-account: not a name");
    }
    if !arguments.state_dir.is_dir() {
        bail!(
            "--state-dir: no directory {}",
            arguments.state_dir.display()
        );
    }
    let who = Claimed {
        pod: Name::new(namespace, name),
        uid: arguments.uid.clone(),
        service_account: arguments.service_account.clone(),
    };
    let token = Key::read(&arguments.state_dir)?.mint(&who, arguments.lifetime, Wall::System)?;
    writeln!(std::io::stdout(), "{token}").context("standard output")?;
    Ok(ExitCode::SUCCESS)
}
