//! Packets of a pod that are lost without a word, by nftables.

use std::process::Command;

use weft_tests::world::Pod;

/// While it lives, packets of the pod that fit `which` go nowhere, in and out.
#[derive(Debug)]
pub(crate) struct Lost<'a>(&'a Pod);

impl<'a> Lost<'a> {
    /// `which` is an nftables match, such as `tcp dport 80`; empty: all packets.
    pub(crate) fn of(pod: &'a Pod, which: &str) -> Self {
        nft(
            pod,
            &format!(
                "table inet loss {{\n\
                 chain in {{ type filter hook input priority -300; {which} drop; }}\n\
                 chain out {{ type filter hook output priority -300; {which} drop; }}\n}}"
            ),
        );
        Self(pod)
    }
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        nft(self.0, "delete table inet loss");
    }
}

fn nft(pod: &Pod, rules: &str) {
    let done = pod.inside(|| Command::new("nft").arg(rules).output());
    let done = done.expect("nft is installed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{rules}: {said}");
}
