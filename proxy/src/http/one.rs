//! HTTP/1 as an exchange sees it, over our codec on both legs.
//!
//! `h1` knows the bytes, `wire` moves them; here they meet. Heads and small
//! pieces are gathered and written together when nothing more is ready; large
//! pieces go through uncopied. An upgraded connection ends in `tunnel`.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use crate::{
    discovery::{Backend, Endpoint, Security},
    outcome::{Fault, Reason, Side},
    request,
    upstream::pool::{Lease, Pool},
    wire::{self, Reader, Writer},
};

use super::{
    answer::{self, ATTEMPT, FAULT},
    h1::{
        self, Asked, Bad, BodyDecoder, Decoded, Fields, Framing, Limits, MeshFields, Persistence,
        RequestHead, ResponseHead, Scanner, Version,
    },
    message::{self, Break, Broken, Chunk, Edit},
};

/// Pieces up to this size are copied behind what already waits, and what waits
/// stays below it.
const GATHERED: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) enum One {}

impl message::Version for One {
    type Request = Request;
    type Response = Response;
    type Trailers = Fields;
    type Incoming = Incoming;
    type Answer = Answer;
    type Upstream = Upstream;
    type Outgoing = Outgoing;
    type Responding = Responding;

    async fn tunnel(
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        responding: &mut Responding,
        answer: &mut Answer,
    ) -> Result<(), Break> {
        let there = pass(&mut incoming.reader, &mut outgoing.writer);
        let back = pass(&mut responding.reader, &mut answer.writer);
        answer.persistence = Persistence::Close;
        tokio::try_join!(there, back).map(|_| ())
    }
}

/// Copies until the end of one side, and passes that end on.
async fn pass(from: &mut Reader, to: &mut Writer) -> Result<(), Break> {
    loop {
        if !from.buffer.is_empty() {
            let data = from.buffer.split().freeze();
            to.send(data).await.map_err(|_| Break::Gone)?;
        }
        if from.fill().await.map_err(|_| Break::Gone)? == 0 {
            return to.end().await.map_err(|_| Break::Gone);
        }
    }
}

// ── the caller's side ───────────────────────────────────────────────────────

#[derive(Debug)]
pub(crate) struct Request(pub(super) RequestHead);

impl request::Request for Request {
    fn method(&self) -> &str {
        self.0.method()
    }

    fn path(&self) -> &[u8] {
        self.0.path()
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.fields().get_all(name)
    }
}

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(super) reader: Reader,
    decoder: BodyDecoder,
    /// Decoded ahead of its time.
    ready: Option<Chunk<Fields>>,
}

impl Incoming {
    pub(super) fn new(reader: Reader, framing: Framing, limits: &Limits) -> Self {
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
    pub(super) fn look(&mut self) -> Result<(), Bad> {
        self.ready = match self.decoder.decode(&mut self.reader.buffer)? {
            Decoded::Data(data) => Some(Chunk::Data(data)),
            Decoded::Trailers(trailers) => Some(Chunk::Trailers(trailers)),
            Decoded::NeedMore | Decoded::End => None,
        };
        Ok(())
    }
}

impl message::Incoming<Fields> for Incoming {
    fn is_end(&self) -> bool {
        self.ready.is_none() && self.decoder.is_done()
    }

    async fn next(&mut self) -> Result<Chunk<Fields>, Break> {
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
    pub(super) writer: Writer,
    asked: Asked,
    /// The caller is a peer proxy: it may be told our faults.
    is_mesh: bool,
    /// Whether another request may follow, if this exchange ends well.
    pub(super) persistence: Persistence,
    framing: Framing,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Started,
    Complete,
    Aborted,
}

impl Answer {
    pub(super) fn new(
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
            framing: Framing::None,
            state: State::Waiting,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.state == State::Aborted
    }

    fn mesh_fields(&self) -> MeshFields {
        if self.is_mesh {
            MeshFields::Keep
        } else {
            MeshFields::Strip
        }
    }

    fn edit(&self) -> h1::Edit<'static> {
        h1::Edit {
            framing: self.framing,
            persistence: self.persistence,
            mesh_fields: self.mesh_fields(),
            path: None,
            extra: &[],
        }
    }
}

impl message::Answer<Response, Fields> for Answer {
    fn is_started(&self) -> bool {
        self.state != State::Waiting
    }

    async fn informational(&mut self, head: Response) -> Result<(), Break> {
        if self.asked.takes_informational() {
            let edit = self.edit();
            h1::encode_response(&mut self.writer.buffer, &head.head, self.asked, &edit);
            self.writer.flush().await.map_err(|_| Break::Gone)?;
        }
        Ok(())
    }

    async fn head(&mut self, head: Response, last: bool) -> Result<(), Break> {
        self.state = State::Started;
        self.framing = self.asked.reframe(head.framing);
        if self.framing == Framing::UntilClose {
            self.persistence = Persistence::Close;
        }
        let edit = self.edit();
        h1::encode_response(&mut self.writer.buffer, &head.head, self.asked, &edit);
        if last {
            return self.end(None).await;
        }
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> Result<(), Break> {
        put(&mut self.writer, self.framing, data)
            .await
            .map_err(|_| Break::Gone)
    }

    async fn end(&mut self, trailers: Option<Fields>) -> Result<(), Break> {
        if self.framing == Framing::Chunked {
            let mesh_fields = self.mesh_fields();
            h1::encode_last_chunk(&mut self.writer.buffer, trailers.as_ref(), mesh_fields);
        }
        self.writer.flush().await.map_err(|_| Break::Gone)?;
        self.state = State::Complete;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Break> {
        self.writer.flush().await.map_err(|_| Break::Gone)
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
        self.state = State::Started;
        let out = &mut self.writer.buffer;
        h1::encode_answer(
            out,
            status,
            &fields,
            text.as_bytes(),
            self.asked,
            self.persistence,
        );
        self.writer.flush().await.map_err(|_| Break::Gone)?;
        self.state = State::Complete;
        Ok(())
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

// ── the endpoint's side ─────────────────────────────────────────────────────

#[derive(Debug)]
pub(crate) struct Response {
    head: ResponseHead,
    framing: Framing,
}

impl message::Response for Response {
    fn status(&self) -> u16 {
        self.head.status()
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.fields().get_all(name).next()
    }

    fn is_end(&self) -> bool {
        matches!(self.framing, Framing::None | Framing::Length(0))
    }
}

impl message::Trailers for Fields {
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    wire: wire::Wire,
    lease: Lease,
    limits: Limits,
}

impl message::Upstream<Request> for Upstream {
    type Outgoing = Outgoing;
    type Responding = Responding;

    async fn open(
        pool: &Rc<Pool>,
        backend: &Backend,
        endpoint: &Arc<Endpoint>,
        limits: &Limits,
    ) -> Result<Self, Reason> {
        let (wire, lease) = pool.http1(backend, endpoint).await?;
        let limits = match endpoint.security {
            Security::Mesh { .. } => limits.of_mesh(),
            Security::Unmeshed => *limits,
        };
        Ok(Self {
            wire,
            lease,
            limits,
        })
    }

    fn is_reused(&self) -> bool {
        self.lease.is_reused
    }

    async fn send(
        self,
        request: &Request,
        edit: Edit<'_>,
        _last: bool,
    ) -> Result<(Outgoing, Responding), Broken> {
        let Self {
            wire,
            lease,
            limits,
        } = self;
        let wire::Wire { reader, mut writer } = wire;
        let framing = h1::request_framing(&request.0);
        let mut extra: SmallVec<[(HeaderName, HeaderValue); 1]> = SmallVec::new();
        if edit.mesh && edit.attempt > 1 {
            extra.push((
                HeaderName::from_static(ATTEMPT),
                HeaderValue::from(edit.attempt),
            ));
        }
        let head = h1::Edit {
            framing,
            // HTTP/1.0 keeps a connection only where both sides ask for it.
            persistence: match request.0.version() {
                Version::Http11 => Persistence::KeepAlive,
                Version::Http10 if request.0.keeps_alive() => Persistence::KeepAlive,
                Version::Http10 => Persistence::Close,
            },
            mesh_fields: MeshFields::Strip,
            path: edit.path,
            extra: &extra,
        };
        h1::encode_request(&mut writer.buffer, &request.0, &head);
        let responding = Responding {
            reader,
            lease,
            scanner: Scanner::new(),
            decoder: None,
            asked: request.0.asked(),
            limits,
            is_closing: true,
        };
        Ok((Outgoing { writer, framing }, responding))
    }

    fn release(pool: &Pool, outgoing: Outgoing, responding: Responding) {
        let Responding {
            reader,
            lease,
            decoder,
            is_closing,
            ..
        } = responding;
        let is_complete = decoder.is_some_and(|decoder| decoder.is_done());
        if is_complete && !is_closing && outgoing.writer.buffer.is_empty() {
            pool.put_back(
                wire::Wire {
                    reader,
                    writer: outgoing.writer,
                },
                lease,
            );
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    writer: Writer,
    framing: Framing,
}

impl message::Outgoing<Fields> for Outgoing {
    async fn data(&mut self, data: Bytes) -> Result<(), Broken> {
        put(&mut self.writer, self.framing, data)
            .await
            .map_err(|_| Broken::new(Reason::UpstreamReset))
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        self.writer
            .flush()
            .await
            .map_err(|_| Broken::new(Reason::UpstreamReset))
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        if self.framing == Framing::Chunked {
            h1::encode_last_chunk(&mut self.writer.buffer, trailers, MeshFields::Strip);
        }
        self.flush().await
    }
}

#[derive(Debug)]
pub(crate) struct Responding {
    reader: Reader,
    lease: Lease,
    scanner: Scanner,
    /// Of the final head's body.
    decoder: Option<BodyDecoder>,
    asked: Asked,
    limits: Limits,
    is_closing: bool,
}

impl message::Responding<Response, Fields> for Responding {
    async fn head(&mut self) -> Result<Response, Broken> {
        let malformed = |bad: Bad| Broken::new(bad.in_response());
        let head = loop {
            let parsed =
                h1::parse_response(&mut self.reader.buffer, &mut self.scanner, &self.limits);
            if let Some(head) = parsed.map_err(malformed)? {
                break head;
            }
            self.fill(Reason::UpstreamReset).await?;
        };
        let framing = h1::response_framing(&head, self.asked).map_err(malformed)?;
        if !head.is_informational() {
            self.decoder = Some(BodyDecoder::new(framing, &self.limits));
            self.is_closing =
                !head.keeps_alive() || framing == Framing::UntilClose || head.status() == 101;
        }
        Ok(Response { head, framing })
    }

    async fn next(&mut self) -> Result<Chunk<Fields>, Broken> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                return Ok(Chunk::End);
            };
            match decoder.decode(&mut self.reader.buffer) {
                Ok(Decoded::Data(data)) => return Ok(Chunk::Data(data)),
                Ok(Decoded::Trailers(trailers)) => return Ok(Chunk::Trailers(trailers)),
                Ok(Decoded::End) => return Ok(Chunk::End),
                Ok(Decoded::NeedMore) => {}
                Err(bad) => return Err(Broken::new(bad.in_response())),
            }
            if self.fill_or_end(Reason::ResponseTruncated).await? == 0 {
                let Some(decoder) = &mut self.decoder else {
                    return Ok(Chunk::End);
                };
                return match decoder.end_of_stream() {
                    Ok(()) => Ok(Chunk::End),
                    Err(_) => Err(Broken::new(Reason::ResponseTruncated)),
                };
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }
}

impl Responding {
    async fn fill(&mut self, reason: Reason) -> Result<(), Broken> {
        match self.fill_or_end(reason).await? {
            0 => Err(Broken::new(reason)),
            _ => Ok(()),
        }
    }

    async fn fill_or_end(&mut self, reason: Reason) -> Result<usize, Broken> {
        self.reader.fill().await.map_err(|error| {
            if let Some(reason) = self.lease.refusal() {
                return Broken::unread(reason);
            }
            match wire::ended(&error) {
                wire::Ended::Refused => Broken::unread(Reason::StreamRefused),
                wire::Ended::Told => Broken {
                    told: Some(Reason::ResponseTruncated.at(Side::Inbound)),
                    ..Broken::new(reason)
                },
                wire::Ended::Broken => Broken::new(reason),
            }
        })
    }
}

// ── both ────────────────────────────────────────────────────────────────────

/// Writes one piece of a body: gathered where small, uncopied where large.
async fn put(writer: &mut Writer, framing: Framing, data: Bytes) -> std::io::Result<()> {
    let is_small = data.len() <= GATHERED / 2;
    if is_small && writer.buffer.len() + data.len() > GATHERED {
        writer.flush().await?;
    }
    match (framing, is_small) {
        (Framing::Chunked, true) => h1::encode_chunk(&mut writer.buffer, &data),
        (Framing::Chunked, false) => {
            h1::encode_chunk_start(&mut writer.buffer, data.len());
            writer.send(data).await?;
            h1::encode_chunk_end(&mut writer.buffer);
        }
        (_, true) => writer.buffer.extend_from_slice(&data),
        (_, false) => writer.send(data).await?,
    }
    Ok(())
}
