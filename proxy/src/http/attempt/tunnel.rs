//! What an exchange becomes when what follows its answer is no longer HTTP: an
//! HTTP/1 connection behind a 101, or an HTTP/2 stream behind an accepted
//! extended CONNECT.
//!
//! The last of an attempt, and `exchange` carries it outside of the request's
//! time: that is answered, and nothing is tried again.

use crate::{
    http::message::{Carried, Version},
    outcome::Outcome,
    record::Record,
    upstream::balance::InFlight,
};

/// Both ways, open.
pub(crate) struct Tunnel<V: Version> {
    outgoing: V::Outgoing,
    responding: V::Responding,
    /// It is load of its endpoint.
    _flight: InFlight,
}

impl<V: Version> Tunnel<V> {
    pub(super) fn new(
        outgoing: V::Outgoing,
        responding: V::Responding,
        flight: InFlight,
    ) -> Box<Self> {
        Box::new(Self {
            outgoing,
            responding,
            _flight: flight,
        })
    }

    /// Until both sides have ended: orderly or not is their own affair.
    pub(crate) async fn carry(
        mut self: Box<Self>,
        body: &mut V::Incoming,
        answer: &mut V::Answer,
        record: &mut Record,
    ) -> Outcome {
        let carried = Carried::default();
        let Self {
            outgoing,
            responding,
            ..
        } = &mut *self;
        let _ = V::tunnel(body, outgoing, responding, answer, &carried).await;
        record.received(carried.received.get());
        record.sent(carried.sent.get());
        Outcome::Carried
    }
}
