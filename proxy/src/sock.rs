//! Socket options, each by the name of what it is for.
//!
//! Ground. `listen` opens and accepts with it, `upstream::connect` dials with
//! it, `tcp` and the stories end connections with `reset`. Options that Linux
//! hands down from a listener to what it accepts are set on the listener once,
//! so that an accepted connection costs no call.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::addr::{OrigDst, canonical};

/// What the inbound proxy dials its workload from, so that redirection knows it.
pub(crate) const INBOUND_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
pub(crate) const INBOUND_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Connections waiting to be accepted, per listener. The kernel caps it at
/// `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// How soon a peer that is gone is noticed, on every connection of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Liveness {
    /// Silence after which the kernel asks the peer whether it is there.
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    /// Unanswered questions after which the connection is gone.
    pub(crate) probes: u32,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`). Linux
    /// also lets it overrule `probes` (tcp(7)): both say about the same.
    pub(crate) unacknowledged: Duration,
}

impl Default for Liveness {
    /// A dead peer is noticed within a minute and a half. Shorter would cut
    /// connections that a network outage of a minute leaves intact.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            probes: 6,
            unacknowledged: Duration::from_secs(90),
        }
    }
}

/// From where a connection is opened, and as whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Source {
    /// Bind 127.0.0.6 or ::6, by the destination's family: the connection then
    /// reaches the workload and not the proxy again.
    pub(crate) inbound: bool,
    /// Packet mark that tells the proxy's traffic where its uid can't
    /// (`redirect`, `Own::Mark`). Needs `CAP_NET_ADMIN` in the network's user
    /// namespace.
    pub(crate) mark: Option<u32>,
}

/// A listener that shares its port with other workers. `[::]` takes both
/// families, and IPv4 alone where the kernel was started without IPv6.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn listener(address: SocketAddr, liveness: &Liveness) -> io::Result<TcpListener> {
    let open = |address| {
        let domain = Domain::for_address(address);
        Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
    };
    let is_wildcard = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    let (socket, address) = match open(address) {
        Err(error) if is_wildcard && error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            (open(v4)?, v4)
        }
        socket => (socket?, address),
    };
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    tune(&SockRef::from(&socket), liveness)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Opens a connection. The caller bounds the time.
///
/// # Errors
/// What the kernel says of the destination, or of the right to set a mark.
pub(crate) async fn connect(
    to: SocketAddr,
    from: Source,
    liveness: &Liveness,
) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    tune(&SockRef::from(&socket), liveness)?;
    if let Some(mark) = from.mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    if from.inbound {
        // The port is then chosen at connect, by the whole 4-tuple: one source
        // address carries more than 28,000 connections (ip(7)).
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        let address: IpAddr = if to.is_ipv4() {
            INBOUND_V4.into()
        } else {
            INBOUND_V6.into()
        };
        socket.bind(SocketAddr::new(address, 0))?;
    }
    socket.connect(to).await
}

fn tune(socket: &SockRef<'_>, liveness: &Liveness) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(liveness.idle)
        .with_interval(liveness.interval)
        .with_retries(liveness.probes);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(liveness.unacknowledged))
}

/// Where an accepted connection was going before redirection. Without
/// redirection it is the listener's own address or an error, as the kernel
/// tracks connections or not.
///
/// # Errors
/// When the kernel knows no such connection.
pub(crate) fn original_destination(stream: &TcpStream) -> io::Result<OrigDst> {
    let socket = SockRef::from(stream);
    // A dual-stack socket's IPv4 connections answer to the IPv4 option alone.
    let answer = match canonical(stream.local_addr()?) {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    }?;
    let address = answer
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(OrigDst(canonical(address)))
}

/// Ends a connection so that its peer sees a reset (RFC 9293 §3.10.7), not an
/// orderly end. What was written and not yet sent is lost.
pub(crate) fn reset(stream: TcpStream) {
    reset_on_drop(&stream);
    drop(stream);
}

/// Makes the coming drop of `stream`, within TLS or not, a reset.
pub(crate) fn reset_on_drop(stream: &TcpStream) {
    // It fails only on a connection that is gone already.
    let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = listener("[::]:0".parse().unwrap(), &Liveness::default()).unwrap();
        let to = SocketAddr::new(
            Ipv4Addr::LOCALHOST.into(),
            listener.local_addr().unwrap().port(),
        );
        let near = connect(to, Source::default(), &Liveness::default())
            .await
            .unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn both_ends_notice_a_dead_peer_and_send_at_once() {
        let (near, accepted) = pair().await;
        let liveness = Liveness::default();
        for stream in [&near, &accepted] {
            let socket = SockRef::from(stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), liveness.idle);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), liveness.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), liveness.probes);
            assert_eq!(
                socket.tcp_user_timeout().unwrap(),
                Some(liveness.unacknowledged)
            );
        }
    }

    #[tokio::test]
    async fn workers_share_a_port() {
        let first = listener("127.0.0.1:0".parse().unwrap(), &Liveness::default()).unwrap();
        assert!(listener(first.local_addr().unwrap(), &Liveness::default()).is_ok());
    }

    #[tokio::test]
    async fn the_inbound_side_dials_from_its_own_address() {
        let listener = listener("127.0.0.1:0".parse().unwrap(), &Liveness::default()).unwrap();
        let source = Source {
            inbound: true,
            mark: None,
        };
        let _near = connect(listener.local_addr().unwrap(), source, &Liveness::default())
            .await
            .unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), INBOUND_V4);
    }

    #[tokio::test]
    async fn a_reset_is_not_an_orderly_end() {
        let (near, mut accepted) = pair().await;
        reset(near);
        let error = accepted.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
