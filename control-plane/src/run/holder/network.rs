//! What a pod's network looks like: one switch, and a cable to each pod.
//!
//! The holder's own network namespace is the switch: a bridge with the mesh's
//! gateway address. A pod is a network namespace with `eth0`, whose other end
//! is a port of the bridge, and a default route, so that addresses of services
//! can be dialled and redirected. Nothing leads out of the mesh. A namespace
//! lives as long as somebody holds it open; nothing is left on the host.

use std::{fs::File, io, net::IpAddr, os::fd::AsFd, path::Path, thread};

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};

use crate::run::{
    addresses::{self, Addresses},
    netlink::Netlink,
};

const BRIDGE: &str = "weft0";

/// The bridge, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Switch {
    netlink: Netlink,
    namespace: File,
    bridge: u32,
    has_ipv6: bool,
}

/// A pod's network namespace and its cable; unplugged on drop of both ends.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    pub(crate) namespace: File,
    /// The switch's end of its cable.
    pub(crate) port: String,
}

impl Switch {
    /// Turns this thread's network namespace, which must be new, into the switch.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut netlink = Netlink::open().context("netlink refused")?;
        let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        netlink.set_up("lo", None)?;
        netlink
            .add_bridge(BRIDGE, addresses::gateway_mac())
            .context("the kernel makes no bridge (module `bridge`)")?;
        netlink.set_up(BRIDGE, None)?;
        let bridge = netlink.index(BRIDGE)?;
        for (address, prefix) in addresses::gateways(has_ipv6) {
            netlink.add_address(bridge, address, prefix)?;
        }
        // Only to answer "unreachable" at once for what is not in the mesh.
        for knob in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            set_kernel_knob(knob, "1");
        }
        Ok(Self {
            netlink,
            namespace: own_namespace()?,
            bridge,
            has_ipv6,
        })
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// A new pod's network with `addresses`, plugged in.
    pub(crate) fn plug(&mut self, addresses: &Addresses) -> anyhow::Result<PodNetwork> {
        let port = format!("pod{}", addresses.index());
        // The end of a pod that just left may not have been collected yet.
        let _ = self.netlink.delete_link(&port);
        let namespace = thread::scope(|scope| {
            let there = scope.spawn(|| new_pod(addresses, &port, &self.namespace));
            there
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that plugs died")))
        })
        .with_context(|| format!("no network for {}", addresses.index()))?;
        self.netlink.set_up(&port, Some(self.bridge))?;
        Ok(PodNetwork { namespace, port })
    }

    /// Of the switch's end of a pod's cable.
    pub(crate) fn index(&mut self, network: &PodNetwork) -> io::Result<u32> {
        self.netlink.index(&network.port)
    }

    /// Cuts a pod off; its namespace ends with its last process.
    pub(crate) fn unplug(&mut self, network: &PodNetwork) {
        if let Err(error) = self.netlink.delete_link(&network.port) {
            tracing::debug!(%error, port = network.port, "cable already gone");
        }
    }
}

/// On a thread of its own: it moves into the namespace that it makes.
fn new_pod(addresses: &Addresses, port: &str, switch: &File) -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let namespace = own_namespace()?;
    let mut netlink = Netlink::open()?;
    netlink.set_up("lo", None)?;
    netlink.add_veth("eth0", addresses.mac(), port, switch.as_fd())?;
    netlink.set_up("eth0", None)?;
    let link = netlink.index("eth0")?;
    for (address, prefix) in addresses.with_prefixes() {
        netlink.add_address(link, address, prefix)?;
    }
    for gateway in addresses.all().iter().map(IpAddr::is_ipv6) {
        netlink.add_default_route(link, addresses::gateway(gateway))?;
    }
    // Ports below 1024 are free to use, as in a container.
    set_kernel_knob("net/ipv4/ip_unprivileged_port_start", "0");
    Ok(namespace)
}

fn own_namespace() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Where `/proc/sys` is read-only (some containers) the mesh still works
/// without them.
fn set_kernel_knob(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    if path.exists()
        && let Err(error) = std::fs::write(&path, value)
    {
        tracing::warn!(%error, path = %path.display(), value, "kernel knob refused");
    }
}
