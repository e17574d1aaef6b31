//! The caller's side of HTTP/1: its request, and the answer to it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::{
    discovery::FieldEdits,
    http::{
        answer::{self, FAULT},
        filter::Reply,
        h1::{
            self, Asked, Bad, BodyDecoder, Decoded, Fields, Framing, Limits, Persistence,
            RequestHead,
        },
        message::{self, Break, Chunk},
    },
    outcome::Fault,
    request,
    wire::{Reader, Writer},
};

use super::{Left, endpoint::Response, put};

#[derive(Debug)]
pub(crate) struct Request(pub(in crate::http) RequestHead);

impl request::Request for Request {
    fn method(&self) -> &str {
        self.0.method()
    }

    fn path(&self) -> &[u8] {
        self.0.path()
    }

    fn query(&self) -> Option<&[u8]> {
        self.0.query()
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.fields().get_all(name)
    }
}

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(in crate::http) reader: Reader,
    decoder: BodyDecoder,
    /// Decoded ahead of its time.
    ready: Option<Chunk<Box<Fields>>>,
}

impl Incoming {
    pub(in crate::http) fn new(reader: Reader, framing: Framing, limits: &Limits) -> Self {
        Self {
            reader,
            decoder: BodyDecoder::new(framing, limits),
            ready: None,
        }
    }

    /// Looks at what came with the head, so that a body which is wrong from
    /// its first byte never reaches the application.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::http) fn look(&mut self) -> Result<(), Bad> {
        let has_body = !self.decoder.is_done();
        self.ready = match self.decoder.decode(&mut self.reader.buffer)? {
            Decoded::Data(data) => Some(Chunk::Data(data)),
            Decoded::Trailers(trailers) => Some(Chunk::Trailers(trailers)),
            // An empty chunked body has an end, which the next hop must get.
            Decoded::End if has_body => Some(Chunk::End),
            Decoded::NeedMore | Decoded::End => None,
        };
        Ok(())
    }
}

impl message::Incoming<Box<Fields>> for Incoming {
    fn is_end(&self) -> bool {
        self.ready.is_none() && self.decoder.is_done()
    }

    async fn next(&mut self) -> Result<Chunk<Box<Fields>>, Break> {
        if let Some(ready) = self.ready.take() {
            return Ok(ready);
        }
        loop {
            match self.decoder.decode(&mut self.reader.buffer) {
                Ok(Decoded::Data(data)) => return Ok(Chunk::Data(data)),
                Ok(Decoded::Trailers(trailers)) => return Ok(Chunk::Trailers(trailers)),
                Ok(Decoded::End) => return Ok(Chunk::End),
                Ok(Decoded::NeedMore) => {}
                Err(bad) => return Err(Break::Bad(bad.in_request())),
            }
            match self.reader.fill().await {
                Ok(0) | Err(_) => return Err(Break::Gone),
                Ok(_) => {}
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(in crate::http) writer: Writer,
    asked: Asked,
    /// The caller is a peer proxy: it may be told our faults.
    is_mesh: bool,
    /// Whether another request may follow, if this exchange ends well.
    pub(in crate::http) persistence: Persistence,
    /// The request has a body, which an early answer may leave unread.
    has_request_body: bool,
    framing: Framing,
    /// What the final head gets.
    edits: Option<Arc<FieldEdits>>,
    state: State,
    /// Where the head begins in the writer's buffer, while all of it is there.
    held: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Started,
    Complete,
    Aborted,
}

impl Answer {
    pub(in crate::http) fn new(
        writer: Writer,
        asked: Asked,
        is_mesh: bool,
        persistence: Persistence,
    ) -> Self {
        Self {
            writer,
            asked,
            is_mesh,
            persistence,
            has_request_body: false,
            framing: Framing::None,
            edits: None,
            state: State::Waiting,
            held: None,
        }
    }

    /// Answers a request that is framed so.
    pub(in crate::http) fn to(self, request: Framing) -> Self {
        Self {
            has_request_body: request != Framing::None,
            ..self
        }
    }

    pub(in crate::http) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    fn hop(&self) -> h1::Edit<'static> {
        h1::Edit {
            framing: self.framing,
            persistence: self.persistence,
            path: None,
            host: None,
            fields: None,
            extra: &[],
        }
    }

    /// A whole answer of the mesh's own.
    async fn write(
        &mut self,
        status: StatusCode,
        fields: &[(HeaderName, HeaderValue)],
        body: &[u8],
    ) -> Result<(), Break> {
        self.state = State::Started;
        let (asked, persistence) = (self.asked, self.persistence);
        let out = &mut self.writer.buffer;
        h1::encode_answer(out, status, fields, body, asked, persistence);
        self.writer.flush().await.map_err(|_| Break::Gone)?;
        self.state = State::Complete;
        Ok(())
    }
}

impl message::Answer<Response, Box<Fields>> for Answer {
    fn is_started(&self) -> bool {
        self.state != State::Waiting
    }

    async fn informational(&mut self, head: Response) -> Result<(), Break> {
        if self.asked.takes_informational() {
            let edit = self.hop();
            h1::encode_response(&mut self.writer.buffer, &head.head, self.asked, &edit);
            self.writer.flush().await.map_err(|_| Break::Gone)?;
        }
        Ok(())
    }

    async fn head(&mut self, head: Response, last: bool) -> Result<(), Break> {
        self.state = State::Started;
        self.held = Some(self.writer.buffer.len());
        self.framing = self.asked.reframe(head.framing);
        // Who answers and closes takes no more of the body (RFC 9112 §9.3): the
        // caller must know before it sends the rest.
        let leaves = self.has_request_body && !head.head.keeps_alive();
        if self.framing == Framing::UntilClose || leaves {
            self.persistence = Persistence::Close;
        }
        let edits = self.edits.clone();
        let edit = h1::Edit {
            fields: edits.as_deref(),
            ..self.hop()
        };
        h1::encode_response(&mut self.writer.buffer, &head.head, self.asked, &edit);
        if last {
            return self.end(None).await;
        }
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Break> {
        let left = put(&mut self.writer, self.framing, data).await;
        if left.map_err(|_| Break::Gone)? == Left::Something {
            self.held = None;
        }
        Ok(())
    }

    async fn end(&mut self, trailers: Option<Box<Fields>>) -> Result<(), Break> {
        if self.framing == Framing::Chunked {
            let out = &mut self.writer.buffer;
            h1::encode_last_chunk(out, trailers.as_deref());
        }
        self.writer.flush().await.map_err(|_| Break::Gone)?;
        self.state = State::Complete;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Break> {
        self.held = None;
        self.writer.flush().await.map_err(|_| Break::Gone)
    }

    fn edit(&mut self, fields: Arc<FieldEdits>) {
        self.edits = Some(fields);
    }

    async fn reply(&mut self, reply: Reply) -> Result<(), Break> {
        if self.has_request_body {
            self.persistence = Persistence::Close;
        }
        self.write(reply.status, &reply.fields, &[]).await
    }

    fn retract(&mut self) -> bool {
        let Some(start) = self.held.take() else {
            return false;
        };
        self.writer.buffer.truncate(start);
        self.state = State::Waiting;
        true
    }

    async fn fault(&mut self, fault: Fault, detail: &str) -> Result<(), Break> {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let mut fields: SmallVec<[(HeaderName, HeaderValue); 3]> = SmallVec::new();
        fields.extend(value(&fault.proxy_status()).map(|value| (PROXY_STATUS, value)));
        if self.is_mesh {
            fields.extend(
                value(&answer::told(fault)).map(|value| (HeaderName::from_static(FAULT), value)),
            );
        }
        fields.push((
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ));
        let status =
            StatusCode::from_u16(fault.reason.http_status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let text = answer::text(fault, detail);
        self.write(status, &fields, text.as_bytes()).await
    }

    fn abort(&mut self, _reset: Option<h2::Reason>) {
        self.state = State::Aborted;
    }

    async fn cancelled(&mut self) {
        // A half-closed caller still waits for its answer; one that is gone is
        // noticed when the answer is written.
        std::future::pending().await
    }
}

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
