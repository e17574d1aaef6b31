//! Reads the requests of one connection and hands each to `exchange`.
//!
//! Steps 4 (outbound) and 5 (inbound) of the path. HTTP/1 comes over a socket
//! or a lane, HTTP/2 over a socket or mesh TLS; a lane is a stream of the
//! latter. One task per connection: its streams and lanes are futures in it.
//! Every header section has a size and, once begun, a time.

mod streams;
mod unfinished;

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    drain::{self, Phase},
    outcome::{Outcome, Reason, Side},
    record::{ConnectionRecord, Head, Record},
    wire::{Reader, Wire, Writer},
};

use super::{
    answer::{self, ATTEMPT},
    exchange::{Call, Context, Planner, exchange},
    h1::{self, Asked, Bad, Limits, Persistence, RequestHead, Scanner, Version},
    message::{self, Answer, Incoming},
    one::{self, One},
};

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    /// From the first byte of a header section, or of an HTTP/2 frame, to its last.
    pub(crate) header_timeout: Duration,
    /// How long a connection may idle between requests; `None`: for ever.
    pub(crate) keep_alive: Option<Duration>,
    /// Concurrent streams of one HTTP/2 connection.
    pub(crate) streams: u32,
    /// Receive windows, bytes. The connection's holds those of all streams
    /// that the pool opens, so that slow readers of some never stall the others.
    pub(crate) stream_window: u32,
    pub(crate) connection_window: u32,
    /// Streams that a peer may reset before we read them, and that we may have
    /// to reset, before the connection ends (CVE-2023-44487).
    pub(crate) resets: usize,
}

/// One connection, as its story found it.
pub(crate) struct Server<P> {
    pub(crate) cx: Rc<Context>,
    pub(crate) planner: P,
    pub(crate) record: ConnectionRecord,
    pub(crate) config: Rc<Config>,
    pub(crate) drain: drain::Watch,
    /// The caller is a peer proxy: its `weft-*` fields count.
    pub(crate) is_mesh: bool,
}

/// What became of a wait for a request's head.
enum Next {
    Head(Box<RequestHead>),
    /// The caller closed, or idled for too long.
    Closed,
    Bad(Reason, &'static str),
}

impl<P: Planner> Server<P> {
    /// Serves until either side closes.
    pub(crate) async fn http1(&self, wire: Wire) {
        let Wire {
            mut reader,
            mut writer,
        } = wire;
        let mut scanner = Scanner::new();
        let mut drain = self.drain.clone();
        loop {
            let head = tokio::select! {
                head = self.next_head(&mut reader, &mut scanner) => head,
                () = drain.reached(Phase::Stopping), if !scanner.has_begun() => Next::Closed,
            };
            let head = match head {
                Next::Head(head) => head,
                Next::Closed => break,
                Next::Bad(reason, detail) => {
                    writer = self.refuse(writer, reason, detail).await;
                    linger(&mut reader, &mut writer).await;
                    break;
                }
            };
            // In a box of its own: an idle connection shall not hold its room.
            let (back, ended) = Box::pin(self.one(*head, reader, writer)).await;
            (reader, writer) = back;
            match ended {
                Ended::Again => {}
                Ended::Close => {
                    linger(&mut reader, &mut writer).await;
                    break;
                }
                Ended::Reset => {
                    Wire { reader, writer }.reset();
                    break;
                }
            }
        }
    }

    async fn next_head(&self, reader: &mut Reader, scanner: &mut Scanner) -> Next {
        let mut by = None;
        loop {
            match h1::parse_request(&mut reader.buffer, scanner, &self.limits()) {
                Ok(Some(head)) => return Next::Head(Box::new(head)),
                Ok(None) => {}
                Err(bad) => return Next::Bad(bad.in_request(), bad.detail()),
            }
            let filled = if scanner.has_begun() {
                let by = *by.get_or_insert_with(|| Instant::now() + self.config.header_timeout);
                match timeout_at(by, reader.fill()).await {
                    Ok(filled) => filled,
                    Err(_) => return Next::Bad(Reason::HeaderTimeout, ""),
                }
            } else {
                reader.release();
                match self.config.keep_alive {
                    None => reader.fill().await,
                    Some(limit) => match timeout(limit, reader.fill()).await {
                        Ok(filled) => filled,
                        Err(_) => return Next::Closed,
                    },
                }
            };
            match filled {
                Ok(0) if scanner.has_begun() => {
                    return Next::Bad(Reason::MalformedRequest, Bad::Truncated.detail());
                }
                Ok(0) | Err(_) => return Next::Closed,
                Ok(_) => {}
            }
        }
    }

    /// Answers what never became a request.
    async fn refuse(&self, writer: Writer, reason: Reason, detail: &'static str) -> Writer {
        let asked = Asked {
            version: Version::Http11,
            head: false,
            upgrade: false,
        };
        let mut answer = one::Answer::new(writer, asked, self.is_mesh, Persistence::Close);
        let record = self.record.request(&Head::default());
        self.answer_fault::<One>(reason, detail, &mut answer, record)
            .await;
        answer.writer
    }

    /// For what never comes to an exchange.
    async fn answer_fault<V: message::Version>(
        &self,
        reason: Reason,
        detail: &str,
        answer: &mut V::Answer,
        mut record: Record,
    ) {
        let fault = reason.at(self.cx.side);
        record.status(reason.http_status());
        let outcome = match answer.fault(fault, detail).await {
            Ok(()) => Outcome::Faulted(fault),
            Err(_) => Outcome::CallerLeft,
        };
        record.finish(outcome);
    }

    /// From when on callers are told to go elsewhere. The application's own calls
    /// have nowhere else to go until it has ended.
    fn retires(&self) -> Phase {
        match self.cx.side {
            Side::Inbound => Phase::Draining,
            Side::Outbound => Phase::Stopping,
        }
    }

    /// What a message of this connection may hold.
    fn limits(&self) -> Limits {
        if self.is_mesh {
            self.config.limits.of_mesh()
        } else {
            self.config.limits
        }
    }

    #[expect(
        clippy::large_futures,
        reason = "one box an exchange holds it, no other"
    )]
    async fn one(
        &self,
        head: RequestHead,
        reader: Reader,
        writer: Writer,
    ) -> ((Reader, Writer), Ended) {
        let field = |name: &str| head.fields().get_all(name).next();
        let attempt = if self.is_mesh {
            answer::attempt(field(ATTEMPT))
        } else {
            1
        };
        let record = self.record.request(&Head {
            method: head.method().as_bytes(),
            path: head.target(),
            authority: head.authority().unwrap_or_default(),
            traceparent: field("traceparent"),
        });
        let framing = h1::request_framing(&head);
        let keeps = head.keeps_alive() && self.drain.phase() < self.retires();
        let persistence = if keeps {
            Persistence::KeepAlive
        } else {
            Persistence::Close
        };
        let mut call = Call::<One> {
            answer: one::Answer::new(writer, head.asked(), self.is_mesh, persistence).to(framing),
            body: one::Incoming::new(reader, framing, &self.limits()),
            request: one::Request(head),
            attempt,
        };
        match call.body.look() {
            Ok(()) => exchange(&self.cx, &self.planner, &mut call, record).await,
            Err(bad) => {
                call.answer.persistence = Persistence::Close;
                self.answer_fault::<One>(bad.in_request(), bad.detail(), &mut call.answer, record)
                    .await;
            }
        }
        let Call { body, answer, .. } = call;
        let ended = if !answer.is_complete() {
            Ended::Reset
        } else if answer.persistence == Persistence::KeepAlive && body.is_end() {
            Ended::Again
        } else {
            Ended::Close
        };
        ((body.reader, answer.writer), ended)
    }
}

/// How a connection goes on after an exchange.
enum Ended {
    Again,
    Close,
    /// The answer broke off: the caller must see that.
    Reset,
}

/// Ends our side and reads what is still on its way, within bounds: closing
/// with bytes unread would reset the connection, and the caller might lose the
/// answer (RFC 9112 §9.6).
async fn linger(reader: &mut Reader, writer: &mut Writer) {
    if writer.end().await.is_err() {
        return;
    }
    let drain = async {
        let mut left = LINGER_BYTES;
        while left > 0 {
            match reader.fill().await {
                Ok(0) | Err(_) => break,
                Ok(read) => left = left.saturating_sub(read),
            }
            reader.buffer.clear();
        }
    };
    // Whoever still sends after that is reset.
    let _ = timeout(LINGER, drain).await;
}

const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);
