//! Writes the rules in the words of nf_tables: messages of one transaction.
//!
//! `rules` decides, `redirect` asks, `netlink` sends what is made here. One
//! table of family `inet` holds both address families, so neither can be
//! there without the other. No sets and no counters: `nft list ruleset` stays
//! the same, byte for byte, and reads like `rules`.
//!
//! Register 1 is loaded and compared in turn, as nft itself does it. Kernel
//! definitions: `include/uapi/linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber,
    Immediate, InetHookNumber, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
    RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict, VerdictAttribute,
};

use super::{
    netlink::{Part, Step},
    rules::{Chain, Condition, Own, Rule, Then},
};
use crate::addr::Range;

const TABLE: &str = "weft";
const NF_ACCEPT: u32 = 1;
/// Before routing decides, where destination NAT belongs (`NF_IP_PRI_NAT_DST`).
const PRIORITY: i32 = -100;
const LOOPBACK_INDEX: u32 = 1;
const TCP: u8 = nix::libc::IPPROTO_TCP as u8;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

/// Our table, as `rules` say, in place of what there was.
pub(super) fn replace(rules: &[Rule]) -> Vec<Step> {
    let mut steps = delete();
    steps.push(new_table());
    steps.extend(Chain::ALL.map(new_chain));
    steps.extend(rules.iter().map(new_rule));
    steps
}

/// No table of ours. Made first, because deleting what is not there is an error.
pub(super) fn delete() -> Vec<Step> {
    let message = NfTablesMessage::DeleteTable(TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    });
    vec![
        new_table(),
        Step {
            part: Part::Table,
            flags: 0,
            message,
        },
    ]
}

fn new_table() -> Step {
    let message = NfTablesMessage::NewTable(TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    });
    Step {
        part: Part::Table,
        flags: NLM_F_CREATE,
        message,
    }
}

fn new_chain(chain: Chain) -> Step {
    let mut attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.as_str().to_owned()),
    ];
    let hook = match chain {
        Chain::Output => Some(InetHookNumber::LocalOut),
        Chain::Prerouting => Some(InetHookNumber::PreRouting),
        Chain::Proxy => None,
    };
    if let Some(hook) = hook {
        let priority = Hook::Priority(PRIORITY.cast_unsigned());
        attributes.push(ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Inet(hook)),
            priority,
        ]));
        attributes.push(ChainAttribute::Policy(NF_ACCEPT));
        attributes.push(ChainAttribute::Type("nat".to_owned()));
    }
    let message = NfTablesMessage::NewChain(ChainMessage { attributes });
    Step {
        part: Part::Chain(chain),
        flags: NLM_F_CREATE,
        message,
    }
}

fn new_rule(rule: &Rule) -> Step {
    let mut expressions = Vec::new();
    for condition in &rule.when {
        condition_expressions(*condition, &mut expressions);
    }
    verdict_expressions(rule.then, &mut expressions);
    let message = NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(rule.chain.as_str().to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        ],
    });
    Step {
        part: Part::Rule(rule.chain),
        flags: NLM_F_CREATE | NLM_F_APPEND,
        message,
    }
}

fn condition_expressions(condition: Condition, out: &mut Vec<Expressions>) {
    match condition {
        Condition::Tcp => {
            out.extend([load_meta(MetaKey::L4Proto), compare(Operator::Equal, [TCP])])
        }
        Condition::Port(port) => {
            condition_expressions(Condition::Tcp, out);
            out.extend([
                load(TRANSPORT_HEADER, 2, 2),
                compare(Operator::Equal, port.to_be_bytes()),
            ]);
        }
        Condition::From(range) => address_expressions(range, [12, 8], out),
        Condition::To(range) => address_expressions(range, [16, 24], out),
        Condition::Own(Own::Uid(uid)) => {
            out.extend([
                load_meta(MetaKey::SocketUserId),
                compare(Operator::Equal, uid.to_ne_bytes()),
            ]);
        }
        Condition::Own(Own::Mark(mark)) => {
            out.extend([
                load_meta(MetaKey::Mark),
                compare(Operator::Equal, mark.to_ne_bytes()),
            ]);
        }
        Condition::OutByLoopback => {
            out.extend([
                load_meta(MetaKey::Oif),
                compare(Operator::Equal, LOOPBACK_INDEX.to_ne_bytes()),
            ]);
        }
        Condition::NotOutByLoopback => {
            out.extend([
                load_meta(MetaKey::Oif),
                compare(Operator::NotEqual, LOOPBACK_INDEX.to_ne_bytes()),
            ]);
        }
        Condition::InByLoopback => {
            out.extend([
                load_meta(MetaKey::Iif),
                compare(Operator::Equal, LOOPBACK_INDEX.to_ne_bytes()),
            ]);
        }
    }
}

/// `offsets`: where the address stands in the IPv4 and in the IPv6 header.
fn address_expressions(range: Range, offsets: [u32; 2], out: &mut Vec<Expressions>) {
    let [in_v4, in_v6] = offsets;
    let (family, offset, address) = match range.first() {
        IpAddr::V4(address) => (NFPROTO_IPV4, in_v4, address.octets().to_vec()),
        IpAddr::V6(address) => (NFPROTO_IPV6, in_v6, address.octets().to_vec()),
    };
    out.extend([
        load_meta(MetaKey::Nfproto),
        compare(Operator::Equal, [family]),
    ]);
    out.push(load(NETWORK_HEADER, offset, address.len() as u32));
    if usize::from(range.prefix()) < address.len() * 8 {
        out.push(mask(address.len(), range.prefix()));
    }
    out.push(compare(Operator::Equal, address));
}

fn verdict_expressions(then: Then, out: &mut Vec<Expressions>) {
    match then {
        Then::LeaveAlone => out.push(verdict(vec![VerdictAttribute::Code(Verdict::Other(
            NF_ACCEPT,
        ))])),
        Then::GoTo(chain) => out.push(verdict(vec![
            VerdictAttribute::Code(Verdict::Goto),
            VerdictAttribute::Chain(chain.as_str().to_owned()),
        ])),
        Then::Redirect(port) => {
            out.push(Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg1),
                Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
            ]));
            out.push(Expressions::Other {
                expression_type: "redir".to_owned(),
                attributes: vec![DefaultNla::new(
                    NFTA_REDIR_REG_PROTO_MIN,
                    u32::from(Register::Reg1).to_be_bytes().to_vec(),
                )],
            });
        }
    }
}

fn verdict(attributes: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![
        Meta::Key(key),
        Meta::DestinationRegister(Register::Reg1),
    ])
}

fn load(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn mask(length: usize, prefix: u8) -> Expressions {
    let bits = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    let mask = bits.to_be_bytes().into_iter().take(length).collect();
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(length as u32),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(vec![0; length])),
    ])
}

fn compare(operator: Operator, with: impl Into<Vec<u8>>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with.into())),
    ])
}
