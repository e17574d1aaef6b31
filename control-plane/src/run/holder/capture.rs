//! Records a pod's packets as they are between pods, into a pcap file.
//!
//! Listens at the switch's end of the pod's cable, so what the program and its
//! proxy say to each other inside of the pod is not in it.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread::{self, JoinHandle},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

use crate::clock::Wall;

/// A packet that the cards did not cut yet may be 64 KiB and its header.
const LARGEST: usize = 64 * 1024 + 256;
/// libpcap's file format, version 2.4, microseconds, Ethernet.
const HEADER: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, LARGEST as u32, 1];

/// A recording in progress; it ends when dropped, with everything that came before.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Its closing tells the thread.
    open: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Records what passes the link `port`. On a thread, since it has to keep
    /// up with bulk traffic beside a holder that has other things to do.
    pub(crate) fn start(port: u32, path: &Path) -> anyhow::Result<Self> {
        let mut file =
            File::create(path).with_context(|| format!("--capture {}", path.display()))?;
        file.write_all(&words(&HEADER))?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let packets = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .context("--capture")?;
        let (open, closed) = UnixStream::pair()?;
        let thread = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || {
                if let Err(error) = record(port, &packets, &closed, &mut file) {
                    tracing::error!(%error, "capture ends");
                }
            })?;
        Ok(Self {
            open: Some(open),
            thread: Some(thread),
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.open.take();
        if let Some(thread) = self.thread.take() {
            // It only ends early with an error that it logged.
            let _ = thread.join();
        }
    }
}

fn record(port: u32, packets: &OwnedFd, closed: &UnixStream, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; LARGEST];
    loop {
        let mut sources = [
            PollFd::new(packets.as_fd(), PollFlags::POLLIN),
            PollFd::new(closed.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sources, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            answer => answer?,
        };
        let ends = sources.last().and_then(PollFd::any).unwrap_or_default();
        loop {
            match recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    // The socket hears every link of the switch.
                    if from.is_some_and(|it| usize::try_from(port) == Ok(it.ifindex())) {
                        write_packet(file, buffer.get(..length).unwrap_or(&buffer))?;
                    }
                }
                Err(Errno::EAGAIN) => break,
                // A link that went down while we listened.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if ends {
            return Ok(());
        }
    }
}

/// In one write, so that a reader of the growing file sees whole packets.
fn write_packet(file: &mut File, packet: &[u8]) -> io::Result<()> {
    let now = Wall::System.now();
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    // Seconds wrap in 2106, as the format has it.
    let mut bytes = words(&[now.as_secs() as u32, now.subsec_micros(), length, length]);
    bytes.extend_from_slice(packet);
    file.write_all(&bytes)
}

/// Little-endian; readers know by the first word.
fn words(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_le_bytes()).collect()
}
