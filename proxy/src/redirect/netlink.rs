//! Carries requests to the kernel and its answers back.
//!
//! Called by `redirect` with what `nft` wrote. The kernel works within the
//! send and queues every answer before it returns, so nothing here waits.

use std::{fmt, io, net::Ipv6Addr};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    Parseable,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, nftables::NfTablesMessage,
    none::ControlMessage,
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

use super::rules::Chain;
use crate::sock::INBOUND_V6;

/// One message of a transaction, and what it is called when it fails.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) part: Part,
    pub(super) flags: u16,
    pub(super) message: NfTablesMessage,
}

/// What an error number is about; it says little without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Socket,
    Transaction,
    Table,
    Chain(Chain),
    Rule(Chain),
    LoopbackAddress,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("a netlink socket"),
            Self::Transaction => f.write_str("the transaction"),
            Self::Table => f.write_str("the table"),
            Self::Chain(chain) => write!(f, "chain {}", chain.as_str()),
            Self::Rule(chain) => write!(f, "a rule of chain {}", chain.as_str()),
            Self::LoopbackAddress => f.write_str("::6/128 on lo"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Refused {
    pub(super) part: Part,
    pub(super) error: io::Error,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Add,
    Remove,
}

const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// An acknowledgement is some 40 bytes, an error carries its request back.
const ANSWER: usize = 64 * 1024;

/// Does all the steps or none of them.
pub(super) fn transaction(steps: &[Step]) -> Result<(), Refused> {
    let refused = |part| move |error| Refused { part, error };
    let mut batch = Vec::new();
    let begin = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    append(
        &mut batch,
        0,
        0,
        NetfilterMessage::new(begin.clone(), ControlMessage::BatchBegin),
    );
    for (number, step) in (1..).zip(steps) {
        // Failures are told unasked; the last step's success is the whole's.
        let ask = if number == steps.len() as u32 {
            NLM_F_ACK
        } else {
            0
        };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        append(
            &mut batch,
            number,
            step.flags | ask,
            NetfilterMessage::new(header, step.message.clone()),
        );
    }
    let end = steps.len() as u32 + 1;
    append(
        &mut batch,
        end,
        0,
        NetfilterMessage::new(begin, ControlMessage::BatchEnd),
    );

    let socket = open(NETLINK_NETFILTER).map_err(refused(Part::Socket))?;
    // One datagram is one transaction. The default send buffer holds a thousand rules.
    send(&socket, &batch).map_err(refused(Part::Transaction))?;
    let part = |number: u32| {
        let step = number
            .checked_sub(1)
            .and_then(|index| steps.get(index as usize));
        step.map_or(Part::Transaction, |step| step.part)
    };
    answer::<NetfilterMessage>(&socket, end - 1)
        .map_err(|(number, error)| refused(part(number))(error))
}

/// Adds `::6/128` to the loopback interface, or removes it.
pub(super) fn loopback_address(change: Change) -> io::Result<()> {
    let flags = match change {
        Change::Add => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        Change::Remove => NLM_F_ACK,
    };
    let mut request = Vec::new();
    append(
        &mut request,
        0,
        flags,
        LoopbackAddress {
            change,
            address: INBOUND_V6,
        },
    );
    let socket = open(NETLINK_ROUTE)?;
    send(&socket, &request)?;
    answer::<LoopbackAddress>(&socket, 0).map_err(|(_, error)| error)
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

fn send(socket: &Socket, request: &[u8]) -> io::Result<()> {
    let kernel = SocketAddr::new(0, 0);
    match socket.send_to(request, &kernel, 0)? {
        sent if sent == request.len() => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::WriteZero)),
    }
}

fn append<I: NetlinkSerializable>(batch: &mut Vec<u8>, number: u32, flags: u16, message: I)
where
    NetlinkPayload<I>: From<I>,
{
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, message.into());
    message.finalize();
    let start = batch.len();
    // Messages are padded to four bytes (netlink(7), NLMSG_ALIGN).
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = batch.get_mut(start..) {
        message.emit(room);
    }
}

/// Reads what the kernel queued: the first failure, or success when request
/// number `last` was acknowledged.
fn answer<I: NetlinkDeserializable>(socket: &Socket, last: u32) -> Result<(), (u32, io::Error)> {
    loop {
        let mut buffer = Vec::with_capacity(ANSWER);
        socket.recv(&mut buffer, 0).map_err(|error| (last, error))?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let malformed = || (last, io::Error::from(io::ErrorKind::InvalidData));
            let raw = NetlinkBuffer::new_checked(rest).map_err(|_| malformed())?;
            let length = (raw.length() as usize).next_multiple_of(4);
            let message =
                NetlinkMessage::<I>::parse(&NetlinkBuffer::new(&rest)).map_err(|_| malformed())?;
            if let NetlinkPayload::Error(error) = &message.payload {
                if error.code.is_some() {
                    return Err((message.header.sequence_number, error.to_io()));
                }
                if message.header.sequence_number == last {
                    return Ok(());
                }
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// `RTM_NEWADDR` or `RTM_DELADDR` (rtnetlink(7)) of an address on `lo`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LoopbackAddress {
    change: Change,
    address: Ipv6Addr,
}

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const IFA_ADDRESS: u16 = 1;
const IFA_CACHEINFO: u16 = 6;
const AF_INET6: u8 = nix::libc::AF_INET6 as u8;
/// Usable at once: nobody else can have it.
const IFA_F_NODAD: u8 = 0x02;
const LOOPBACK_INDEX: u32 = 1;

impl LoopbackAddress {
    /// Valid for ever and never preferred: to be bound, but nobody's default source.
    fn attributes(&self) -> [DefaultNla; 2] {
        let [preferred, valid, created, updated] = [0, u32::MAX, 0, 0].map(u32::to_ne_bytes);
        let lifetime = [preferred, valid, created, updated].concat();
        [
            DefaultNla::new(IFA_ADDRESS, self.address.octets().to_vec()),
            DefaultNla::new(IFA_CACHEINFO, lifetime),
        ]
    }
}

impl NetlinkSerializable for LoopbackAddress {
    fn message_type(&self) -> u16 {
        match self.change {
            Change::Add => RTM_NEWADDR,
            Change::Remove => RTM_DELADDR,
        }
    }

    fn buffer_len(&self) -> usize {
        8 + self.attributes().as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let [a, b, c, d] = LOOPBACK_INDEX.to_ne_bytes();
        let header = [AF_INET6, 128, IFA_F_NODAD, 0, a, b, c, d];
        if let Some((head, attributes)) = buffer.split_at_mut_checked(header.len()) {
            head.copy_from_slice(&header);
            self.attributes().as_slice().emit(attributes);
        }
    }
}

impl NetlinkDeserializable for LoopbackAddress {
    type Error = netlink_packet_core::DecodeError;

    /// The kernel answers with acknowledgements alone.
    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Self::Error> {
        Err("an address was not asked for".into())
    }
}

impl From<LoopbackAddress> for NetlinkPayload<LoopbackAddress> {
    fn from(message: LoopbackAddress) -> Self {
        Self::InnerMessage(message)
    }
}
