//! Our side of one discovery stream.
//!
//! Sending never waits: a control plane that stopped reading must not stop us
//! from noticing. What it leaves unread is bounded, and then the stream ends.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft_proto::v1::WatchRequest;

use super::End;
use crate::control::decode::Request;

/// Beside one subscription per address: acknowledgements and rejects.
const SPARE: usize = 1024;

pub(super) struct Link(mpsc::Sender<WatchRequest>);

impl Link {
    pub(super) fn new(max_subscriptions: usize) -> (Self, ReceiverStream<WatchRequest>) {
        let (sender, receiver) = mpsc::channel(max_subscriptions.saturating_add(SPARE));
        (Self(sender), ReceiverStream::new(receiver))
    }

    pub(super) fn send(&mut self, request: Request) -> Result<(), End> {
        self.0
            .try_send(request.into_wire())
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => End::Stuck,
                mpsc::error::TrySendError::Closed(_) => End::Closed,
            })
    }
}
