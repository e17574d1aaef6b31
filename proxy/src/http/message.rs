//! What an exchange needs of an HTTP version: five small traits, two
//! implementations each (`one` over our HTTP/1 codec, `two` over `h2`).
//!
//! The version that the application speaks is kept from end to end, so every
//! type here belongs to one `Version` and nothing is ever translated.

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;

use crate::{
    discovery::{Backend, Endpoint, FieldEdits, RequestEdits},
    outcome::{Fault, Reason},
    request,
    upstream::pool::{Pool, Wanted},
};

use super::{filter::Reply, h1::Limits};

/// HTTP/1 or HTTP/2.
pub(crate) trait Version: 'static {
    type Request: request::Request;
    type Response: Response;
    type Trailers: Trailers + Clone;
    type Incoming: Incoming<Self::Trailers>;
    type Answer: Answer<Self::Response, Self::Trailers>;
    type Upstream: Upstream<Self::Request, Outgoing = Self::Outgoing, Responding = Self::Responding>;
    type Outgoing: Outgoing<Self::Trailers>;
    type Responding: Responding<Self::Response, Self::Trailers>;

    /// Another one for a mirror; `None` for what is no single exchange.
    fn copy(request: &Self::Request) -> Option<Self::Request>;

    /// Behind a head that switches: carries what is no longer HTTP until both
    /// sides end.
    async fn tunnel(
        incoming: &mut Self::Incoming,
        outgoing: &mut Self::Outgoing,
        responding: &mut Self::Responding,
        answer: &mut Self::Answer,
        carried: &Carried,
    ) -> Result<(), Break>;
}

/// Bytes that a tunnel has carried so far.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// From the caller.
    pub(crate) received: Cell<u64>,
    /// To the caller.
    pub(crate) sent: Cell<u64>,
}

impl Carried {
    pub(super) fn count(cell: &Cell<u64>, bytes: usize) {
        cell.set(cell.get().saturating_add(bytes as u64));
    }
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Chunk<Trailers> {
    Data(Bytes),
    Trailers(Trailers),
    End,
}

/// Why a message broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// The other side ended the connection or stream.
    Gone,
    /// It broke the protocol.
    Bad(Reason),
}

/// Head of a response.
pub(crate) trait Response {
    fn status(&self) -> u16;
    /// First value of the field, by lower-case name.
    fn field(&self, name: &str) -> Option<&[u8]>;
    /// Whether the head says that nothing follows it.
    fn is_end(&self) -> bool;
    /// Whether what follows it is no longer HTTP.
    fn is_switch(&self) -> bool;
}

pub(crate) trait Trailers {
    fn field(&self, name: &str) -> Option<&[u8]>;
}

/// A request's body as the caller sends it.
pub(crate) trait Incoming<Trailers> {
    /// Whether nothing (more) comes. What a tunnel will carry is no body.
    fn is_end(&self) -> bool;
    async fn next(&mut self) -> Result<Chunk<Trailers>, Break>;
}

/// The answer to the caller. One final head, then its body; or a fault instead.
pub(crate) trait Answer<Response, Trailers> {
    /// Whether the final head is on its way.
    fn is_started(&self) -> bool;
    async fn informational(&mut self, head: Response) -> Result<(), Break>;
    /// `last`: nothing follows the head.
    async fn head(&mut self, head: Response, last: bool) -> Result<(), Break>;
    /// May hold it back until `flush`, to write it together with what follows.
    async fn data(&mut self, data: Bytes) -> Result<(), Break>;
    async fn flush(&mut self) -> Result<(), Break>;
    /// Ends the body, with trailers or without.
    async fn end(&mut self, trailers: Option<Trailers>) -> Result<(), Break>;
    /// The final head that is passed on gets these.
    fn edit(&mut self, fields: Arc<FieldEdits>);
    /// Instead of asking an endpoint. Only before `head`.
    async fn reply(&mut self, reply: Reply) -> Result<(), Break>;
    /// Takes back a head of which nothing has left yet; `false` where it has.
    fn retract(&mut self) -> bool;
    /// Only before `head`, or once it was taken back.
    async fn fault(&mut self, fault: Fault, detail: &str) -> Result<(), Break>;
    /// Ends the exchange so that the caller sees a failure, with this code
    /// where the version has codes.
    fn abort(&mut self, reset: Option<h2::Reason>);
    /// Resolves when the caller has given up.
    async fn cancelled(&mut self);
}

/// What the exchange changes of a request on its way to an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit<'a> {
    /// 1 for the first try; told to mesh peers from the second on.
    pub(crate) attempt: u32,
    /// The endpoint is reached through its proxy.
    pub(crate) mesh: bool,
    /// Forwarded instead of the request's own path.
    pub(crate) path: Option<&'a [u8]>,
    /// What a route's filters change beside the path.
    pub(crate) filters: Option<&'a RequestEdits>,
}

/// A ready connection to an endpoint, for one request.
pub(crate) trait Upstream<Request>: Sized {
    type Outgoing;
    type Responding;

    /// # Errors
    /// Why no connection could be had; nothing was sent.
    async fn open(
        pool: &Rc<Pool>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted,
        limits: &Limits,
    ) -> Result<Self, Reason>;
    /// Whether it served a request before: it may have been closed meanwhile.
    fn is_reused(&self) -> bool;
    /// Sends the head; `last`: no body follows.
    async fn send(
        self,
        request: &Request,
        edit: Edit<'_>,
        last: bool,
    ) -> Result<(Self::Outgoing, Self::Responding), Broken>;
    /// Both messages are complete: the connection may serve another exchange.
    fn release(pool: &Pool, outgoing: Self::Outgoing, responding: Self::Responding);
}

/// An endpoint's connection broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    pub(crate) reason: Reason,
    /// The peer says that it did not read the request.
    pub(crate) unread: bool,
    /// The application itself reset the stream (RFC 9113 §7): passed on as it is.
    pub(crate) reset: Option<h2::Reason>,
    /// The peer proxy broke it off for a fault that it recorded.
    pub(crate) told: Option<Fault>,
}

impl Broken {
    pub(crate) const fn new(reason: Reason) -> Self {
        Self {
            reason,
            unread: false,
            reset: None,
            told: None,
        }
    }

    /// The request was not read by anybody.
    pub(crate) const fn unread(reason: Reason) -> Self {
        Self {
            reason,
            unread: true,
            reset: None,
            told: None,
        }
    }
}

/// A request's body on its way out.
pub(crate) trait Outgoing<Trailers> {
    /// May hold it back, and the head, until `flush`.
    async fn data(&mut self, data: Bytes) -> Result<(), Broken>;
    async fn flush(&mut self) -> Result<(), Broken>;
    async fn end(&mut self, trailers: Option<&Trailers>) -> Result<(), Broken>;
}

/// A response as it arrives.
pub(crate) trait Responding<Response, Trailers> {
    /// The next head: informational ones, then the final one.
    async fn head(&mut self) -> Result<Response, Broken>;
    async fn next(&mut self) -> Result<Chunk<Trailers>, Broken>;
    /// The endpoint will read no more of the request once it has answered.
    fn is_closing(&self) -> bool;
}
