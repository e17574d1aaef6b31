//! What the system says about the processes of a world.
//!
//! Under `world`. Reads `/proc` and the credentials of sockets; asks nothing of
//! the processes themselves, so it works on stopped ones too.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Pid, getpid},
};

/// The process that listens on a unix socket.
pub(super) fn owner(socket: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(socket).ok()?;
    let credentials = getsockopt(&stream, PeerCredentials).ok()?;
    Some(Pid::from_raw(credentials.pid())).filter(|pid| pid.as_raw() > 0)
}

pub(super) fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

pub(super) fn file(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// Identity of its network namespace.
pub(super) fn network(pid: Pid) -> Option<PathBuf> {
    fs::read_link(file(pid, "ns/net")).ok()
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(file(pid, "stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

/// Zombies have ended.
fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(file(pid, "stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')
                .map(|(_, rest)| !rest.trim_start().starts_with('Z'))
        })
        .unwrap_or_default()
}

/// Its user namespace, which the processes of a mesh share.
fn user(pid: Pid) -> Option<PathBuf> {
    fs::read_link(file(pid, "ns/user")).ok()
}

/// Network namespaces that aren't the caller's: of a process's children, and of
/// what it started in a user namespace of its own.
pub(super) fn networks_below(holder: Pid) -> BTreeSet<PathBuf> {
    let own = network(getpid());
    let users = user(holder).filter(|it| Some(it) != user(getpid()).as_ref());
    all()
        .into_iter()
        .filter(|pid| {
            parent(*pid) == Some(holder) || *pid == holder || users.is_some() && user(*pid) == users
        })
        .filter_map(network)
        .filter(|it| Some(it) != own.as_ref())
        .collect()
}

/// Live processes with `text` in their arguments or in one of the networks.
pub(super) fn that_mention(text: &[u8], networks: &BTreeSet<PathBuf>) -> Vec<Pid> {
    let mentions = |pid: Pid| {
        let arguments = fs::read(file(pid, "cmdline")).unwrap_or_default();
        arguments.windows(text.len()).any(|it| it == text)
    };
    all()
        .into_iter()
        .filter(|pid| *pid != getpid())
        .filter(|pid| network(*pid).is_some_and(|it| networks.contains(&it)) || mentions(*pid))
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// The proxy of a network namespace.
pub(super) fn proxy_in(namespace: &Path) -> Option<Pid> {
    all().into_iter().find(|pid| {
        network(*pid).as_deref() == Some(namespace)
            && fs::read_link(file(*pid, "exe")).is_ok_and(|exe| exe.ends_with("weft-proxy"))
    })
}

/// Does something listen on this TCP port in the network of a process?
pub(super) fn listens(pid: Pid, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["net/tcp", "net/tcp6"].into_iter().any(|name| {
        let table = fs::read_to_string(file(pid, name)).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state) = (fields.next(), fields.next(), fields.next());
            // 0A: LISTEN.
            local.is_some_and(|it| it.ends_with(&wanted)) && state == Some("0A")
        })
    })
}
