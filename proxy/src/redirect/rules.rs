//! Decides which connections go to the proxy: the table of architecture, pure.
//!
//! `redirect` hands the list to `nft`, which writes it in the kernel's words.
//! The first rule of a chain that matches decides; what none decides is left
//! alone. A connection is judged once, by its first packet.

use crate::{
    addr::Range,
    sock::{INBOUND_V4, INBOUND_V6},
};

/// What to take over, and what to leave alone.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) outbound_port: u16,
    pub(crate) inbound_port: u16,
    /// Further ports on which the proxy itself answers.
    pub(crate) proxy_ports: Vec<u16>,
    pub(crate) own: Own,
    pub(crate) exclude_outbound_ports: Vec<u16>,
    pub(crate) exclude_outbound_ranges: Vec<Range>,
    pub(crate) exclude_inbound_ports: Vec<u16>,
}

/// By what the proxy's own traffic is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    Uid(u32),
    Mark(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chain {
    /// What leaves: nat, hook output.
    Output,
    /// What of it is the proxy's; reached from `Output`.
    Proxy,
    /// What arrives: nat, hook prerouting.
    Prerouting,
}

impl Chain {
    pub(super) const ALL: [Self; 3] = [Self::Output, Self::Proxy, Self::Prerouting];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Proxy => "proxy",
            Self::Prerouting => "prerouting",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    Tcp,
    /// TCP to this port.
    Port(u16),
    From(Range),
    To(Range),
    /// Is the socket the proxy's?
    Own(Own),
    /// Leaves by `lo`, which every local destination does.
    OutByLoopback,
    NotOutByLoopback,
    InByLoopback,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    LeaveAlone,
    GoTo(Chain),
    Redirect(u16),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    pub(super) when: Vec<Condition>,
    pub(super) then: Then,
}

impl Rules {
    pub(super) fn list(&self) -> Vec<Rule> {
        let mut list = List(Vec::new());
        self.output(&mut list);
        self.proxy(&mut list);
        self.prerouting(&mut list);
        list.0
    }

    fn output(&self, list: &mut List) {
        list.add(
            Chain::Output,
            [Condition::Own(self.own)],
            Then::GoTo(Chain::Proxy),
        );
        // The application's own loopback traffic, the pod's own address included.
        list.add(Chain::Output, [Condition::OutByLoopback], Then::LeaveAlone);
        list.leave_ports(Chain::Output, &self.exclude_outbound_ports);
        for range in &self.exclude_outbound_ranges {
            list.add(Chain::Output, [Condition::To(*range)], Then::LeaveAlone);
        }
        list.add(
            Chain::Output,
            [Condition::Tcp],
            Then::Redirect(self.outbound_port),
        );
    }

    /// A proxy that picked its own pod must meet the inbound side like any
    /// other caller; what the inbound side then opens must not.
    fn proxy(&self, list: &mut List) {
        list.add(
            Chain::Proxy,
            [Condition::NotOutByLoopback],
            Then::LeaveAlone,
        );
        for source in [
            Range::only(INBOUND_V4.into()),
            Range::only(INBOUND_V6.into()),
        ] {
            list.add(Chain::Proxy, [Condition::From(source)], Then::LeaveAlone);
        }
        for destination in [Range::LOOPBACK_V4, Range::LOOPBACK_V6] {
            list.add(Chain::Proxy, [Condition::To(destination)], Then::LeaveAlone);
        }
        self.inbound(Chain::Proxy, list);
    }

    fn prerouting(&self, list: &mut List) {
        // `output` has judged these.
        list.add(
            Chain::Prerouting,
            [Condition::InByLoopback],
            Then::LeaveAlone,
        );
        self.inbound(Chain::Prerouting, list);
    }

    fn inbound(&self, chain: Chain, list: &mut List) {
        // Straight to the listener, which knows such a connection for what it
        // is and refuses it by name.
        list.leave_ports(chain, &[self.outbound_port, self.inbound_port]);
        list.leave_ports(chain, &self.proxy_ports);
        list.leave_ports(chain, &self.exclude_inbound_ports);
        list.add(chain, [Condition::Tcp], Then::Redirect(self.inbound_port));
    }
}

struct List(Vec<Rule>);

impl List {
    fn add(&mut self, chain: Chain, when: impl Into<Vec<Condition>>, then: Then) {
        self.0.push(Rule {
            chain,
            when: when.into(),
            then,
        });
    }

    fn leave_ports(&mut self, chain: Chain, ports: &[u16]) {
        for port in ports {
            self.add(chain, [Condition::Port(*port)], Then::LeaveAlone);
        }
    }
}
