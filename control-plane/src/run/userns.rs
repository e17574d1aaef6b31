//! User namespaces: entering them, their id maps, and why they may be refused.
//!
//! Two levels. The holder's owns the networks; it is made by the first
//! launcher. The program's is below it and maps the caller's ids to
//! themselves. A map is always written by a process above.

use std::{fs, io, path::Path};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use serde::{Deserialize, Serialize};

/// Ranges of ids: (inside, outside, how many).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maps {
    users: String,
    groups: String,
    /// An unprivileged map of groups is only accepted without `setgroups`.
    deny_setgroups: bool,
}

impl Maps {
    /// Of the holder's namespace: every id that this process could use itself
    /// when it is root, else its own as root's.
    pub(crate) fn of_holder() -> io::Result<Self> {
        if geteuid().is_root() {
            return Self::every();
        }
        Ok(Self {
            users: format!("0 {} 1", geteuid()),
            groups: format!("0 {} 1", getegid()),
            deny_setgroups: true,
        })
    }

    /// Of the program's namespace below the holder's: as if there were no namespace.
    pub(crate) fn of_program(user: u32, group: u32) -> io::Result<Self> {
        if user == 0 {
            return Self::every();
        }
        Ok(Self {
            users: format!("{user} 0 1"),
            groups: format!("{group} 0 1"),
            deny_setgroups: false,
        })
    }

    /// The ids that exist in this process's own namespace, each to itself.
    fn every() -> io::Result<Self> {
        let same = |path: &str| -> io::Result<String> {
            let text = fs::read_to_string(path)?;
            let inside = text.lines().filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (first, _, count) = (fields.next()?, fields.next()?, fields.next()?);
                Some(format!("{first} {first} {count}\n"))
            });
            Ok(inside.collect())
        };
        Ok(Self {
            users: same("/proc/self/uid_map")?,
            groups: same("/proc/self/gid_map")?,
            deny_setgroups: false,
        })
    }

    /// Gives them to process `pid`, which must be in a new namespace right below ours.
    pub(crate) fn write(&self, pid: u32) -> io::Result<()> {
        let process = Path::new("/proc").join(pid.to_string());
        fs::write(process.join("uid_map"), &self.users)?;
        if self.deny_setgroups {
            fs::write(process.join("setgroups"), "deny")?;
        }
        fs::write(process.join("gid_map"), &self.groups)
    }
}

/// Moves this process, which must have one thread, to a user namespace of its own.
pub(crate) fn leave() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| refused(&error.into()))
}

/// Says which switch forbids user namespaces, and how to turn it.
pub(crate) fn refused(error: &io::Error) -> anyhow::Error {
    let read = |path: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(path))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let switches = [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        (
            "user/max_net_namespaces",
            "0",
            "sysctl -w user.max_net_namespaces=15000",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    let found = switches
        .into_iter()
        .find(|(path, off, _)| read(path) == *off);
    match found {
        Some((path, value, remedy)) => anyhow::anyhow!(
            "user namespaces are switched off ({}={value}): {error}; as root: {remedy}",
            path.replace('/', ".")
        ),
        None => anyhow::anyhow!(
            "no user namespace: {error}; a container needs a seccomp profile that allows unshare and setns"
        ),
    }
}
