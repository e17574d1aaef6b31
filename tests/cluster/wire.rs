//! What travels between two pods, seen from the node.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStderr, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[derive(Debug)]
pub(crate) struct Capture {
    tcpdump: Child,
    said: BufReader<ChildStderr>,
}

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) packets: usize,
    pub(crate) found: bool,
}

impl Capture {
    /// Every TCP packet to and from an address, by a command that runs where it passes.
    pub(crate) fn start(mut on_node: Command, address: &str) -> Self {
        let mut tcpdump = on_node
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
        Self { tcpdump, said }
    }

    /// Ends it, and looks for a text in what it saw.
    pub(crate) fn end(mut self, text: &str) -> Seen {
        kill(
            Pid::from_raw(self.tcpdump.id().cast_signed()),
            Signal::SIGINT,
        )
        .unwrap();
        let mut dump = Vec::new();
        let mut out = self.tcpdump.stdout.take().unwrap();
        out.read_to_end(&mut dump).unwrap();
        self.said.read_to_string(&mut String::new()).ok();
        self.tcpdump.wait().unwrap();
        let dump = String::from_utf8_lossy(&dump);
        Seen {
            packets: dump
                .lines()
                .filter(|line| line.contains(" IP ") || line.contains(" IP6 "))
                .count(),
            found: dump.contains(text),
        }
    }
}
