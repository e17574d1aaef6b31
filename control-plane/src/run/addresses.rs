//! Addresses of a mesh without a cluster: who has which, and the next free.
//!
//! Pure, under the holder. A pod and a service keep their address for as long
//! as the mesh's directory exists, so a restarted mesh looks the same to a
//! program that remembered one. IPv4 and IPv6 of one owner end in the same
//! number.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// Of pods: 10.244.0.0/16 and fd00:10:244::/64.
const PODS: Pool = Pool {
    v4: Ipv4Addr::new(10, 244, 0, 0),
    v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0),
};
/// Of services: 10.96.0.0/16 and fd00:10:96::/112.
const SERVICES: Pool = Pool {
    v4: Ipv4Addr::new(10, 96, 0, 0),
    v6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0),
};

/// CIDRs of both, for the control plane.
pub(crate) const RANGES: [&str; 4] = [
    "10.244.0.0/16",
    "fd00:10:244::/64",
    "10.96.0.0/16",
    "fd00:10:96::/112",
];

const V4_PREFIX: u8 = 16;
const V6_PREFIX: u8 = 64;
/// The switch's own; the first that is given away is the next.
const GATEWAY: u16 = 1;

struct Pool {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Pool {
    fn v4(&self, index: u16) -> IpAddr {
        Ipv4Addr::from(u32::from(self.v4) + u32::from(index)).into()
    }

    fn v6(&self, index: u16) -> IpAddr {
        Ipv6Addr::from(u128::from(self.v6) + u128::from(index)).into()
    }

    /// Its number, if it is one of this pool's.
    fn index(&self, address: IpAddr) -> Option<u16> {
        let offset = match address {
            IpAddr::V4(it) => u128::from(u32::from(it).checked_sub(u32::from(self.v4))?),
            IpAddr::V6(it) => u128::from(it).checked_sub(u128::from(self.v6))?,
        };
        u16::try_from(offset)
            .ok()
            .filter(|index| (1..u16::MAX).contains(index))
    }
}

/// The switch's addresses with their prefix lengths.
pub(crate) fn gateways(has_ipv6: bool) -> Vec<(IpAddr, u8)> {
    let mut all = vec![(gateway(false), V4_PREFIX)];
    if has_ipv6 {
        all.push((gateway(true), V6_PREFIX));
    }
    all
}

pub(crate) fn gateway(of_ipv6: bool) -> IpAddr {
    if of_ipv6 {
        PODS.v6(GATEWAY)
    } else {
        PODS.v4(GATEWAY)
    }
}

pub(crate) fn gateway_mac() -> [u8; 6] {
    mac(GATEWAY)
}

/// Locally administered.
fn mac(index: u16) -> [u8; 6] {
    let [high, low] = index.to_be_bytes();
    [0x02, 0x57, 0x45, 0x46, high, low]
}

/// A pod's: one of each family that the mesh has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    index: u16,
    all: Vec<IpAddr>,
}

impl Addresses {
    /// Unique in the mesh.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    pub(crate) fn all(&self) -> &[IpAddr] {
        &self.all
    }

    pub(crate) fn with_prefixes(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.all.iter().map(|address| {
            (
                *address,
                if address.is_ipv4() {
                    V4_PREFIX
                } else {
                    V6_PREFIX
                },
            )
        })
    }

    /// Follows from the address, so that a pod that comes back is where its
    /// neighbours remember it.
    pub(crate) fn mac(&self) -> [u8; 6] {
        mac(self.index)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refused {
    #[error("podIPs: {0} is outside the mesh's ranges 10.244.0.0/16 and fd00:10:244::/64")]
    OutsideRange(IpAddr),
    #[error("podIPs: {0} and {1} must end in the same number")]
    Apart(IpAddr, IpAddr),
    #[error("podIPs: {0} belongs to pod {1}")]
    Taken(IpAddr, String),
    #[error("every address of the mesh is taken")]
    Exhausted,
}

/// Who has which number. Kept as JSON in the mesh's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    /// By "namespace/name".
    pods: BTreeMap<String, u16>,
    services: BTreeMap<String, u16>,
}

impl Book {
    /// The pod's addresses: those that it `asks` for, else what it had, else the next free.
    /// `is_live` tells whose address can't be taken over.
    pub(crate) fn pod(
        &mut self,
        name: &str,
        asks: &[IpAddr],
        has_ipv6: bool,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<Addresses, Refused> {
        let index = match asks.first() {
            Some(first) => asked(*first, asks)?,
            None => match self.pods.get(name) {
                Some(index) => *index,
                None => free(&self.pods)?,
            },
        };
        let others = self
            .pods
            .iter()
            .filter(|(other, taken)| **taken == index && *other != name);
        let others: Vec<String> = others.map(|(other, _)| other.clone()).collect();
        if let Some(other) = others.iter().find(|other| is_live(other)) {
            return Err(Refused::Taken(PODS.v4(index), other.clone()));
        }
        for other in &others {
            self.pods.remove(other);
        }
        self.pods.insert(name.to_owned(), index);
        let all = if has_ipv6 {
            vec![PODS.v4(index), PODS.v6(index)]
        } else {
            vec![PODS.v4(index)]
        };
        Ok(Addresses { index, all })
    }

    /// Cluster IPs of `services`, in their order, for those that name none.
    /// `taken` are the cluster IPs that manifests name.
    pub(crate) fn service(
        &mut self,
        name: &str,
        has_ipv6: bool,
        taken: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refused> {
        let clash =
            |index: u16| taken.contains(&SERVICES.v4(index)) || taken.contains(&SERVICES.v6(index));
        let index = match self.services.get(name) {
            Some(index) if !clash(*index) => *index,
            _ => {
                let used: Vec<u16> = self.services.values().copied().collect();
                (GATEWAY + 1..u16::MAX)
                    .find(|index| !used.contains(index) && !clash(*index))
                    .ok_or(Refused::Exhausted)?
            }
        };
        self.services.insert(name.to_owned(), index);
        let mut all = vec![SERVICES.v4(index)];
        if has_ipv6 {
            all.push(SERVICES.v6(index));
        }
        Ok(all)
    }
}

/// The number that all `asks` share.
fn asked(first: IpAddr, asks: &[IpAddr]) -> Result<u16, Refused> {
    let index = PODS
        .index(first)
        .filter(|index| *index > GATEWAY)
        .ok_or(Refused::OutsideRange(first))?;
    for address in asks {
        match PODS.index(*address) {
            None => return Err(Refused::OutsideRange(*address)),
            Some(other) if other != index => return Err(Refused::Apart(first, *address)),
            Some(_) => {}
        }
    }
    Ok(index)
}

fn free(taken: &BTreeMap<String, u16>) -> Result<u16, Refused> {
    let used: Vec<u16> = taken.values().copied().collect();
    (GATEWAY + 1..u16::MAX)
        .find(|index| !used.contains(index))
        .ok_or(Refused::Exhausted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nobody(_: &str) -> bool {
        false
    }

    #[test]
    fn a_pod_keeps_its_address_and_another_gets_the_next() {
        let mut book = Book::default();
        let cart = book.pod("shop/cart-0", &[], true, nobody).unwrap();
        assert_eq!(
            cart.all(),
            [address("10.244.0.2"), address("fd00:10:244::2")]
        );
        let front = book.pod("shop/front-0", &[], true, nobody).unwrap();
        assert_eq!(
            front.all(),
            [address("10.244.0.3"), address("fd00:10:244::3")]
        );
        assert_eq!(book.pod("shop/cart-0", &[], true, nobody).unwrap(), cart);
        let kept: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        assert_eq!(kept, book);
    }

    #[test]
    fn an_address_that_a_manifest_names_moves_from_the_dead_but_not_from_the_living() {
        let mut book = Book::default();
        book.pod("shop/old", &[], true, nobody).unwrap();
        let asks = [address("10.244.0.2")];
        let taken = book.pod("shop/new", &asks, true, |name| name == "shop/old");
        assert_eq!(taken, Err(Refused::Taken(asks[0], "shop/old".to_owned())));
        assert_eq!(
            book.pod("shop/new", &asks, false, nobody).unwrap().all(),
            asks
        );
        assert_eq!(book.pod("shop/old", &[], true, nobody).unwrap().index(), 3);
    }

    #[test]
    fn an_address_outside_the_range_or_of_two_numbers_is_refused() {
        let mut book = Book::default();
        for text in [
            "10.244.0.0",
            "10.244.0.1",
            "10.245.0.1",
            "192.0.2.1",
            "fd00:10:244:1::2",
        ] {
            let asks = [address(text)];
            assert_eq!(
                book.pod("shop/a", &asks, true, nobody),
                Err(Refused::OutsideRange(asks[0])),
                "{text}"
            );
        }
        let asks = [address("10.244.0.9"), address("fd00:10:244::8")];
        assert_eq!(
            book.pod("shop/a", &asks, true, nobody),
            Err(Refused::Apart(asks[0], asks[1]))
        );
    }

    #[test]
    fn a_service_never_gets_an_address_that_a_manifest_names() {
        let mut book = Book::default();
        let named = [address("10.96.0.2"), address("fd00:10:96::3")];
        let given = book.service("shop/cart", true, &named).unwrap();
        assert_eq!(given, [address("10.96.0.4"), address("fd00:10:96::4")]);
        assert_eq!(book.service("shop/cart", true, &named).unwrap(), given);
        // A manifest that comes later wins.
        assert_eq!(
            book.service("shop/cart", false, &given).unwrap(),
            [address("10.96.0.2")]
        );
    }
}
