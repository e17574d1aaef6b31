//! Which addresses are the mesh's, so that proxies ask about no others.
//!
//! Fed by `tables` with every address that a Service or a pod claims, and with
//! the ranges that a cluster says theirs come from. What is claimed is always
//! covered: configured ranges first, and an address outside
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
        if let Some(range) = self.derived_from(ip) {
            self.add(range);
        }
    }

    /// Takes back one claim.
    pub(super) fn release(&mut self, ip: IpAddr) {
        if let Some(range) = self.derived_from(ip) {
            self.subtract(range);
        }
    }

    /// A whole range, as somebody said; nobody's word where one is configured.
    pub(super) fn claim_range(&mut self, (ip, bits): (IpAddr, u8)) {
        if self.configured.is_empty() {
            self.add((network(ip, bits), bits));
        }
    }

    pub(super) fn release_range(&mut self, (ip, bits): (IpAddr, u8)) {
        if self.configured.is_empty() {
            self.subtract((network(ip, bits), bits));
        }
    }

    /// One node's share of the pods' range. Widened, so that a node that joins
    /// rarely widens what proxies know, and a thousand nodes are few ranges.
    pub(super) fn claim_pods(&mut self, share: (IpAddr, u8)) {
        self.claim_range(widened(share));
    }

    pub(super) fn release_pods(&mut self, share: (IpAddr, u8)) {
        self.release_range(widened(share));
    }

    fn add(&mut self, range: (IpAddr, u8)) {
        let claims = self.derived.entry(range).or_default();
        *claims += 1;
        if *claims == 1 {
            self.toggle(range);
        }
    }

    fn subtract(&mut self, range: (IpAddr, u8)) {
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
        let within = |(ip, bits): (IpAddr, u8), (base, length): (IpAddr, u8)| {
            base.is_ipv4() == ip.is_ipv4() && length < bits && network(ip, length) == base
        };
        // Ascending, so that what holds a range stands before it, and the last
        // that was kept is the only one that can.
        let mut last = None;
        for range in self.derived.keys().copied() {
            if last.is_none_or(|last| !within(range, last)) {
                all.push(range);
                last = Some(range);
            }
        }
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

fn widened((ip, bits): (IpAddr, u8)) -> (IpAddr, u8) {
    let most = if ip.is_ipv4() { 16 } else { 56 };
    (ip, bits.min(most))
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
    fn a_range_that_a_cluster_says_swallows_what_lies_in_it() {
        let mut ranges = Ranges::new(&[]);
        ranges.claim(ip("10.96.0.1"));
        ranges.claim(ip("10.244.1.7"));
        ranges.claim_range((ip("10.96.0.0"), 12));
        ranges.claim_pods((ip("10.244.1.0"), 24));
        ranges.claim_pods((ip("10.244.2.0"), 24));
        ranges.claim_pods((ip("fd00:10:244:1::"), 64));
        ranges.claim_pods((ip("fd00:10:244:2::"), 64));
        let all = [
            (ip("10.96.0.0"), 12),
            (ip("10.244.0.0"), 16),
            (ip("fd00:10:244::"), 56),
        ];
        assert_eq!(ranges.all(), all);
        ranges.release_range((ip("10.96.0.0"), 12));
        assert_eq!(ranges.all()[0], (ip("10.96.0.0"), 16));
    }

    #[test]
    fn a_configuration_overrides_what_a_cluster_says() {
        let mut ranges = Ranges::new(&[(ip("10.0.0.0"), 8)]);
        ranges.claim_range((ip("192.168.0.0"), 16));
        ranges.claim_pods((ip("172.16.1.0"), 24));
        assert!(!ranges.differ());
        assert_eq!(ranges.all(), [(ip("10.0.0.0"), 8)]);
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
