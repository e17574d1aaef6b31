//! Finds what runs in a pod, and ends what still does.
//!
//! A pod's processes are those in its network namespace, whoever started them:
//! the program's children may have left its process group and session.

use std::{
    fs::{self, File},
    io,
    os::linux::fs::MetadataExt,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Kills all of them but `spared`, and those that they start meanwhile.
pub(crate) async fn kill_all(namespace: &File, spared: Option<u32>) -> io::Result<()> {
    let inode = namespace.metadata()?.st_ino();
    // Each round finds only what was started since the last; a fork bomb loses,
    // since what is killed forks no more.
    for _ in 0..50 {
        let found: Vec<Pid> = inside(inode)?
            .filter(|pid| is_other(*pid, spared))
            .collect();
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            // Gone by itself is as good.
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(io::Error::other("processes of the pod did not end"))
}

/// The process of the pod that began first, beside `spared`.
pub(crate) fn first(namespace: &File, spared: Option<u32>) -> io::Result<Option<Pid>> {
    let all = inside(namespace.metadata()?.st_ino())?;
    let others = all.filter(|pid| is_other(*pid, spared));
    Ok(others.min_by_key(|pid| pid.as_raw()))
}

fn is_other(pid: Pid, spared: Option<u32>) -> bool {
    spared.is_none_or(|it| i64::from(it) != i64::from(pid.as_raw()))
}

fn inside(inode: u64) -> io::Result<impl Iterator<Item = Pid>> {
    let processes = fs::read_dir("/proc")?.flatten();
    Ok(processes.filter_map(move |entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        // Follows the link: its target's inode is the namespace's. A zombie has none.
        let namespace = fs::metadata(entry.path().join("ns/net")).ok()?;
        (namespace.st_ino() == inode).then_some(Pid::from_raw(pid))
    }))
}
