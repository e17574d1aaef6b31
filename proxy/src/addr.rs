//! Kinds of socket address that must not be confused, and address ranges.
//!
//! Ground: used everywhere, knows nothing else.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Where the connection was going before redirection (`SO_ORIGINAL_DST`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OrigDst(pub(crate) SocketAddr);

impl fmt::Display for OrigDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the connection came from, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PeerAddr(pub(crate) SocketAddr);

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// IPv4-mapped IPv6 (RFC 4291 §2.5.5.2) as the IPv4 that it is, so that one
/// address has one form as a key.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A CIDR block. Bits after the prefix are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Range {
    first: IpAddr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a CIDR block such as 10.0.0.0/8 or fd00::/8")]
pub(crate) struct NotARange(String);

impl Range {
    pub(crate) const LOOPBACK_V4: Self = Self {
        first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
        prefix: 8,
    };
    pub(crate) const LOOPBACK_V6: Self = Self::only(IpAddr::V6(Ipv6Addr::LOCALHOST));

    /// The block that holds this address alone.
    pub(crate) const fn only(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self {
            first: address,
            prefix,
        }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                first.to_bits() == address.to_bits() & mask(32, self.prefix) as u32
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                first.to_bits() == address.to_bits() & mask(128, self.prefix)
            }
            _ => false,
        }
    }

    pub(crate) fn first(&self) -> IpAddr {
        self.first
    }

    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl FromStr for Range {
    type Err = NotARange;

    /// A bare address is the block that holds it alone.
    fn from_str(text: &str) -> Result<Self, NotARange> {
        let wrong = || NotARange(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits),
            None => Some(bits),
        }
        .ok_or_else(wrong)?;
        let first = match address {
            IpAddr::V4(v4) => IpAddr::from((v4.to_bits() & mask(32, prefix) as u32).to_be_bytes()),
            IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & mask(128, prefix)).to_be_bytes()),
        };
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// The upper `prefix` of the lowest `bits` bits.
fn mask(bits: u8, prefix: u8) -> u128 {
    let all = if bits == 128 {
        u128::MAX
    } else {
        (1 << bits) - 1
    };
    let host = bits - prefix;
    if host == 128 { 0 } else { all >> host << host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_its_own_addresses_alone() {
        assert!(range("10.96.0.0/12").contains("10.111.255.255".parse().unwrap()));
        assert!(!range("10.96.0.0/12").contains("10.112.0.0".parse().unwrap()));
        assert!(range("fd00::/8").contains("fdff::1".parse().unwrap()));
        assert!(!range("fd00::/8").contains("fe00::1".parse().unwrap()));
        assert!(range("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
        assert!(range("::/0").contains("ffff::".parse().unwrap()));
        assert!(!range("::/0").contains("10.0.0.1".parse().unwrap()));
        assert!(range("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn a_range_forgets_host_bits_and_prints_itself() {
        assert_eq!(range("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(range("10.1.2.3").to_string(), "10.1.2.3/32");
        for wrong in ["", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }
}
