//! Installs the rules that bring a pod's traffic to its proxy.
//!
//! Runs before the application, once, as `weft-proxy redirect`; nothing of the
//! path calls it. Speaks netlink itself, so the host needs no binaries. The
//! whole rule set is replaced in one transaction: both address families hold
//! the new rules or both keep what they had. `rules` says what is decided,
//! `nft` how that is written in nf_tables, `netlink` carries it.

use std::{io, num::ParseIntError};

use clap::Args;

use self::netlink::Part;
use crate::addr::Range;

mod netlink;
mod nft;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use rules::{Own, Rules};

/// Take over the traffic of this network namespace: TCP that leaves goes to
/// the outbound port, TCP that arrives to the inbound port.
#[derive(Clone, Debug, Args)]
pub struct Command {
    /// Where the proxy listens for what the workload opens.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// Where the proxy listens for what arrives for the workload.
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    inbound_port: u16,
    /// Further ports on which the proxy itself answers.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "15020,15021"
    )]
    proxy_ports: Vec<u16>,
    /// User that the proxy runs as: its traffic is left alone.
    #[arg(long, value_name = "UID", default_value_t = 2102)]
    proxy_uid: u32,
    /// Packet mark of the proxy, decimal or 0x…: instead of its user, where all
    /// processes of the user namespace have one uid.
    #[arg(long, value_name = "MARK", value_parser = mark, conflicts_with = "proxy_uid")]
    proxy_mark: Option<u32>,
    /// Destination ports that the workload reaches without the proxy.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<u16>,
    /// Destinations that the workload reaches without the proxy.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    exclude_outbound_cidrs: Vec<Range>,
    /// Ports of the workload that are reached without the proxy.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Vec<u16>,
    /// Take the rules out again.
    #[arg(long)]
    remove: bool,
}

impl Command {
    /// # Errors
    /// When the kernel refuses; nothing has changed then.
    pub fn run(&self) -> Result<(), RedirectError> {
        if self.remove {
            remove()
        } else {
            install(&self.rules())
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            proxy_ports: self.proxy_ports.clone(),
            own: self.proxy_mark.map_or(Own::Uid(self.proxy_uid), Own::Mark),
            exclude_outbound_ports: self.exclude_outbound_ports.clone(),
            exclude_outbound_ranges: self.exclude_outbound_cidrs.clone(),
            exclude_inbound_ports: self.exclude_inbound_ports.clone(),
        }
    }
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16));
    match parsed {
        Ok(0) => Err("0 is the mark of traffic that nobody marked".to_owned()),
        Ok(mark) => Ok(mark),
        Err(error) => Err(ParseIntError::to_string(&error)),
    }
}

/// Why traffic was not taken over. Nothing is left half done.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error(
        "no right to change this network namespace: run with CAP_NET_ADMIN in the user namespace that owns it \
         (an init container with the capability NET_ADMIN, or `unshare --map-root-user --net`)"
    )]
    NotPermitted,
    #[error(
        "this kernel has no nf_tables: it needs CONFIG_NF_TABLES (module nf_tables) and Linux 5.2 or newer; \
         load it on the node with `modprobe nf_tables`"
    )]
    NoNfTables,
    #[error(
        "this kernel's nf_tables can't redirect both families, it refused {part}: it needs CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT and \
         CONFIG_NFT_REDIR and Linux 5.2 or newer; load them on the node with `modprobe -a nft_chain_nat nft_redir`"
    )]
    NoNat { part: String },
    #[error(
        "IPv6 is in use here but the loopback interface refuses ::6/128: {0}; set net.ipv6.conf.lo.disable_ipv6=0, \
         or switch IPv6 off in the whole namespace with net.ipv6.conf.all.disable_ipv6=1"
    )]
    NoIpv6Loopback(io::Error),
    #[error("the kernel refused {part}: {error}")]
    Kernel { part: String, error: io::Error },
}

/// Puts the rules in place, whatever stood there before of ours. The same
/// rules twice are the same as once.
///
/// # Errors
/// When the kernel refuses; nothing has changed then.
pub(crate) fn install(rules: &Rules) -> Result<(), RedirectError> {
    let added = add_loopback_address()?;
    let installed = netlink::transaction(&nft::replace(&rules.list())).map_err(explain);
    if installed.is_err() && added {
        // It harms nobody, so its failure would only hide the first one.
        let _left = netlink::loopback_address(netlink::Change::Remove);
    }
    installed
}

/// Takes the rules out; nothing happens where there are none.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn remove() -> Result<(), RedirectError> {
    netlink::transaction(&nft::delete()).map_err(explain)?;
    match netlink::loopback_address(netlink::Change::Remove) {
        Ok(()) => Ok(()),
        // No such address, no such family: gone all the same.
        Err(error) if matches!(errno(&error), EADDRNOTAVAIL | EOPNOTSUPP | EAFNOSUPPORT) => Ok(()),
        Err(error) => Err(explain(netlink::Refused {
            part: Part::LoopbackAddress,
            error,
        })),
    }
}

/// Adds `::6/128` to `lo`: unlike 127.0.0.6 it can't be bound otherwise. Says
/// whether it was missing.
fn add_loopback_address() -> Result<bool, RedirectError> {
    match netlink::loopback_address(netlink::Change::Add) {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == EEXIST => Ok(false),
        Err(error) if errno(&error) == EPERM => Err(RedirectError::NotPermitted),
        // The rules hold both families all the same, for the day it is switched on.
        Err(_) if !has_ipv6() => Ok(false),
        Err(error) => Err(RedirectError::NoIpv6Loopback(error)),
    }
}

/// Has any interface of this namespace an IPv6 address?
fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/thread-self/net/if_inet6")
        .is_ok_and(|addresses| !addresses.trim().is_empty())
}

const EPERM: i32 = nix::errno::Errno::EPERM as i32;
const ENOENT: i32 = nix::errno::Errno::ENOENT as i32;
const EEXIST: i32 = nix::errno::Errno::EEXIST as i32;
const EPROTONOSUPPORT: i32 = nix::errno::Errno::EPROTONOSUPPORT as i32;
const EOPNOTSUPP: i32 = nix::errno::Errno::EOPNOTSUPP as i32;
const EAFNOSUPPORT: i32 = nix::errno::Errno::EAFNOSUPPORT as i32;
const EADDRNOTAVAIL: i32 = nix::errno::Errno::EADDRNOTAVAIL as i32;

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

fn explain(refused: netlink::Refused) -> RedirectError {
    let netlink::Refused { part, error } = refused;
    match (errno(&error), part) {
        (EPERM, _) => RedirectError::NotPermitted,
        (EPROTONOSUPPORT, Part::Socket) => RedirectError::NoNfTables,
        (EOPNOTSUPP | EAFNOSUPPORT, Part::Transaction | Part::Table) => RedirectError::NoNfTables,
        (ENOENT | EOPNOTSUPP | EAFNOSUPPORT, Part::Chain(_) | Part::Rule(_)) => {
            RedirectError::NoNat {
                part: part.to_string(),
            }
        }
        _ => RedirectError::Kernel {
            part: part.to_string(),
            error,
        },
    }
}
