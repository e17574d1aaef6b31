//! Whether an application takes WebSockets over HTTP/2: it says so in its first
//! SETTINGS (RFC 8441 §3), which may still be on their way.
//!
//! Part of `pool`; asked through `Stream`. h2 has no event for SETTINGS, but
//! whoever answers a PING has sent its SETTINGS before (RFC 9113 §3.4). One
//! PING a connection, and only where a WebSocket is asked for.

use std::{
    cell::RefCell,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, client::SendRequest};
use tokio::{sync::OnceCell, time::timeout};

use crate::outcome::Reason;

/// As long as a connect takes by default.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Settled {
    ping: RefCell<Option<PingPong>>,
    is_over: OnceCell<()>,
}

impl Settled {
    pub(super) fn new(ping: Option<PingPong>) -> Self {
        Self {
            ping: RefCell::new(ping),
            is_over: OnceCell::new(),
        }
    }

    /// # Errors
    /// `WebsocketUnsupported`, or why that can't be known.
    pub(super) async fn takes_websockets(&self, sender: &SendRequest<Bytes>) -> Result<(), Reason> {
        if sender.is_extended_connect_protocol_enabled() {
            return Ok(());
        }
        let settings = self.is_over.get_or_try_init(|| self.pong());
        match timeout(PATIENCE, settings).await {
            Err(_) => Err(Reason::ConnectTimeout),
            Ok(Err(_)) => Err(Reason::StreamRefused),
            Ok(Ok(_)) if sender.is_extended_connect_protocol_enabled() => Ok(()),
            Ok(Ok(_)) => Err(Reason::WebsocketUnsupported),
        }
    }

    async fn pong(&self) -> Result<(), h2::Error> {
        if let Some(ping) = self.ping.borrow_mut().as_mut() {
            // Refused where somebody who no longer waits has sent one: its answer will do.
            let _ = ping.send_ping(Ping::opaque());
        }
        poll_fn(|cx| self.poll_pong(cx)).await
    }

    fn poll_pong(&self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        match self.ping.borrow_mut().as_mut() {
            Some(ping) => ping.poll_pong(cx).map_ok(|_| ()),
            None => Poll::Ready(Ok(())),
        }
    }
}
