//! What travels between two pods, seen from the node.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weft_tests::wait;

use crate::kubernetes::on_node;

/// Nothing else speaks to this port ("discard"): a packet to it is the last one of a capture.
const MARK: u16 = 9;

#[derive(Debug)]
pub(crate) struct Capture {
    node: String,
    address: String,
    tcpdump: Child,
    dump: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) packets: usize,
    pub(crate) found: bool,
}

impl Capture {
    /// Every TCP packet to and from a pod's address, as they pass its node; none
    /// where the node is somebody else's.
    pub(crate) fn start(node: &str, address: &str) -> Option<Self> {
        let mut tcpdump = on_node(node)?
            .args(["tcpdump", "-i", "any", "-A", "-n", "-l", "--immediate-mode"])
            .args(["tcp", "and", "host", address])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "tcpdump ended");
        }
        // Nobody else reads what it says at its end.
        thread::spawn(move || said.read_to_string(&mut String::new()));
        let dump = Arc::new(Mutex::new(Vec::new()));
        let (mut out, to) = (tcpdump.stdout.take().unwrap(), Arc::clone(&dump));
        let reading = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = out.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Some(Self {
            node: node.to_owned(),
            address: address.to_owned(),
            tcpdump,
            dump,
            reading,
        })
    }

    /// Ends it once it has seen all that was sent until now, and looks for a text in that.
    pub(crate) fn end(mut self, text: &str) -> Seen {
        // Refused or not, it is on the wire.
        let _ = on_node(&self.node)
            .unwrap()
            .args(["bash", "-c", "exec 3<>/dev/tcp/$0/$1", &self.address])
            .arg(MARK.to_string())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let (mark, answer) = (
            format!("{}.{MARK}: ", self.address),
            format!("{}.{MARK} > ", self.address),
        );
        wait::until("the capture's last packet", || {
            let dump = self.dump.lock().unwrap();
            String::from_utf8_lossy(&dump).contains(&mark).then_some(())
        });
        kill(
            Pid::from_raw(self.tcpdump.id().cast_signed()),
            Signal::SIGINT,
        )
        .unwrap();
        self.tcpdump.wait().unwrap();
        self.reading.join().unwrap();
        let dump = self.dump.lock().unwrap();
        let dump = String::from_utf8_lossy(&dump);
        Seen {
            packets: dump
                .lines()
                .filter(|line| line.contains(" IP ") || line.contains(" IP6 "))
                .filter(|line| !line.contains(&mark) && !line.contains(&answer))
                .count(),
            found: dump.contains(text),
        }
    }
}
