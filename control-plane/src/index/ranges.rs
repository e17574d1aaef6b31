//! Which addresses are the mesh's, so that proxies ask about no others.
//!
//! Fed by `tables` with every address that a Service or a pod claims. What is
//! claimed is always covered: configured ranges first, and an address outside
//! them as a range of its own; without configuration the /16 (IPv4) or /64
//! (IPv6) around it, so that a new pod rarely widens what proxies know.
//! Counts, never scans.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

#[derive(Debug, Default)]
pub(super) struct Ranges {
    configured: Vec<(IpAddr, u8)>,
    /// How many claims hold each range that is not configured.
    derived: BTreeMap<(IpAddr, u8), usize>,
    /// Ranges that came or went since somebody asked; what does both is not here.
    toggled: BTreeSet<(IpAddr, u8)>,
}

impl Ranges {
    pub(super) fn new(configured: &[(IpAddr, u8)]) -> Self {
        let mut configured: Vec<_> = configured
            .iter()
            .map(|(ip, bits)| (network(*ip, *bits), *bits))
            .collect();
        configured.sort_unstable();
        configured.dedup();
        Self {
            configured,
            ..Self::default()
        }
    }

    pub(super) fn claim(&mut self, ip: IpAddr) {
        let Some(range) = self.derived_from(ip) else {
            return;
        };
        let claims = self.derived.entry(range).or_default();
        *claims += 1;
        if *claims == 1 {
            self.toggle(range);
        }
    }

    /// Takes back one claim.
    pub(super) fn release(&mut self, ip: IpAddr) {
        let Some(range) = self.derived_from(ip) else {
            return;
        };
        match self.derived.get_mut(&range) {
            Some(claims) if *claims > 1 => *claims -= 1,
            Some(_) => {
                self.derived.remove(&range);
                self.toggle(range);
            }
            None => {}
        }
    }

    /// Whether they are others than when this was last asked.
    pub(super) fn differ(&mut self) -> bool {
        !mem::take(&mut self.toggled).is_empty()
    }

    fn toggle(&mut self, range: (IpAddr, u8)) {
        if !self.toggled.remove(&range) {
            self.toggled.insert(range);
        }
    }

    pub(super) fn all(&self) -> Vec<(IpAddr, u8)> {
        let mut all = self.configured.clone();
        all.extend(self.derived.keys());
        all
    }

    /// There is a configuration, and it leaves this address out.
    pub(super) fn leaves_out(&self, ip: IpAddr) -> bool {
        !self.configured.is_empty() && !self.is_configured(ip)
    }

    fn is_configured(&self, ip: IpAddr) -> bool {
        self.configured
            .iter()
            .any(|(base, bits)| base.is_ipv4() == ip.is_ipv4() && network(ip, *bits) == *base)
    }

    fn derived_from(&self, ip: IpAddr) -> Option<(IpAddr, u8)> {
        if self.is_configured(ip) {
            return None;
        }
        let bits = match (ip, self.configured.is_empty()) {
            (IpAddr::V4(_), true) => 16,
            (IpAddr::V4(_), false) => 32,
            (IpAddr::V6(_), true) => 64,
            (IpAddr::V6(_), false) => 128,
        };
        Some((network(ip, bits), bits))
    }
}

fn network(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits.min(32)))
                .unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits.min(128)))
                .unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_lives_as_long_as_a_claim_in_it() {
        let mut ranges = Ranges::new(&[]);
        ranges.claim(ip("10.1.2.3"));
        assert!(ranges.differ());
        ranges.claim(ip("10.1.9.9"));
        assert!(!ranges.differ());
        ranges.claim(ip("fd00::1:0:0:0:5"));
        assert_eq!(
            ranges.all(),
            [(ip("10.1.0.0"), 16), (ip("fd00:0:0:1::"), 64)]
        );
        assert!(ranges.differ());
        ranges.release(ip("10.1.9.9"));
        assert!(!ranges.differ());
        ranges.release(ip("10.1.2.3"));
        assert!(ranges.differ());
        assert_eq!(ranges.all(), [(ip("fd00:0:0:1::"), 64)]);
    }

    #[test]
    fn what_goes_and_comes_back_makes_no_difference() {
        let mut ranges = Ranges::new(&[]);
        ranges.claim(ip("10.1.2.3"));
        assert!(ranges.differ());
        ranges.release(ip("10.1.2.3"));
        ranges.claim(ip("10.1.7.7"));
        assert!(!ranges.differ());
    }

    #[test]
    fn what_the_configuration_leaves_out_is_covered_alone() {
        let mut ranges = Ranges::new(&[(ip("10.1.255.255"), 16), (ip("fd00::"), 8)]);
        ranges.claim(ip("10.1.2.3"));
        ranges.claim(ip("fd00::5"));
        assert!(!ranges.differ());
        assert!(!ranges.leaves_out(ip("10.1.2.3")));
        ranges.claim(ip("192.0.2.1"));
        assert!(ranges.differ());
        assert!(ranges.leaves_out(ip("192.0.2.1")));
        assert_eq!(
            ranges.all(),
            [
                (ip("10.1.0.0"), 16),
                (ip("fd00::"), 8),
                (ip("192.0.2.1"), 32)
            ]
        );
    }
}
