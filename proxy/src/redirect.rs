//! Installs the rules that bring the pod's traffic to the proxy.
//!
//! Runs before the application, once, as `weft-proxy redirect`; nothing of the
//! path calls it. Speaks nf_tables by netlink, so the host needs no binaries.

use clap::Args;

/// `weft-proxy redirect`
#[derive(Clone, Debug, Args)]
pub struct Command {}
